"""Applying records: their rows and the new position in one transaction, so that each counts exactly once."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from slipstream_nats.inbox import Message
from slipstream_nats.threadlog import ThreadLog
from slipstream_postgres.pool import OUTAGES, Database
from slipstream_projector.reducers import Statement, reduce, values_seq
from slipstream_schemas import subjects
from slipstream_schemas.codec import dumps
from slipstream_schemas.errors import Corrupt, Unavailable
from slipstream_schemas.lines import decode_line
from slipstream_schemas.run_state import Transition, decode_transition
from slipstream_schemas.seq import unpack
from slipstream_schemas.state_forms import INTERRUPT, to_v1

log = logging.getLogger("slipstream.projector")

POSITION = "control"
ADVANCE = """INSERT INTO positions AS p (name, stream_seq) VALUES ('control', $1)
 ON CONFLICT (name) DO UPDATE SET stream_seq=excluded.stream_seq WHERE p.stream_seq < $2 RETURNING 1"""
"""Only from behind the batch: a projector that was frozen or cut off while another took its place applies nothing."""
QUARANTINE = """INSERT INTO quarantine (stream_seq, subject, error, body, at) VALUES ($1,$2,$3,$4,$5)
 ON CONFLICT (stream_seq) DO NOTHING"""


class Applier:
    """Turns control records into rows."""

    def __init__(self, database: Database, thread_log: ThreadLog) -> None:
        self._database, self._thread_log = database, thread_log

    async def apply(self, batch: Sequence[Message]) -> int:
        """Apply records in order; returns the new position.

        Raises: Unavailable, and then nothing was applied: Postgres is away, or another projector has been here.
        """
        statements: list[Statement] = []
        for message in batch:
            statements.extend(await self._statements(message))
        position = batch[-1].stream_seq
        async with self._database.connection() as connection:
            try:
                async with connection.transaction():
                    for sql, arguments in statements:
                        await connection.execute(sql, *arguments)
                    if await connection.fetchval(ADVANCE, position, batch[0].stream_seq) is None:
                        raise Unavailable(f"record {batch[0].stream_seq} was applied by somebody else")
                return position
            except (Unavailable, *OUTAGES):
                # It says nothing of the records: a frozen Postgres must not send them to the quarantine.
                raise
            except Exception:
                # A record that Postgres refuses must not hold up the others: find it by applying one at a time.
                if len(batch) > 1:
                    log.exception("a batch of %d records was refused, applying them one by one", len(batch))
                    failed = True
                else:
                    failed = False
                    await self._quarantine(connection, batch[0])
        if failed:
            for message in batch:
                await self.apply([message])
        return position

    async def _quarantine(self, connection: object, message: Message) -> None:
        log.exception("record %d of %s cannot be applied; it is in the table quarantine", message.stream_seq,
                      message.subject)  # fmt: skip
        moment = datetime.fromtimestamp(message.timestamp_ms / 1000, UTC)
        execute = getattr(connection, "execute")  # noqa: B009
        await execute(QUARANTINE, message.stream_seq, message.subject, "refused", message.body, moment)
        await execute(ADVANCE, message.stream_seq, message.stream_seq)

    async def _statements(self, message: Message) -> list[Statement]:
        try:
            transition = decode_transition(message.body)
            where = subjects.parse(message.subject)
            values = await self._values(transition, where.scope, where.thread_id)
            return reduce(transition, where.scope, where.thread_id, message.stream_seq, values)
        except (msgspec.MsgspecError, Corrupt) as error:
            log.error("record %d of %s is unreadable and goes to the table quarantine: %s", message.stream_seq,
                      message.subject, error)  # fmt: skip
            moment = datetime.fromtimestamp(message.timestamp_ms / 1000, UTC)
            return [(QUARANTINE, (message.stream_seq, message.subject, str(error), message.body, moment))]

    async def _values(self, transition: Transition, scope: subjects.Scope, thread_id: str) -> bytes | None:
        """The final state of an ended run in its v1 form; None when it had none or it has aged out."""
        seq = values_seq(transition)
        if not seq:
            return None
        stream_seq, line = unpack(seq)
        record = await self._thread_log.get(scope, thread_id, stream_seq)
        if record is None or line >= len(record.lines):
            return None
        view = decode_line(record.lines[line])
        values = to_v1(view.data, (view.x or {}).get("p"))
        if isinstance(values, dict):
            # What waits for an answer has a column of its own; a stream shows it among the values.
            values.pop(INTERRUPT, None)
        return dumps(values)
