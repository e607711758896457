"""Applying records: their rows and the new position in one transaction, so that each counts exactly once.

A record that cannot be applied, because it cannot be read or Postgres will never take its rows, goes to the quarantine
in the transaction that moves the position: it holds up nobody else. What its folded state says is applied all the same,
and so is that of each later record of its thread. An outage of Postgres is no such thing: it is waited for.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from slipstream_nats.inbox import Message
from slipstream_nats.threadlog import ThreadLog
from slipstream_postgres import quarantine
from slipstream_postgres.pool import Database
from slipstream_postgres.refusals import RowRefused, refusals
from slipstream_projector.bare import bare
from slipstream_projector.reducers import Statement, reduce, values_seq
from slipstream_schemas import subjects
from slipstream_schemas.codec import dumps
from slipstream_schemas.errors import Corrupt, Unavailable
from slipstream_schemas.lines import decode_line
from slipstream_schemas.record import Record
from slipstream_schemas.run_state import decode_transition
from slipstream_schemas.seq import unpack
from slipstream_schemas.state_forms import INTERRUPT, to_v1

log = logging.getLogger("slipstream.projector")

POSITION = "control"
ADVANCE = """INSERT INTO positions AS p (name, stream_seq) VALUES ('control', $1)
 ON CONFLICT (name) DO UPDATE SET stream_seq=excluded.stream_seq WHERE p.stream_seq < $2 RETURNING 1"""
"""Only from behind the batch: a projector that was frozen or cut off while another took its place applies nothing."""
ALERT = "record %d of %s cannot be applied and is in the quarantine: %s; see `slipstream quarantine show %d`"


class Plan(msgspec.Struct):
    """What a record asks for. `error` says why it cannot be applied whole; `bare` is what its folded state says."""

    message: Message
    statements: list[Statement] = []
    bare: list[Statement] = []
    error: str = ""


class Applier:
    """Turns control records into rows."""

    def __init__(self, database: Database, thread_log: ThreadLog) -> None:
        self._database, self._thread_log = database, thread_log
        self._poisoned: set[str] | None = None
        self.quarantined = 0
        """Records that this process put into the quarantine."""

    async def apply(self, batch: Sequence[Message]) -> int:
        """Apply records in order; returns the new position.

        Raises: Unavailable, and then a prefix was applied: Postgres is away, or another projector has been here.
        """
        poisoned = await self._known_poisoned()
        plans = [await self.plan(message) for message in batch]
        position = batch[-1].stream_seq
        if not any(plan.error for plan in plans):
            statements = [each for plan in plans for each in plan.statements]
            statements += [each for plan in plans if plan.message.subject in poisoned for each in plan.bare]
            try:
                async with self._advancing(position, batch[0]) as connection:
                    await _execute(connection, statements)
                return position
            except RowRefused as error:
                log.warning("a batch of %d records was refused, applying one by one: %s", len(batch), error.message)
        for plan in plans:
            async with self._advancing(plan.message.stream_seq, plan.message) as connection:
                await self.apply_one(connection, plan)
        return position

    @contextlib.asynccontextmanager
    async def _advancing(self, position: int, first: Message) -> AsyncIterator[Any]:
        """A transaction in which the position moves over records from `first` on. Raises: Unavailable."""
        async with self._database.connection() as connection:
            with refusals():
                async with connection.transaction():
                    # First, so that whoever retries a thread and we take the locks in one order.
                    if await connection.fetchval(ADVANCE, position, first.stream_seq) is None:
                        raise Unavailable(f"record {first.stream_seq} was applied by somebody else")
                    yield connection

    async def _known_poisoned(self) -> set[str]:
        if self._poisoned is None:
            self._poisoned = await quarantine.subjects(self._database)
        return self._poisoned

    async def plan(self, message: Message) -> Plan:
        """What to do for a record. Raises: Unavailable."""
        out = Plan(message)
        try:
            where = subjects.parse(message.subject)
            transition = decode_transition(message.body)
            out.bare = bare(transition, where.scope, where.thread_id, message.stream_seq)
            seq = values_seq(transition)
        except Exception as error:  # noqa: BLE001  a record may be wrong in any way, and must not stop the others
            out.error = f"{type(error).__name__}: {error}"
            return out
        try:
            record = await self._thread_log.get(where.scope, where.thread_id, unpack(seq)[0]) if seq else None
        except Corrupt as error:
            out.error = f"its values: {error.message}"
            return out
        try:
            values = None if record is None else _values(record, unpack(seq)[1])
            out.statements = reduce(transition, where.scope, where.thread_id, message.stream_seq, values)
        except Exception as error:  # noqa: BLE001  as above
            out.error = f"{type(error).__name__}: {error}"
        return out

    async def apply_one(self, connection: Any, plan: Plan) -> bool:
        """Apply one record in the caller's transaction, or put it into the quarantine and return False.

        Raises: Unavailable.
        """
        message, error = plan.message, plan.error
        poisoned = await self._known_poisoned()
        if not error:
            healing = plan.bare if message.subject in poisoned else []
            try:
                await _execute(connection, [*plan.statements, *healing])
                return True
            except RowRefused as refused:
                error = refused.message
        log.error(ALERT, message.stream_seq, message.subject, error, message.stream_seq)
        try:
            await _execute(connection, plan.bare)
        except RowRefused as refused:
            log.error("nor can its folded state: %s", refused.message)
        moment = datetime.fromtimestamp(message.timestamp_ms / 1000, UTC)
        # What a record says may be what Postgres does not take.
        said = error.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
        await connection.execute(quarantine.PUT, message.stream_seq, message.subject, said, message.body, moment)
        poisoned.add(message.subject)
        self.quarantined += 1
        return False


def _values(record: Record, line: int) -> bytes | None:
    """The final state of an ended run in its v1 form; None when it had none or it has aged out."""
    if line >= len(record.lines):
        return None
    view = decode_line(record.lines[line])
    values = to_v1(view.data, (view.x or {}).get("p"))
    if isinstance(values, dict):
        # What waits for an answer has a column of its own; a stream shows it among the values.
        values.pop(INTERRUPT, None)
    return dumps(values)


async def _execute(connection: Any, statements: Sequence[Statement]) -> None:
    """All or nothing, within a transaction or as one. Raises: RowRefused, Unavailable."""
    with refusals():
        async with connection.transaction():
            for sql, arguments in statements:
                await connection.execute(sql, *arguments)
