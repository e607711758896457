"""One inbox for everything that JetStream sends to a connection: pulled messages, their statuses, and API answers.

A subscription of nats-py costs a task and a queue, so a process with thousands of consumers keeps one. A pulled message
arrives under its stored subject, so it is routed by the consumer's name in its reply subject; a status (a heartbeat,
an expired pull) arrives under the inbox, so it is routed by the token there. Consumer names are never used twice, which
makes everything that an abandoned consumer still sends fall on the floor.

Reply subjects come in two shapes, with and without a domain, and newer servers may add tokens at the end:
`$JS.ACK.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<ns>.<pending>` (nine tokens) and
`$JS.ACK.<domain>.<account>.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<ns>.<pending>[.…]` (eleven or more).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from slipstream_schemas.errors import Unavailable, Unreachable
from slipstream_schemas.limits import PULL_IDLE_HEARTBEAT_S, REQUEST_DEADLINE_S

log = logging.getLogger("slipstream.tail")

API: Final = "$JS.API"
ACK_TOKENS: Final = 9
"""Tokens of a reply subject without a domain."""
CREATIONS_MAX: Final = 256
ANSWER: Final = "answer"
PAGE: Final = "page"


class Message(msgspec.Struct, gc=False):
    """A stored message. `pending` counts the matching messages behind it when it was sent."""

    stream_seq: int
    subject: str
    headers: dict[str, str] | None
    body: bytes
    timestamp_ms: int
    pending: int = 0


class Wire(Protocol):
    """What an inbox needs of a connection."""

    @property
    def is_connected(self) -> bool: ...
    def new_inbox(self) -> str: ...
    async def publish(self, subject: str, payload: bytes = b"", reply: str = "") -> None: ...
    async def subscribe(self, subject: str, *, cb: Callable[[Msg], Awaitable[None]]) -> Subscription: ...
    def on_reconnect(self, callback: Callable[[], None], /) -> Callable[[], None]: ...


class Refusal(msgspec.Struct):
    """The `error` of an API answer."""

    err_code: int = 0
    description: str = ""


class Answer(msgspec.Struct):
    """An API answer; subclasses name the fields that matter, and what they do not name is skipped unread."""

    error: Refusal | None = None


class _Stream(msgspec.Struct):
    last_seq: int = 0


class _StreamInfo(Answer):
    state: _Stream = msgspec.field(default_factory=_Stream)


AnswerT = TypeVar("AnswerT", bound=Answer)


class ApiError(Exception):
    """JetStream refused a request. `err_code` is its documented number."""

    def __init__(self, err_code: int, description: str) -> None:
        super().__init__(f"{description} ({err_code})")
        self.err_code = err_code


def parse_reply(reply: str) -> tuple[str, str, int, int, int, int]:
    """`(stream, consumer, stream_seq, consumer_seq, timestamp_ms, pending)` of a delivered message's reply subject."""
    tokens = reply.split(".")
    at = 2 if len(tokens) == ACK_TOKENS else 4
    stream, consumer, _, stream_seq, consumer_seq, timestamp_ns, pending = tokens[at : at + 7]
    return stream, consumer, int(stream_seq), int(consumer_seq), int(timestamp_ns) // 1_000_000, int(pending)


class Receiver(Protocol):
    """A consumer's reader, as the inbox sees it."""

    def accept(self, consumer_seq: int, message: Message) -> bool:
        """Take a message; true asks for `refill`."""
        ...

    def accept_status(self, request: int, status: int, headers: dict[str, str]) -> bool:
        """Take a status of one pull; true asks for `refill`."""
        ...

    async def refill(self) -> None:
        """Ask for more if there is room."""
        ...

    def check(self, now_s: float) -> bool:
        """Replace the consumer if it has fallen silent; true says that it has."""
        ...

    async def probe(self) -> None:
        """Ask the consumer for a sign of life: one that is gone answers at once that it is."""
        ...

    def reconnected(self) -> None:
        """The connection was lost and is back: nothing that was asked for will come."""
        ...


