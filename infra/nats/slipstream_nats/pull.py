"""Reading a subject without end: a pull consumer that is refilled before it runs dry and replaced when it is lost.

The consumer is cheap and disposable: named, in memory, one replica, without acks, forgotten by the broker a while after
its reader went away. What makes the reading continuous is here, in the position:

- The consumer numbers what it delivers, so a number left out (a full queue in the client, a broken route) is seen at
  the next message, or at the next heartbeat, which carries the last number too.
- A missing number, two missed heartbeats, a status that says the consumer is gone, or a reconnect abandon the consumer.
  A new one with a new name starts behind the last message taken, so nothing is lost or repeated.
- A start behind the stream's end would silently swallow what is appended before it. So a start is compared with the
  stream's end first; a log that ends before what was already read has lost acknowledged records, and that is `Corrupt`.

Backpressure is the pull itself: no more is asked for until the reader has taken what came.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, Self

import msgspec

from slipstream_nats.connection import Connection
from slipstream_nats.inbox import Answer, ApiError, Inbox, Message
from slipstream_schemas.errors import Corrupt, SlipstreamError, Unavailable
from slipstream_schemas.limits import (
    CONSUMER_INACTIVE_S,
    MESSAGE_BYTES_MAX,
    PULL_BATCH_BYTES,
    PULL_BATCH_RECORDS,
    PULL_EXPIRES_S,
    PULL_IDLE_HEARTBEAT_S,
)

log = logging.getLogger("slipstream.tail")

QUIET_HEARTBEAT_S: Final = 15.0
QUIET_EXPIRES_S: Final = 120.0
"""A pull that expired without a message is repeated at this slower pace: 1,000 idle tails then cost 0.3 % of a core
instead of 1 %. A broken connection is noticed by the connection, so the beat only has to reveal a lost consumer."""
RECREATE_PAUSE_S: Final = 0.1
RECREATE_PAUSE_S_MAX: Final = 2.0
LOST_LOG_GRACE_S: Final = 15.0
"""A new stream leader may need a moment until it has applied all that its predecessor delivered."""
MESSAGE_OVERHEAD_BYTES: Final = 512
"""Subject, reply subject and headers count against a pull's bytes as well."""

STATUS_HEARTBEAT: Final = 100
STATUS_TIMEOUT: Final = 408
STATUS_CONFLICT: Final = 409
STREAM_NOT_FOUND: Final = 10059

Start = int | Literal["new", "last"]
"""Where to begin: at a stream_seq, behind the stream's end, or at the last message of the subject."""

assert 2 * QUIET_HEARTBEAT_S < QUIET_EXPIRES_S
assert MESSAGE_BYTES_MAX + MESSAGE_OVERHEAD_BYTES < 4 * PULL_BATCH_BYTES


class _Delivered(msgspec.Struct):
    stream_seq: int = 0


class _Created(Answer):
    delivered: _Delivered = msgspec.field(default_factory=_Delivered)
    num_pending: int = 0


class _Request:
    """A pull on its way: what it may still deliver, and how often it beats."""

    __slots__ = ("beat_s", "bytes_left", "delivered", "records_left")

    def __init__(self, records: int, size_bytes: int, beat_s: float) -> None:
        self.records_left = records
        self.bytes_left = size_bytes
        self.beat_s = beat_s
        self.delivered = False


