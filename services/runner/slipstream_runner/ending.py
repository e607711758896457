"""Ending a run, in the order that lets anybody finish what we could not: `run_ended` (it carries the exact terminal
record), the terminal record in the thread log, the next run's work item, the acknowledgement.
"""

import logging
from collections.abc import Iterable

import msgspec

from slipstream_nats.owed import publish_owed
from slipstream_runner.checkpoints import FencedSaver
from slipstream_runner.execute import Outcome
from slipstream_runner.runtime import Attempt, Runtime, now_ms
from slipstream_runner.settling import hand_back, put_next
from slipstream_runner.translate import Translator
from slipstream_runner.undoing import forget_run, forget_step
from slipstream_schemas import run_state as rs
from slipstream_schemas.answers import OpenInterrupt
from slipstream_schemas.codec import to_plain
from slipstream_schemas.errors import Conflict, NotFound
from slipstream_schemas.limits import PUBLISH_OUTAGE_S
from slipstream_schemas.state_forms import INTERRUPT
from slipstream_schemas.terminal import TERMINAL_INTERRUPTS_MAX, Interrupt, RootStatus, terminal_body

log = logging.getLogger("slipstream.runner")

RETRY_DELAY_S = 1.0
"""After this pause a run that lacked Postgres is tried again."""


class _Cancelled(Exception):
    """The head shows a cancel that was accepted before the run's end was."""

    def __init__(self, action: rs.CancelAction) -> None:
        self.action = action


class _End(msgspec.Struct):
    """A run's end, ready to be decided."""

    status: rs.EndStatus
    thread_status: rs.ThreadStatus
    root: RootStatus
    error: dict[str, str] | None
    interrupts: list[Interrupt]


def _end_of(outcome: Outcome, translator: Translator) -> _End:
    waiting = list(translator.interrupts.values())
    unfinished = bool(waiting) or bool(translator.next_nodes)
    match outcome.kind:
        case "error":
            return _End("error", "error", "failed", outcome.error, [])
        case "timeout":
            return _End("timeout", "error", "failed", outcome.error, [])
        case "interrupted":
            stopped = unfinished or translator.next_nodes is None
            return _End("interrupted", "interrupted" if stopped else "idle", "interrupted", None, waiting)
        case _:
            if unfinished:
                return _End("success", "interrupted", "interrupted", None, waiting)
            return _End("success", "idle", "completed", None, waiting)


async def end(runtime: Runtime, attempt: Attempt, outcome: Outcome, translator: Translator) -> None:
    """Record how the attempt ended and pay for it. Raises: Unavailable, Fenced (the work item comes back)."""
    if outcome.kind == "lost":
        return
    try:
        if outcome.kind in ("release", "retry"):
            await release(runtime, attempt, RETRY_DELAY_S if outcome.kind == "retry" else 0)
            return
        if translator.refused is not None:
            await forget_step(runtime.checkpoints, attempt, translator.refused)
        if outcome.kind == "rollback":
            state, owed = await _roll_back(runtime, attempt)
        else:
            try:
                state, owed = await _end(runtime, attempt, _end_of(outcome, translator), translator.values_seq)
            except _Cancelled as seen:
                if seen.action == "rollback":
                    state, owed = await _roll_back(runtime, attempt)
                else:
                    stopped = _end_of(Outcome("interrupted"), translator)
                    state, owed = await _end(runtime, attempt, stopped, translator.values_seq, is_cancelled=True)
    except (Conflict, NotFound) as error:
        log.warning("run %s attempt %d is no longer ours: %s", attempt.run.run_id, attempt.number, error.message)
        return
    runtime.crash.reach("ended")
    await publish_owed(attempt.writer, owed, attempt.traceparent)
    for other in state.owed:
        # Of runs that ended before they began, while this one executed: whoever follows the thread would take an end
        # amid its output for its own (ADR 40).
        if other.run_id != owed.run_id:
            await publish_owed(attempt.writer, other)
    runtime.crash.reach("terminal")
    await put_next(runtime, attempt.scope, attempt.thread_id, state)
    runtime.crash.reach("next_work")
    await attempt.item.ack()
    runtime.crash.reach("acknowledged")


