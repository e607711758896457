"""Paying what an ended run may still owe: its terminal record in the thread log."""

from collections.abc import Sequence

from slipstream_nats.controllog import ControlLog
from slipstream_nats.threadlog import ThreadLog, ThreadLogWriter
from slipstream_schemas import run_state as rs
from slipstream_schemas.ids import new_run_id
from slipstream_schemas.record import (
    AHEAD,
    NOTHING_OPEN,
    OpenState,
    RecordHeader,
    ahead_message_id,
    terminal_message_id,
)
from slipstream_schemas.subjects import Scope


async def is_published(threads: ThreadLog, scope: Scope, thread_id: str, owed: rs.OwedTerminal) -> bool:
    """Whether the terminal record lies in the thread log; nothing up to `after_stream_seq` needs to be read."""
    mark = f'"synth:{owed.run_id}:lc||'.encode()
    seq = owed.after_stream_seq + 1
    while True:
        record = await threads.next(scope, thread_id, seq)
        if record is None:
            return False
        last = record.body.rsplit(b"\n", 1)[-1]
        if (
            record.header.run_id == owed.run_id
            and not record.header.is_ahead
            and mark in last
            and b'lc||running"' not in last
        ):
            return True
        seq = record.stream_seq + 1


async def publish_owed(
    writer: ThreadLogWriter, owed: rs.OwedTerminal, traceparent: str = "", opened: OpenState = NOTHING_OPEN
) -> None:
    """Append one owed terminal record, in the trace of its run if that is known.

    `opened` is what a dead attempt has left open, which its successor looks for in the last record. Raises: Fenced,
    Unavailable.
    """
    header = RecordHeader(owed.run_id, 0, 0, opened)
    await writer.append(header, owed.body.encode(), msg_id=terminal_message_id(owed.run_id), traceparent=traceparent)


async def publish_ahead(writer: ThreadLogWriter, owed: rs.OwedTerminal, opened: OpenState) -> None:
    """Tell who waits for a run that it has ended, amid the output of the one that executes; it stays owed.

    `opened` is what the run that executes has open: if its attempt dies now, this is the last record that tells it.
    Raises: Fenced, Unavailable.
    """
    header = RecordHeader(owed.run_id, 0, AHEAD, opened)
    await writer.append(header, owed.body.encode(), msg_id=ahead_message_id(owed.run_id))


async def pay(
    threads: ThreadLog, writer: ThreadLogWriter, scope: Scope, thread_id: str, owed: Sequence[rs.OwedTerminal],
    opened: OpenState = NOTHING_OPEN,
) -> None:  # fmt: skip
    """Publish what is owed and not there, in order. `writer` holds the lease. Raises: Fenced, Unavailable."""
    for each in owed:
        if not await is_published(threads, scope, thread_id, each):
            await publish_owed(writer, each, opened=opened)


async def settle(
    control: ControlLog, scope: Scope, thread_id: str, owed: Sequence[rs.OwedTerminal], at_ms: int
) -> None:
    """Record that these terminal records are in the thread log. Raises: Unavailable, Conflict."""
    paid, command_id = frozenset(each.run_id for each in owed), new_run_id()
    await control.decide(scope, thread_id, lambda state: rs.settle(state, command_id, at_ms, paid))