class ContinuousPull:
    """All messages of a subject from a start, in order, each once, through every loss of the consumer.

    Iterate it for batches of what has arrived, or give a `sink` that is called for every message at once (then nothing
    is held back, and the sink bounds its own memory). `on_idle(stream_seq)` says that nothing up to there is waiting.
    Raises while iterating: Corrupt when the log ends before what was read.
    """

    def __init__(
        self,
        inbox: Inbox,
        stream: str,
        subject: str,
        start: Start,
        *,
        sink: Callable[[Message], None] | None = None,
        on_idle: Callable[[int], None] | None = None,
        on_failure: Callable[[SlipstreamError], None] | None = None,
        batch_records: int = PULL_BATCH_RECORDS,
        batch_bytes: int = PULL_BATCH_BYTES,
        lost_log_grace_s: float = LOST_LOG_GRACE_S,
    ) -> None:
        self._inbox = inbox
        self._stream = stream
        self._subject = subject
        self._start: Start = start
        self._sink = sink
        self._on_idle = on_idle
        self._on_failure = on_failure
        self._batch_records = batch_records
        self._batch_bytes = batch_bytes
        self._lost_log_grace_s = lost_log_grace_s
        self.position = start - 1 if isinstance(start, int) else 0
        """Every message of the subject up to this stream_seq has been taken in."""
        self.consumers_made = 0
        self._consumer: str | None = None
        self._consumer_seq = 0
        self._requests: dict[int, _Request] = {}
        self._count = 0
        self._quiet = False
        self._heard_s = 0.0
        self._now_s = asyncio.get_running_loop().time
        self._arrived: list[Message] = []
        self._arrived_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._making = False
        self._again = False
        self._closed = False
        self._failure: SlipstreamError | None = None

    @property
    def parked(self) -> int:
        """How many pulls wait at the broker."""
        return len(self._requests)

    def open(self) -> None:
        """Begin; the consumer is made in the background, as often as it takes."""
        self._replace("opened")

    async def close(self) -> None:
        """Stop and delete the consumer. Messages that nobody took are dropped."""
        self._closed = True
        # Whoever they belong to has us: a ring that only the garbage collector would free.
        self._sink = self._on_idle = self._on_failure = None
        await self._abandon()
        self._wake()

    # Reading

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Message]:
        """Everything that has arrived since the last call, at least one message. Cancelling it loses nothing."""
        if self._wants_more():
            await self.refill()
        while not self._arrived:
            if self._failure is not None:
                raise self._failure
            if self._closed:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        batch, self._arrived, self._arrived_bytes = self._arrived, [], 0
        return batch

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the inbox delivers

    def accept(self, consumer_seq: int, message: Message) -> bool:
        """Take the next message of the consumer; true asks for `refill`."""
        if consumer_seq != self._consumer_seq + 1:
            self._replace(f"message {self._consumer_seq + 1} of the consumer is missing")
            return False
        self._consumer_seq = consumer_seq
        self.position = message.stream_seq
        self._heard_s = self._now_s()
        self._quiet = False
        size_bytes = len(message.body) + MESSAGE_OVERHEAD_BYTES
        self._spend(size_bytes)
        if self._sink is not None:
            self._sink(message)
        else:
            self._arrived.append(message)
            self._arrived_bytes += size_bytes
            self._wake()
        return self._wants_more()

    def _spend(self, size_bytes: int) -> None:
        # The broker serves pulls in the order in which they were asked.
        for number, request in self._requests.items():
            request.delivered = True
            request.records_left -= 1
            request.bytes_left -= size_bytes
            if request.records_left <= 0:
                del self._requests[number]
            return

    def accept_status(self, request: int, status: int, headers: dict[str, str]) -> bool:
        """Take a heartbeat or the end of a pull; true asks for `refill`."""
        self._heard_s = self._now_s()
        if status == STATUS_HEARTBEAT:
            self._beat(headers)
            return False
        ended = self._requests.pop(request, None)
        if ended is None:
            return False
        description = headers.get("Description", "")
        if status == STATUS_TIMEOUT:
            self._quiet = not ended.delivered
        elif status == STATUS_CONFLICT and description.startswith("Message Size"):
            # A message larger than a whole pull would otherwise wait for ever.
            if not ended.delivered:
                self._batch_bytes *= 2
        elif status == STATUS_CONFLICT and description.startswith("Batch Completed"):
            return self._wants_more()
        else:
            self._replace(f"{status} {description}".strip())
            return False
        return self._wants_more()

    def _beat(self, headers: dict[str, str]) -> None:
        if int(headers.get("Nats-Last-Consumer", "0")) > self._consumer_seq:
            self._replace("the last message of the consumer is missing")
        elif self._on_idle is not None:
            self._on_idle(int(headers.get("Nats-Last-Stream", "0")))

    def check(self, now_s: float) -> bool:
        """Replace the consumer when two beats are missing; true says that they are."""
        if not self._requests or self._making:
            return False
        beat_s = max(request.beat_s for request in self._requests.values())
        if now_s - self._heard_s <= 2 * beat_s + 1:
            return False
        self._replace("two heartbeats are missing")
        return True

    async def probe(self) -> None:
        """Send one more pull: a consumer that is gone answers it at once with a status."""
        if len(self._requests) == 1 and not self._making:
            self._quiet = False
            await self._pull()

    def reconnected(self) -> None:
        """Replace the consumer: what was sent to the broken connection is gone."""
        self._replace("the connection was lost")

    # Asking for more

    def _wants_more(self) -> bool:
        if self._consumer is None or self._making or len(self._requests) > 1:
            return False
        if self._arrived_bytes > self._batch_bytes // 2:
            return False
        for request in self._requests.values():
            return request.records_left <= self._batch_records // 2 or request.bytes_left <= self._batch_bytes // 2
        return True

    async def refill(self) -> None:
        """Send one more pull if there is room."""
        if self._wants_more():
            await self._pull()

    async def _pull(self) -> None:
        beat_s, expires_s = (
            (QUIET_HEARTBEAT_S, QUIET_EXPIRES_S) if self._quiet else (PULL_IDLE_HEARTBEAT_S, PULL_EXPIRES_S)
        )
        self._count += 1
        self._requests[self._count] = _Request(self._batch_records, self._batch_bytes, beat_s)
        body = (
            f'{{"batch":{self._batch_records},"max_bytes":{self._batch_bytes},'
            f'"expires":{int(expires_s * 1e9)},"idle_heartbeat":{int(beat_s * 1e9)}}}'
        )
        subject = f"CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        await self._inbox.tell(subject, body.encode(), f"{self._consumer}.{self._count}")

    # The consumer's life

    def _replace(self, reason: str) -> None:
        if self._closed:
            return
        if self.consumers_made:
            self._inbox.forget_end(self._stream)
            log.debug("reading %s goes on with a new consumer behind %d: %s", self._subject, self.position, reason)
        if self._consumer is not None:
            # Nothing of the old consumer may be taken in from here on.
            self._inbox.unroute(self._consumer)
        if self._making:
            self._again = True
            return
        self._making = True
        self._inbox.spawn(self._make())

    async def _abandon(self) -> None:
        if self._consumer is not None:
            name, self._consumer = self._consumer, None
            self._inbox.unroute(name)
            await self._inbox.tell(f"CONSUMER.DELETE.{self._stream}.{name}", b"")
        self._requests.clear()

    async def _make(self) -> None:
        try:
            await self._make_until_made()
        finally:
            self._making = False
        if self._closed:
            await self._abandon()
        else:
            await self.refill()

    async def _make_until_made(self) -> None:
        pause_s = RECREATE_PAUSE_S
        short_since_s: float | None = None
        while not self._closed:
            self._again = False
            await self._inbox.connected()
            await self._abandon()
            try:
                async with self._inbox.creations:
                    if await self._log_is_long_enough():
                        await self._create()
                        if not self._again:
                            return
                        continue
                short_since_s = short_since_s or self._now_s()
            except (Unavailable, ApiError) as failure:
                # The pauses grow: only what lasts is worth a line.
                level = logging.WARNING if pause_s == RECREATE_PAUSE_S_MAX else logging.DEBUG
                log.log(level, "no consumer for %s yet: %s", self._subject, failure)
            if short_since_s is not None and self._now_s() - short_since_s > self._lost_log_grace_s:
                self._fail(Corrupt(f"{self._stream} ends before {self.position}, which was read from it"))
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RECREATE_PAUSE_S_MAX)

    async def _log_is_long_enough(self) -> bool:
        return not self.position or await self._inbox.stream_end(self._stream, self.position) >= self.position

    async def _create(self) -> None:
        name = f"pull-{uuid.uuid4().hex}"
        created = await self._inbox.ask(
            f"CONSUMER.CREATE.{self._stream}.{name}.{self._subject}",
            {"stream_name": self._stream, "action": "create", "config": self._config(name)},
            _Created,
        )
        if not self.consumers_made and not isinstance(self._start, int):
            self.position = created.delivered.stream_seq
        self.consumers_made += 1
        self._consumer_seq = 0
        self._requests.clear()
        self._heard_s = self._now_s()
        self._consumer = name
        if not self._again:
            self._inbox.route(name, self)
        if created.num_pending == 0 and self._on_idle is not None:
            self._on_idle(self.position)

    def _config(self, name: str) -> dict[str, Any]:
        config: dict[str, Any] = {
            "name": name,
            "durable_name": name,
            "ack_policy": "none",
            "filter_subject": self._subject,
            "num_replicas": 1,
            "mem_storage": True,
            "inactive_threshold": int(CONSUMER_INACTIVE_S * 1e9),
        }
        if isinstance(self._start, int) or self.consumers_made:
            return {**config, "deliver_policy": "by_start_sequence", "opt_start_seq": self.position + 1}
        return {**config, "deliver_policy": self._start}

    def _fail(self, failure: SlipstreamError) -> None:
        log.error("reading %s ended: %s", self._subject, failure)
        self._failure = failure
        if self._on_failure is not None:
            self._on_failure(failure)
        self._wake()


@asynccontextmanager
async def open_pull(
    connection: Connection, stream: str, subject: str, start: Start, *, batch_records: int = PULL_BATCH_RECORDS
) -> AsyncIterator[ContinuousPull]:
    """A continuous pull with an inbox of its own, for processes that read one subject (projector, cancel watch)."""
    async with Inbox(connection) as inbox:
        pull = ContinuousPull(inbox, stream, subject, start, batch_records=batch_records)
        pull.open()
        try:
            yield pull
        finally:
            await pull.close()
