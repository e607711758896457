"""The work queue: runs that may execute now, each a message that its runner holds until the run is over."""

import asyncio
import contextlib
import time

import msgspec
from nats.aio.msg import Msg

from slipstream_nats.connection import Connection
from slipstream_nats.publisher import Publisher
from slipstream_schemas import subjects
from slipstream_schemas.errors import Unavailable
from slipstream_schemas.subjects import Scope

CONSUMER = "work"
PULL_EXPIRES_S = 5.0
PULL_HEARTBEAT_S = 1.0
RETRY_WAIT_S = 0.5


class _Work(msgspec.Struct):
    run_id: str


class WorkItem:
    """One delivery of a run. `ack_subject` is where heartbeats go."""

    def __init__(self, connection: Connection, message: Msg) -> None:
        self._connection = connection
        where = subjects.parse(message.subject)
        self.scope, self.thread_id = where.scope, where.thread_id
        self.run_id = msgspec.json.decode(message.data, type=_Work).run_id
        self.ack_subject = message.reply

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
        headers = {"Nats-Msg-Id": f"work:{run_id}{again}"}
        await self._publisher.publish(subjects.work(scope, thread_id), msgspec.json.encode(_Work(run_id)), headers)


class _Request(msgspec.Struct):
    remaining: int
    heard: float


class WorkPuller:
    """Takes runs from the queue of a region, never more than were asked for.

    A request stays open for `PULL_EXPIRES_S` and beats every `PULL_HEARTBEAT_S`; one that has missed two beats, was
    refused, or was open when the connection broke is forgotten, and the next `pull` asks again.
    """

    def __init__(self, connection: Connection, region: str) -> None:
        self._connection = connection
        self._next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.control_stream(region)}.{CONSUMER}"
        self._inbox = connection.new_inbox()
        self._requests: dict[str, _Request] = {}
        self._items: list[WorkItem] = []
        self._wake = asyncio.Event()
        self._count = 0

    async def open(self) -> None:
        """Begin to listen. Raises: Unavailable."""
        await self._connection.subscribe(f"{self._inbox}.*", cb=self._on_message)
        self._connection.on_reconnect(self._forget)

    def _forget(self) -> None:
        self._requests.clear()
        self._wake.set()

    async def _on_message(self, message: Msg) -> None:
        token = message.subject[len(self._inbox) + 1 :]
        request = self._requests.get(token)
        status = (message.headers or {}).get("Status") if not message.data else None
        if request is not None:
            request.heard = time.monotonic()
        if status is None:
            self._items.append(WorkItem(self._connection, message))
            if request is not None:
                request.remaining -= 1
                if request.remaining <= 0:
                    del self._requests[token]
        elif status != "100":
            self._requests.pop(token, None)
            if status in ("503", "409"):
                await asyncio.sleep(RETRY_WAIT_S)
        else:
            return
        self._wake.set()

    async def pull(self, free: int) -> list[WorkItem]:
        """Wait for runs, at most about `PULL_EXPIRES_S`; returns between none and `free` of them.

        An outage shows as an empty list after the wait.
        """
        now = time.monotonic()
        stale = [t for t, r in self._requests.items() if now - r.heard > 2.5 * PULL_HEARTBEAT_S]
        for token in stale:
            del self._requests[token]
        missing = free - len(self._items) - sum(r.remaining for r in self._requests.values())
        if missing > 0:
            await self._ask(missing)
        if not self._items:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.5 * PULL_HEARTBEAT_S):
                    await self._wake.wait()
        taken, self._items = self._items[:free], self._items[free:]
        return taken

    async def _ask(self, batch: int) -> None:
        self._count += 1
        token = str(self._count)
        query = {
            "batch": batch,
            "expires": int(PULL_EXPIRES_S * 1e9),
            "idle_heartbeat": int(PULL_HEARTBEAT_S * 1e9),
        }
        self._requests[token] = _Request(batch, time.monotonic())
        try:
            await self._connection.publish(
                self._next_subject, msgspec.json.encode(query), reply=f"{self._inbox}.{token}"
            )
        except Unavailable:
            self._requests.pop(token, None)

    async def give_back(self) -> None:
        """Return what was delivered and not taken, at once. Raises: Unavailable."""
        items, self._items = self._items, []
        for item in items:
            await item.nak(0)
