"""The work queue: runs that may execute now, each a message that its runner holds until the run is over."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

import msgspec
from nats.aio.msg import Msg

from slipstream_nats.connection import Connection
from slipstream_nats.publisher import Publisher
from slipstream_nats.schedules import schedule
from slipstream_schemas import subjects
from slipstream_schemas.errors import Corrupt, Unavailable
from slipstream_schemas.run_state import ThreadState
from slipstream_schemas.subjects import Scope

log = logging.getLogger("slipstream.work")

CONSUMER = "work"
PULL_EXPIRES_S = 5.0
PULL_HEARTBEAT_S = 1.0
PULL_WAIT_S = 2.5 * PULL_HEARTBEAT_S
RETRY_WAIT_S = 0.2

ACK_PREFIX = "$JS.ACK."
IDLE_HEARTBEAT = "100"
REQUEST_ENDED = "408"
UNDELIVERED_HEADER = "Nats-Pending-Messages"


class _Work(msgspec.Struct):
    run_id: str


class WorkItem:
    """One delivery of a run. `ack_subject` is where heartbeats go."""

    def __init__(self, connection: Connection, scope: Scope, thread_id: str, run_id: str, ack_subject: str) -> None:
        self._connection = connection
        self.scope, self.thread_id, self.run_id, self.ack_subject = scope, thread_id, run_id, ack_subject

    async def ack(self) -> None:
        """The run is over: never deliver it again. Raises: Unavailable."""
        await self._connection.request(self.ack_subject, b"+ACK")

    async def nak(self, delay_s: float) -> None:
        """Deliver it again after `delay_s`. Raises: Unavailable."""
        await self._connection.publish(self.ack_subject, b'-NAK {"delay": %d}' % int(delay_s * 1e9))

    async def heartbeat(self) -> None:
        """It is still held. Raises: Unavailable."""
        await heartbeat(self._connection, self.ack_subject)


async def heartbeat(connection: Connection, ack_subject: str) -> None:
    """Say that a delivery is still held, over any connection. Raises: Unavailable."""
    await connection.publish(ack_subject, b"+WPI")


class WorkQueue:
    """The work queue of a region, as its producers see it."""

    def __init__(self, publisher: Publisher, region: str) -> None:
        self._publisher, self._region = publisher, region

    async def put(self, scope: Scope, thread_id: str, run_id: str, *, again: str = "") -> None:
        """Queue a run; a repeat within the dedupe window changes nothing, unless `again` tells it apart.

        Raises: Unavailable.
        """
        headers = {"Nats-Msg-Id": f"work:{subjects.thread_key(scope, thread_id)}:{run_id}{again}"}
        await self._publisher.publish(subjects.work(scope, thread_id), msgspec.json.encode(_Work(run_id)), headers)

    async def put_next(self, scope: Scope, thread_id: str, state: ThreadState) -> None:
        """Queue the thread's next run, if none executes: now, or when its time comes. Raises: Unavailable."""
        if state.running is not None or not state.pending:
            return
        first = state.pending[0]
        if first.due_ms <= time.time_ns() // 1_000_000:
            await self.put(scope, thread_id, first.run_id)
            return
        headers = schedule(first.due_ms, subjects.work(scope, thread_id))
        body = msgspec.json.encode(_Work(first.run_id))
        await self._publisher.publish(subjects.work_schedule(scope, first.run_id), body, headers)


