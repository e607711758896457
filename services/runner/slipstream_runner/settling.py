"""Paying what an ended run may still owe, its terminal record in the thread log and its successor's work item; and
handing back a run that is not over.
"""

from collections.abc import Sequence

from slipstream_nats import leases
from slipstream_nats import owed as debts
from slipstream_nats.controllog import DECIDE_DEADLINE_S, ControlLog
from slipstream_nats.publisher import WrongSequence
from slipstream_nats.threadlog import ThreadLogWriter
from slipstream_runner.runtime import Attempt, Runtime, now_ms
from slipstream_schemas import run_state as rs
from slipstream_schemas.errors import Fenced
from slipstream_schemas.record import NOTHING_OPEN, OpenState
from slipstream_schemas.subjects import Scope


async def pay_owed(
    runtime: Runtime, writer: ThreadLogWriter, scope: Scope, thread_id: str, owed: Sequence[rs.OwedTerminal], *,
    settle: bool, opened: OpenState = NOTHING_OPEN,
) -> None:  # fmt: skip
    """Publish what is owed and not there, in order. Needs the lease. Raises: Fenced, Unavailable."""
    await debts.pay(runtime.threads, writer, scope, thread_id, owed, opened)
    if settle and owed:
        await debts.settle(runtime.control, scope, thread_id, owed, now_ms())


async def settle(runtime: Runtime, scope: Scope, thread_id: str) -> bool:
    """Publish what the thread owes, unless somebody executes a run of it, or is about to: that one pays in passing.

    False when somebody has taken the lease meanwhile. Raises: Unavailable.
    """
    lease = await leases.last(runtime.connection, scope, thread_id)
    if not await _owed_by_idle(runtime, scope, thread_id):
        return True
    try:
        fence = await leases.take(runtime.publisher, scope, thread_id, runtime.holder, "", expected=lease)
        # Under the lease once more: the thread may have been deleted, and its id another's.
        owed = await _owed_by_idle(runtime, scope, thread_id)
        await pay_owed(runtime, runtime.threads.writer(scope, thread_id, fence), scope, thread_id, owed, settle=True)
    except (WrongSequence, Fenced):
        return False
    return True


async def _owed_by_idle(runtime: Runtime, scope: Scope, thread_id: str) -> Sequence[rs.OwedTerminal]:
    """What a thread owes on which nobody executes a run, or is about to. Raises: Unavailable."""
    state = (await runtime.control.head(scope, thread_id)).state
    return () if state is None or state.running or rs.next_run(state, now_ms()) else state.owed


async def put_next(runtime: Runtime, scope: Scope, thread_id: str, state: rs.ThreadState) -> None:
    """Queue the thread's next run, if there is one; a repeat changes nothing. Raises: Unavailable."""
    await runtime.work.put_next(scope, thread_id, state)


async def hand_back(control: ControlLog, attempt: Attempt, *, outage_s: float = DECIDE_DEADLINE_S) -> None:
    """Let another attempt go on with the run. Raises: Unavailable, Conflict when it is no longer this one's."""
    run = attempt.run
    released, command_id = rs.RunReleased(run.run_id, attempt.number), f"{run.run_id}:{attempt.number}:released"
    await control.decide(
        attempt.scope, attempt.thread_id, lambda state: rs.release_run(state, command_id, now_ms(), released),
        outage_s=outage_s,
    )  # fmt: skip
