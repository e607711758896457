"""Ticks of crons as the broker's message schedules.

Each cron has one schedule, of its next tick alone (`@at`), so that the time is calculated in one place and the firing
says which tick it is. A new schedule replaces the old one. When it fires, the broker stores the message under the
cron's `due` subject, in place of an older one, and forgets the schedule. What is handled is purged, so the `due`
subjects hold what nobody has handled yet: a reader begins at the first record and needs no state of its own.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec

from slipstream_nats.connection import Connection
from slipstream_nats.inbox import Message
from slipstream_nats.publisher import Publisher
from slipstream_nats.pull import ContinuousPull, open_pull
from slipstream_nats.stored import purge, purge_all
from slipstream_schemas import subjects
from slipstream_schemas.errors import Corrupt
from slipstream_schemas.subjects import Scope

DUE_TOKENS = 5


class _Tick(msgspec.Struct):
    due_ms: int


class Firing(msgspec.Struct, frozen=True):
    """A tick whose time has come."""

    scope: Scope
    cron_id: str
    due_ms: int
    stream_seq: int


class Schedules:
    """The schedules of a region."""

    def __init__(self, connection: Connection, publisher: Publisher, region: str) -> None:
        self._connection, self._publisher, self._region = connection, publisher, region
        self._stream = subjects.control_stream(region)

    async def put(self, scope: Scope, cron_id: str, due_ms: int) -> None:
        """Let a cron's next tick fire then, at once if that is over. Raises: Unavailable."""
        headers = {**schedule(due_ms, subjects.cron_due(scope, cron_id)), "Nats-Schedule-Rollup": "sub"}
        body = msgspec.json.encode(_Tick(due_ms))
        await self._publisher.publish(subjects.cron_schedule(scope, cron_id), body, headers)

    async def cancel(self, scope: Scope, cron_id: str) -> None:
        """Let nothing fire any more. Raises: Unavailable."""
        await purge_all(self._connection, self._stream, subjects.cron_schedule(scope, cron_id))

    async def done(self, firing: Firing) -> None:
        """Forget a firing that is handled. Raises: Unavailable."""
        subject = subjects.cron_due(firing.scope, firing.cron_id)
        await purge(self._connection, self._stream, subject, firing.stream_seq)

    @asynccontextmanager
    async def firings(self) -> AsyncIterator[ContinuousPull]:
        """Every firing that is not handled, then those to come. See `parse`."""
        subject = f"crons.{self._region}.*.*.due"
        async with open_pull(self._connection, self._stream, subject, 1) as pull:
            yield pull


def schedule(due_ms: int, target: str) -> dict[str, str]:
    """The headers of a message that the broker puts on `target` then, or up to a second earlier: it knows no parts."""
    at = datetime.fromtimestamp(due_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"Nats-Schedule": f"@at {at}", "Nats-Schedule-Target": target}


def parse(message: Message) -> Firing:
    """A firing from its message. Raises: Corrupt."""
    tokens = message.subject.split(".")
    try:
        tick = msgspec.json.decode(message.body, type=_Tick)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"unreadable firing on {message.subject}") from error
    if len(tokens) != DUE_TOKENS:
        raise Corrupt(f"not the subject of a firing: {message.subject}")
    return Firing(Scope(tokens[1], tokens[2]), tokens[3], tick.due_ms, message.stream_seq)
