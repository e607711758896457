"""Retrying what lies in the quarantine: the threads that it belongs to are folded again from their first records.

One record alone cannot be applied late, since the rows have gone on without it. A thread's control log is short, and
the row of the position is locked meanwhile, so a projector that runs waits and nothing is folded twice.
"""

from collections.abc import Sequence

from slipstream_nats.connection import Connection
from slipstream_nats.inbox import Message
from slipstream_nats.pull import open_pull
from slipstream_nats.stored import last_of_subject
from slipstream_nats.threadlog import ThreadLog
from slipstream_postgres import quarantine
from slipstream_postgres.pool import Database
from slipstream_postgres.refusals import refusals
from slipstream_projector.apply import Applier
from slipstream_schemas import subjects
from slipstream_schemas.errors import NotFound

LOCK = "SELECT stream_seq FROM positions WHERE name='control' FOR UPDATE"
KEPT = "SELECT values FROM threads WHERE tenant=$1 AND thread_id=$2"
RESTORE = "UPDATE threads SET values=$3 WHERE tenant=$1 AND thread_id=$2 AND values IS NULL"


async def retry(connection: Connection, database: Database, region: str, stream_seqs: Sequence[int]) -> list[int]:
    """Fold the threads of these records again; returns those of their records that still cannot be applied.

    A projector may run. Raises: NotFound for a record that is not in the quarantine, Unavailable, Corrupt.
    """
    found: set[str] = set()
    for seq in stream_seqs:
        entry = await quarantine.get(database, seq)
        if entry is None:
            raise NotFound(f"record {seq} is not in the quarantine")
        found.add(entry.subject)
    # Publishing is not needed to read, so the log gets no publisher.
    applier = Applier(database, ThreadLog(connection, None, region))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    left: list[int] = []
    for subject in sorted(found):
        left += await _fold_again(connection, database, applier, subject, subjects.control_stream(region))
    return left


async def _fold_again(
    connection: Connection, database: Database, applier: Applier, subject: str, stream: str
) -> list[int]:
    where, left = subjects.parse(subject), list[int]()
    thread = (where.scope.tenant, where.thread_id)
    async with database.connection() as rows:
        with refusals():
            async with rows.transaction():
                position = int(await rows.fetchval(LOCK) or 0)
                kept = await rows.fetchval(KEPT, *thread)
                await rows.execute("DELETE FROM quarantine WHERE subject=$1", subject)
                await rows.execute("DELETE FROM runs WHERE tenant=$1 AND thread_id=$2", *thread)
                await rows.execute("DELETE FROM threads WHERE tenant=$1 AND thread_id=$2", *thread)
                for message in await _records(connection, stream, subject, position):
                    if not await applier.apply_one(rows, await applier.plan(message)):
                        left.append(message.stream_seq)
                if kept is not None:
                    await rows.execute(RESTORE, *thread, kept)
    return left


async def _records(connection: Connection, stream: str, subject: str, position: int) -> list[Message]:
    """The thread's records up to the position. Raises: Unavailable."""
    out: list[Message] = []
    head = await last_of_subject(connection, stream, subject)
    if head is None:
        return out
    async with open_pull(connection, stream, subject, 1) as pull:
        async for batch in pull:
            out += [message for message in batch if message.stream_seq <= position]
            if batch[-1].stream_seq >= min(position, head.stream_seq):
                break
    return out