class WorkPuller:
    """Takes runs from the queue of a region, never more than were asked for.

    A request stays open for `PULL_EXPIRES_S` and beats every `PULL_HEARTBEAT_S`; when nothing beats any more, when
    requests were refused, or when the connection broke, the next `pull` asks again. What an old request still delivers
    is given back at once when there is no room for it.

    A delivered message says nothing about the request that it answers, so what is open is counted as a whole.
    """

    def __init__(self, connection: Connection, region: str) -> None:
        self._connection = connection
        self._next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.control_stream(region)}.{CONSUMER}"
        self._inbox = connection.new_inbox()
        self._open = 0
        """How many runs the open requests may still deliver."""
        self._batches: dict[str, int] = {}
        self._heard = 0.0
        self._refused_until = 0.0
        self._items: list[WorkItem] = []
        self._wake = asyncio.Event()
        self._count = 0
        self._closed = False
        self._stop_listening: list[Callable[[], None]] = []

    async def open(self) -> None:
        """Begin to listen. Raises: Unavailable."""
        self._subscription = await self._connection.subscribe(f"{self._inbox}.*", cb=self._on_message)
        self._stop_listening.append(self._connection.on_reconnect(self._forget))

    async def close(self) -> None:
        """Take no more runs: requests end, and what was delivered and not taken goes back at once."""
        self._closed = True
        self._wake.set()
        while self._stop_listening:
            self._stop_listening.pop()()
        await self.give_back()
        # Deliveries on their way are given back as they arrive; without interest the broker drops the open requests.
        await self._connection.unsubscribe(self._subscription)

    def _forget(self) -> None:
        self._open = 0
        self._batches.clear()
        self._wake.set()

    async def _on_message(self, message: Msg) -> None:
        self._heard = time.monotonic()
        if message.reply.startswith(ACK_PREFIX):
            self._open = max(0, self._open - 1)
            await self._on_work(message)
        else:
            token = message.subject[len(self._inbox) + 1 :]
            self._on_status(token, message.headers or {})
        if not self._open:
            self._batches.clear()

    async def _on_work(self, message: Msg) -> None:
        try:
            where = subjects.parse(message.subject)
            run_id = msgspec.json.decode(message.data, type=_Work).run_id
        except (Corrupt, msgspec.MsgspecError) as error:
            # Nobody can ever execute it; left alone it would come back for ever.
            log.error("dropped an unreadable work item on %s: %s", message.subject, error)
            self._wake.set()
            await self._connection.publish(message.reply, b"+TERM")
            return
        item = WorkItem(self._connection, where.scope, where.thread_id, run_id, message.reply)
        if self._closed:
            await item.nak(0)
            return
        self._items.append(item)
        self._wake.set()

    def _on_status(self, token: str, headers: dict[str, str]) -> None:
        status = headers.get("Status", "")
        if status == IDLE_HEARTBEAT:
            return
        batch = self._batches.pop(token, 0)
        undelivered = headers.get(UNDELIVERED_HEADER, "")
        self._open = max(0, self._open - (int(undelivered) if undelivered.isdigit() else batch))
        if status != REQUEST_ENDED:
            self._refused_until = time.monotonic() + RETRY_WAIT_S
            log.warning("the work queue refuses requests: %s %s", status, headers.get("Description", ""))
        self._wake.set()

    async def pull(self, free: int) -> list[WorkItem]:
        """Wait for runs, at most about `PULL_WAIT_S`; returns between none and `free` of them.

        An outage shows as an empty list after the wait.
        """
        now = time.monotonic()
        if self._open and now - self._heard > PULL_WAIT_S:
            self._forget()
        missing = free - len(self._items) - self._open
        if missing > 0 and now >= self._refused_until and self._connection.is_connected:
            await self._ask(missing)
        if not self._items:
            self._wake.clear()
            wait_s = PULL_WAIT_S if self._open else RETRY_WAIT_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
        taken, self._items = self._items[:free], self._items[free:]
        await self.give_back()
        return taken

    async def _ask(self, batch: int) -> None:
        self._count += 1
        token = str(self._count)
        query = {
            "batch": batch,
            "expires": int(PULL_EXPIRES_S * 1e9),
            "idle_heartbeat": int(PULL_HEARTBEAT_S * 1e9),
        }
        self._heard = time.monotonic()
        self._open += batch
        self._batches[token] = batch
        with contextlib.suppress(Unavailable):  # Then nothing beats, and it is forgotten.
            await self._connection.publish(
                self._next_subject, msgspec.json.encode(query), reply=f"{self._inbox}.{token}"
            )

    async def give_back(self) -> None:
        """Return what was delivered and not taken, at once. Without a connection, it returns by itself."""
        items, self._items = self._items, []
        for item in items:
            with contextlib.suppress(Unavailable):
                await item.nak(0)