async def _end(
    runtime: Runtime, attempt: Attempt, ending: _End, values_seq: int, *, is_cancelled: bool = False
) -> tuple[rs.ThreadState, rs.OwedTerminal]:
    run = attempt.run
    is_cancelled = is_cancelled or ending.status in ("interrupted", "error", "timeout")
    body = terminal_body(
        run.run_id, ending.root, now_ms(), graph_name=run.graph_id, run_status=ending.status, attempt=attempt.number,
        error=ending.error, interrupts=ending.interrupts[-TERMINAL_INTERRUPTS_MAX:],
    )  # fmt: skip
    owed = rs.OwedTerminal(run.run_id, attempt.writer.last_stream_seq or attempt.fence, body.decode())
    asked = [*ending.interrupts, *await _left(runtime, attempt, ending)]
    if asked and ending.status == "interrupted":
        ending.thread_status = "interrupted"
    rows: dict[str, list[dict[str, object]]] = {}
    for waiting in asked:
        rows.setdefault(waiting.task_id, []).append({"id": waiting.id, "value": waiting.value})
    ended = rs.RunEnded(run.run_id, attempt.number, ending.status, ending.thread_status, ending.error, values_seq, rows)
    open_interrupts = tuple(OpenInterrupt(i.id, i.namespace, i.task_id) for i in asked)
    command_id = f"{run.run_id}:{attempt.number}:ended"

    def decide(state: rs.ThreadState | None) -> rs.Transition:
        running = state.running if state is not None else None
        cancel = running.cancel if running is not None and running.run_id == run.run_id else None
        if cancel == "rollback" or (cancel is not None and not is_cancelled):
            raise _Cancelled(cancel)
        return rs.end_run(state, command_id, now_ms(), ended, owed, open_interrupts)

    # The holder keeps its run through a broker outage; giving up early would cost the run an attempt.
    transition, _ = await runtime.control.decide(attempt.scope, attempt.thread_id, decide, outage_s=PUBLISH_OUTAGE_S)
    return transition.state, owed


async def _left(runtime: Runtime, attempt: Attempt, ending: _End) -> list[Interrupt]:
    """The questions that still wait behind a run that answered others and did not come to its end.

    Their superstep is not over before all of them are answered, and the run has not asked them again. Raises:
    Unavailable.
    """
    told = {each.id for each in ending.interrupts}
    left = [each for each in attempt.state.interrupts if each.id not in told]
    if ending.status == "success" or not attempt.run.answers or not left:
        return []
    return await _asked(runtime, attempt, left)


async def _asked(runtime: Runtime, attempt: Attempt, questions: Iterable[OpenInterrupt]) -> list[Interrupt]:
    """Those of the questions that the newest checkpoint asks, with what they ask. Raises: Unavailable."""
    saver = FencedSaver(runtime.checkpoints, attempt.scope, attempt.thread_id, None)
    found = await saver.aget_tuple({"configurable": {"thread_id": attempt.thread_id, "checkpoint_ns": ""}})
    writes = (found.pending_writes or ()) if found is not None else ()
    values = {each.id: to_plain(each.value) for _, channel, some in writes if channel == INTERRUPT for each in some}
    return [Interrupt(q.id, values[q.id], q.namespace, q.task_id) for q in questions if q.id in values]


async def _roll_back(runtime: Runtime, attempt: Attempt) -> tuple[rs.ThreadState, rs.OwedTerminal]:
    """Undo what the run checkpointed, then say that it never was. What it has answered is asked again."""
    run, running = attempt.run, attempt.state.running
    await forget_run(runtime.checkpoints, attempt.scope, attempt.thread_id, run.run_id, attempt.fence)
    answered = running.answers if running is not None else ()
    asked = await _asked(runtime, attempt, answered) if answered else []
    body = terminal_body(run.run_id, "interrupted", now_ms(), graph_name=run.graph_id, run_status="interrupted",
                         attempt=attempt.number, interrupts=asked[-TERMINAL_INTERRUPTS_MAX:])  # fmt: skip
    owed = rs.OwedTerminal(run.run_id, attempt.writer.last_stream_seq or attempt.fence, body.decode())
    command_id = f"{run.run_id}:{attempt.number}:rolled-back"
    transition, _ = await runtime.control.decide(
        attempt.scope,
        attempt.thread_id,
        lambda state: rs.roll_back_run(state, command_id, now_ms(), run.run_id, attempt.number, owed),
        outage_s=PUBLISH_OUTAGE_S,
    )
    return transition.state, owed


async def release(runtime: Runtime, attempt: Attempt, delay_s: float = 0) -> None:
    """Hand the run back, so that another attempt goes on with it after `delay_s`. Raises: Unavailable."""
    await hand_back(runtime.control, attempt, outage_s=PUBLISH_OUTAGE_S)
    await attempt.item.nak(delay_s)
    log.info("run %s attempt %d is handed back", attempt.run.run_id, attempt.number)
