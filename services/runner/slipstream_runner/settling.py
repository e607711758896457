"""Paying what an ended run may still owe: its terminal record in the thread log, and its successor's work item."""

from collections.abc import Sequence

from slipstream_nats.threadlog import ThreadLogWriter
from slipstream_runner.runtime import Runtime, now_ms
from slipstream_schemas import run_state as rs
from slipstream_schemas.ids import new_run_id
from slipstream_schemas.record import RecordHeader, terminal_message_id
from slipstream_schemas.subjects import Scope


async def is_published(runtime: Runtime, scope: Scope, thread_id: str, owed: rs.OwedTerminal) -> bool:
    """Whether the terminal record lies in the thread log; nothing before `after_stream_seq` needs to be read."""
    mark = f'"synth:{owed.run_id}:lc||'.encode()
    seq = owed.after_stream_seq + 1
    while True:
        record = await runtime.threads.next(scope, thread_id, seq)
        if record is None:
            return False
        last = record.body.rsplit(b"\n", 1)[-1]
        if record.header.run_id == owed.run_id and mark in last and b'lc||running"' not in last:
            return True
        seq = record.stream_seq + 1


async def publish_owed(writer: ThreadLogWriter, owed: rs.OwedTerminal) -> None:
    """Append one owed terminal record. Raises: Fenced, Unavailable."""
    header = RecordHeader(owed.run_id, 0, 0)
    await writer.append(header, owed.body.encode(), msg_id=terminal_message_id(owed.run_id))


async def pay_owed(
    runtime: Runtime, writer: ThreadLogWriter, scope: Scope, thread_id: str, owed: Sequence[rs.OwedTerminal], *,
    settle: bool,
) -> None:  # fmt: skip
    """Publish what is owed and not there, in order. Needs the lease. Raises: Fenced, Unavailable."""
    for each in owed:
        if not await is_published(runtime, scope, thread_id, each):
            await publish_owed(writer, each)
    if settle and owed:
        paid = frozenset(each.run_id for each in owed)
        command_id = new_run_id()
        await runtime.control.decide(scope, thread_id, lambda state: rs.settle(state, command_id, now_ms(), paid))


async def put_next(runtime: Runtime, scope: Scope, thread_id: str, state: rs.ThreadState) -> None:
    """Queue the run that may execute now, if there is one; a repeat changes nothing. Raises: Unavailable."""
    if state.running is None and state.pending:
        await runtime.work.put(scope, thread_id, state.pending[0].run_id)
