"""Ending a run: `run_ended` on the control log, the terminal record, the next run's work item, the acknowledgement.

The order makes each step repeatable by whoever comes next: the transition carries the terminal record's bytes, so that
they are the same whoever publishes them, and a client that answers an interrupt the moment it sees it finds it open.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from slipstream_nats.publisher import WrongSequence
from slipstream_runner.checkpoints import delete_of_run
from slipstream_runner.runtime import Attempt, Runtime, now_ms
from slipstream_runner.settling import publish_owed, put_next
from slipstream_schemas import run_state as rs
from slipstream_schemas.errors import Fenced, Unavailable
from slipstream_schemas.limits import PUBLISH_OUTAGE_S
from slipstream_schemas.terminal import Interrupt, RootStatus, terminal_body

log = logging.getLogger("slipstream.runner")

RETRY_WAIT_S = 0.1


class Outcome(msgspec.Struct, frozen=True):
    """How a run ended. A cancel that was accepted in the meantime overrides it, unless it is `final`."""

    status: rs.EndStatus
    thread_status: rs.ThreadStatus
    error: dict[str, str] | None = None
    interrupts: tuple[Interrupt, ...] = ()
    rollback: bool = False
    final: bool = False

    @property
    def root_status(self) -> RootStatus:
        """What the root lifecycle event says."""
        if self.status in ("error", "timeout"):
            return "failed"
        return "interrupted" if self.status == "interrupted" or self.thread_status == "interrupted" else "completed"


async def end(runtime: Runtime, attempt: Attempt, outcome: Outcome) -> None:
    """End the run and pay for it, in order. Raises: Fenced, Unavailable (a redelivery pays the rest), TooLarge, Corrupt."""
    state = await _append_end(runtime, attempt, outcome)
    runtime.crash.reach("ended")
    if state is not None:
        # Since the attempt began, nobody but its holder can have published what became owed.
        for owed in state.owed:
            if owed.run_id not in attempt.settled:
                await publish_owed(attempt.writer, owed)
        runtime.crash.reach("terminal")
        await put_next(runtime, attempt.scope, attempt.thread_id, state)
        runtime.crash.reach("next_work")
    await attempt.item.ack()
    runtime.crash.reach("acknowledged")


async def release(runtime: Runtime, attempt: Attempt, delay_s: float = 0) -> None:
    """Hand the run back for another attempt, here or elsewhere. Raises: Conflict (not ours any more), Unavailable."""
    run_id, number = attempt.run.run_id, attempt.number
    command_id, released = f"{run_id}:{number}:{attempt.fence}:released", rs.RunReleased(run_id, number)
    await runtime.control.decide(
        attempt.scope, attempt.thread_id, lambda state: rs.release_run(state, command_id, now_ms(), released)
    )
    await attempt.item.nak(delay_s)


async def _append_end(runtime: Runtime, attempt: Attempt, outcome: Outcome) -> rs.ThreadState | None:
    """The state after the end; None for a thread that was deleted meanwhile. Raises: Fenced, Unavailable."""
    end_s = time.monotonic() + PUBLISH_OUTAGE_S
    state, head_seq = attempt.state, attempt.head_seq
    while True:
        if _holds(state, attempt):
            planned = _with_cancel(state, outcome)
            if planned.rollback:
                await delete_of_run(
                    runtime.checkpoints, attempt.scope, attempt.thread_id, attempt.run.run_id, attempt.fence
                )
            transition = _transition(state, attempt, planned)
            try:
                await runtime.control.append(attempt.scope, attempt.thread_id, transition, head_seq)
                return transition.state
            except WrongSequence:
                pass
            except Unavailable:
                if time.monotonic() > end_s:
                    raise
                await asyncio.sleep(RETRY_WAIT_S)
        state, head_seq = await _read_head(runtime, attempt, end_s)
        if state is None or state.deleted:
            return None
        if not _holds(state, attempt):
            # An append whose acknowledgement was lost shows as our own debt.
            if any(owed.run_id == attempt.run.run_id for owed in state.owed):
                return state
            raise Fenced(f"attempt {attempt.number} of run {attempt.run.run_id} is not the thread's any more", 0)


async def _read_head(runtime: Runtime, attempt: Attempt, end_s: float) -> tuple[rs.ThreadState | None, int]:
    while True:
        try:
            head = await runtime.control.head(attempt.scope, attempt.thread_id)
            return head.state, head.stream_seq
        except Unavailable:
            if time.monotonic() > end_s:
                raise
            await asyncio.sleep(RETRY_WAIT_S)


def _holds(state: rs.ThreadState | None, attempt: Attempt) -> bool:
    running = None if state is None else state.running
    return running is not None and running.run_id == attempt.run.run_id and running.attempt == attempt.number


def _with_cancel(state: rs.ThreadState, outcome: Outcome) -> Outcome:
    """An accepted cancel is never overlooked by the run that ends."""
    cancel = None if state.running is None else state.running.cancel
    if cancel is None or outcome.final:
        return outcome
    if cancel == "rollback":
        kept: rs.ThreadStatus = "interrupted" if state.interrupts else "idle"
        return Outcome("interrupted", kept, rollback=True)
    if outcome.status == "interrupted":
        return outcome
    thread_status: rs.ThreadStatus = "idle" if outcome.thread_status == "error" else outcome.thread_status
    return Outcome("interrupted", thread_status, interrupts=outcome.interrupts)


def _transition(state: rs.ThreadState, attempt: Attempt, outcome: Outcome) -> rs.Transition:
    run, at_ms = attempt.run, now_ms()
    body = terminal_body(
        run.run_id, outcome.root_status, at_ms, graph_name=run.graph_id, run_status=outcome.status,
        attempt=attempt.number, error=outcome.error, interrupts=outcome.interrupts,
    )  # fmt: skip
    # The lease lies in the thread log's stream, so whatever this attempt wrote lies behind it.
    owed = rs.OwedTerminal(run.run_id, attempt.writer.last_stream_seq or attempt.fence, body.decode())
    command_id = f"{run.run_id}:{attempt.number}:{attempt.fence}:ended"
    if outcome.rollback:
        rolled = rs.RunRolledBack(run.run_id, outcome.thread_status)
        return rs.roll_back_run(state, command_id, at_ms, rolled, attempt.number, owed)
    ended = rs.RunEnded(
        run.run_id, attempt.number, outcome.status, outcome.thread_status, outcome.error, attempt.values_seq,
        interrupts_of_row(outcome.interrupts),
    )  # fmt: skip
    opened = tuple(rs.OpenInterrupt(each.id, each.namespace, each.task_id) for each in outcome.interrupts)
    return rs.end_run(state, command_id, at_ms, ended, owed, opened, frozenset(attempt.settled))


def interrupts_of_row(interrupts: Sequence[Interrupt]) -> dict[str, Any]:
    """Interrupts in the form of the thread's row, `{task_id: [{id, value}]}`."""
    out: dict[str, Any] = {}
    for each in interrupts:
        out.setdefault(each.task_id, []).append({"id": each.id, "value": each.value})
    return out