class Inbox:
    """The shared inbox of a connection. Use as `async with Inbox(connection) as inbox`."""

    def __init__(self, connection: Wire) -> None:
        self._connection = connection
        self._prefix = connection.new_inbox()
        self._receivers: dict[str, Receiver] = {}
        self._answers: dict[str, asyncio.Future[Msg]] = {}
        self._pages: dict[str, Callable[[Msg], None]] = {}
        self._asked: set[asyncio.Future[Any]] = set()
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: dict[str, int] = {}
        self._end_reads: dict[str, asyncio.Lock] = {}
        self._up = asyncio.Event()
        self.creations = asyncio.Semaphore(CREATIONS_MAX)
        """Bounds consumers in the making: the broker drops API requests when thousands come at once."""
        self._subscription: Subscription | None = None
        self.sweeps: set[Callable[[], None]] = set()
        """Called every few seconds from the one timer that all readers share."""

    async def __aenter__(self) -> Self:
        self._subscription = await self._connection.subscribe(f"{self._prefix}.>", cb=self._arrive)
        self._connection.on_reconnect(self._reconnected)
        self.spawn(self._sweep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._receivers.clear()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._subscription is not None:
            try:
                await self._subscription.unsubscribe()
            except NatsError as failure:
                log.debug("inbox was gone before it was closed: %s", failure)

    def next_token(self) -> str:
        """A token that no other reply of this inbox has."""
        self._count += 1
        return str(self._count)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a short piece of work that ends with the inbox at the latest."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a reader's background work failed", exc_info=error)

    # Routing

    def route(self, consumer: str, receiver: Receiver) -> None:
        """Send what comes from a consumer to its reader."""
        self._receivers[consumer] = receiver

    def unroute(self, consumer: str) -> None:
        """Drop whatever else comes from a consumer."""
        self._receivers.pop(consumer, None)

    async def _arrive(self, msg: Msg) -> None:
        if not msg.reply:
            await self._arrive_status(msg)
            return
        stream, consumer, stream_seq, consumer_seq, timestamp_ms, pending = parse_reply(msg.reply)
        receiver = self._receivers.get(consumer)
        if receiver is None:
            return
        if stream_seq > self._ends.get(stream, 0):
            self._ends[stream] = stream_seq
        message = Message(stream_seq, msg.subject, msg.headers, msg.data, timestamp_ms, pending)
        if receiver.accept(consumer_seq, message):
            await receiver.refill()

    async def _arrive_status(self, msg: Msg) -> None:
        kind, _, token = msg.subject[len(self._prefix) + 1 :].partition(".")
        if kind == ANSWER:
            answer = self._answers.get(token)
            if answer is not None and not answer.done():
                answer.set_result(msg)
        elif kind == PAGE:
            if (page := self._pages.get(token)) is not None:
                page(msg)
        elif (receiver := self._receivers.get(kind)) is not None:
            headers = msg.headers or {}
            if receiver.accept_status(int(token), int(headers.get("Status", "0")), headers):
                await receiver.refill()

    # Asking

    async def tell(self, subject: str, body: bytes, reply: str = "") -> None:
        """Publish and do not wait. A message that a broken connection swallows is recovered by its reader."""
        try:
            await self._connection.publish(f"{API}.{subject}", body, reply=f"{self._prefix}.{reply}" if reply else "")
        except Unavailable as failure:
            log.debug("not sent: %s (%s)", subject, failure)

    async def ask(self, subject: str, body: dict[str, Any], kind: type[AnswerT]) -> AnswerT:
        """One JetStream API request. Raises: Unavailable when nothing answers in time, ApiError."""
        token = self.next_token()
        arrived: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._answers[token] = arrived
        self._asked.add(arrived)
        try:
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                await self.tell(subject, msgspec.json.encode(body) if body else b"", f"{ANSWER}.{token}")
                msg = await arrived
        except TimeoutError as late:
            raise Unreachable(f"the broker did not answer {subject} in {REQUEST_DEADLINE_S} s") from late
        finally:
            del self._answers[token]
            self._asked.discard(arrived)
        if not msg.data:
            raise Unreachable(f"nothing serves {subject} now")
        answer = msgspec.json.decode(msg.data, type=kind)
        if answer.error is not None:
            raise ApiError(answer.error.err_code, answer.error.description)
        return answer

    async def collect(self, subject: str, body: dict[str, Any], take: Callable[[Msg], bool]) -> None:
        """One request with many answers; `take` says when the last one has come. Raises: Unavailable."""
        token = self.next_token()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def page(msg: Msg) -> None:
            if not done.done() and take(msg):
                done.set_result(None)

        self._pages[token] = page
        self._asked.add(done)
        try:
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                await self.tell(subject, msgspec.json.encode(body), f"{PAGE}.{token}")
                await done
        except TimeoutError as late:
            raise Unreachable(f"the broker did not answer {subject} in {REQUEST_DEADLINE_S} s") from late
        finally:
            del self._pages[token]
            self._asked.discard(done)

    async def stream_end(self, stream: str, at_least: int) -> int:
        """The leader's last seq of a stream, or one already known to be `at_least`. Raises: Unavailable, ApiError."""
        if (known := self._ends.get(stream, 0)) >= at_least:
            return known
        async with self._end_reads.setdefault(stream, asyncio.Lock()):
            if (known := self._ends.get(stream, 0)) >= at_least:
                return known
            info = await self.ask(f"STREAM.INFO.{stream}", {}, _StreamInfo)
            self._ends[stream] = info.state.last_seq
            return info.state.last_seq

    def forget_end(self, stream: str) -> None:
        """A consumer of the stream was lost, perhaps with its stream: what was known of the end may be past."""
        self._ends.pop(stream, None)

    # Time and outages

    async def connected(self) -> None:
        """Wait for the connection, so that an outage does not fill its outbound buffer with stale requests."""
        while not self._connection.is_connected:
            self._up.clear()
            try:
                async with asyncio.timeout(PULL_IDLE_HEARTBEAT_S):
                    await self._up.wait()
            except TimeoutError:
                continue

    def _reconnected(self) -> None:
        self._up.set()
        # What ended where before the outage says nothing of the log that came back.
        self._ends.clear()
        for waiting in tuple(self._asked):
            if not waiting.done():
                waiting.set_exception(Unreachable("the connection was lost before the broker answered"))
        receivers = tuple(self._receivers.values())
        log.info("%d readers go on with new consumers after a reconnect", len(receivers))
        for receiver in receivers:
            receiver.reconnected()

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += PULL_IDLE_HEARTBEAT_S
            await asyncio.sleep(due - loop.time())
            now = loop.time()
            # A loop that was blocked has beats waiting in its socket: read them before judging silence.
            if now - due > PULL_IDLE_HEARTBEAT_S / 2:
                due = now
                continue
            receivers = tuple(self._receivers.values())
            silent = [receiver for receiver in receivers if receiver.check(now)]
            if silent:
                log.warning("%d of %d consumers have fallen silent and are replaced", len(silent), len(receivers))
                # Consumers die by the node: do not wait for the slower beats of the others.
                for receiver in receivers:
                    await receiver.probe()
            for sweep in tuple(self.sweeps):
                sweep()
