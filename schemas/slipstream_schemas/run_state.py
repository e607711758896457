"""Deciding: the folded state of a thread, and the transitions that lead from one to the next.

Theory of operation. The control log of a thread is a chain of transitions. Each carries the whole folded state that it
leads to, so reading the head is enough to decide, and appending with the head's seq as the expectation makes the
decision atomic: of many concurrent ones exactly one is stored, the others read again. Nothing here does I/O or reads a
clock; every function takes a state and returns the transition, or raises `Conflict` or `Rejected`, and then nothing is
written.

A run's life: pending → running (attempts from 1) → ended. `ended` and the terminal event of the thread log are two
appends to two streams. Between them the terminal event is *owed*: its exact bytes lie in the folded state until a
holder of the lease has seen that they are in the thread log.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from slipstream_schemas.answers import Answered, OpenInterrupt, still_open, without_answered
from slipstream_schemas.errors import Conflict, NotFound, Rejected, Unavailable
from slipstream_schemas.limits import PENDING_RUNS_MAX

ThreadStatus = Literal["idle", "busy", "interrupted", "error"]
RunStatus = Literal["pending", "running", "success", "error", "timeout", "interrupted"]
EndStatus = Literal["success", "error", "timeout", "interrupted"]
Strategy = Literal["reject", "enqueue", "interrupt", "rollback"]
CancelAction = Literal["interrupt", "rollback"]
TransitionName = Literal[
    "thread_created",
    "thread_patched",
    "thread_deleted",
    "thread_erased",
    "thread_settled",
    "run_created",
    "run_started",
    "run_released",
    "run_cancel_requested",
    "run_ended",
    "run_rolled_back",
    "run_deleted",
    "state_updated",
    "log_trimmed",
]


class RunningRun(msgspec.Struct, frozen=True, omit_defaults=True):
    """The run that executes. `holder` is None between a hand-back and the next attempt.

    `crashes` counts attempts whose holder vanished; `checkpoint_id` and `null_writes` are what attempt 1 found, for the
    retry rule of commands. `answers` are the interrupts that it took off.
    """

    run_id: str
    created_seq: int
    graph_id: str
    attempt: int
    holder: str | None
    fence: int
    crashes: int = 0
    checkpoint_id: str | None = None
    null_writes: int = 0
    cancel: CancelAction | None = None
    log_seq: int = 0
    answers: tuple[OpenInterrupt, ...] = ()


class PendingRun(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run that waits: for its predecessor, or for the time `due_ms`, 0 for none.

    `created_seq` 0 stands for the transition that carries this state. `answers` are the interrupts that it took off.
    """

    run_id: str
    created_seq: int
    graph_id: str
    log_seq: int = 0
    due_ms: int = 0
    answers: tuple[OpenInterrupt, ...] = ()


class OwedTerminal(msgspec.Struct, frozen=True):
    """A terminal record that may not be in the thread log yet; if it is, it lies after `after_stream_seq`."""

    run_id: str
    after_stream_seq: int
    body: str


class ThreadState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a thread's control log folds to. `fence` is the last lease under which a run began or state was written.

    `pending` is in the order of execution: by the time from which each may start, that of its creation or a later one.
    """

    thread_id: str
    status: ThreadStatus = "idle"
    deleted: bool = False
    erased: bool = False
    """All that a deleted thread had is gone, and its id is free."""
    running: RunningRun | None = None
    pending: tuple[PendingRun, ...] = ()
    owed: tuple[OwedTerminal, ...] = ()
    interrupts: tuple[OpenInterrupt, ...] = ()
    asked_behind: int = 0
    """Behind this stream_seq lie the records of the run that raised `interrupts`, and of none before it."""
    log_floor: int = 0
    """Retention has removed the thread log up to this stream_seq."""
    fence: int = 0


class Transition(msgspec.Struct, frozen=True):
    """One record of the control log. `payload` is the transition's own struct, as JSON."""

    name: TransitionName
    command_id: str
    at_ms: int
    state: ThreadState
    payload: msgspec.Raw = msgspec.Raw(b"{}")


class ThreadCreated(msgspec.Struct, omit_defaults=True):
    """A thread exists from now on. `request` are the digests of the `Idempotency-Key` and the body that made it."""

    metadata: dict[str, Any] = {}
    request: str = ""


class ThreadPatched(msgspec.Struct, omit_defaults=True):
    """Keys to merge into the thread's metadata."""

    metadata: dict[str, Any] = {}


class RunCreated(msgspec.Struct, omit_defaults=True):
    """Everything that a runner needs to execute a run, resolved when the run was accepted.

    `log_seq` is the thread log's last stream_seq then: the run's first record lies behind it. `supersedes` names the
    runs that this one cancels, `answers` the interrupts that it answers. `thread_metadata` is set when the run creates
    its thread. `kwargs` is what the request said besides its input and its command, or what stood in their place.
    """

    run_id: str
    thread_id: str
    assistant_id: str
    graph_id: str
    input: Any = None
    command: dict[str, Any] | None = None
    config: dict[str, Any] = {}
    context: dict[str, Any] | None = None
    metadata: dict[str, Any] = {}
    strategy: Strategy = "enqueue"
    supersedes: tuple[str, ...] = ()
    answers: tuple[Answered, ...] = ()
    interrupt_before: Any = None
    interrupt_after: Any = None
    durability: str = "async"
    checkpoint: dict[str, Any] | None = None
    stream_modes: tuple[str, ...] = ()
    kwargs: dict[str, Any] = {}
    log_seq: int = 0
    thread_metadata: dict[str, Any] | None = None
    user_id: str = ""
    user: dict[str, Any] | None = None
    request_id: str = ""
    assistant_version: int = 0
    traceparent: str = ""
    due_ms: int = 0
    """The run starts no earlier than this, 0 for at once."""

    @property
    def said(self) -> dict[str, Any]:
        """What the request said, for the row."""
        said = {"input": self.input, "command": self.command} | self.kwargs
        return {name: value for name, value in said.items() if value is not None}


class RunStarted(msgspec.Struct, omit_defaults=True):
    """An attempt begins."""

    run_id: str
    attempt: int
    holder: str
    fence: int
    checkpoint_id: str | None = None
    null_writes: int = 0


class RunReleased(msgspec.Struct):
    """A holder hands its run back, unfinished."""

    run_id: str
    attempt: int


class RunCancelRequested(msgspec.Struct):
    """A run shall stop. `ended` says that it had not started, so that this transition ended it."""

    run_id: str
    action: CancelAction
    ended: bool = False


class RunEnded(msgspec.Struct, omit_defaults=True):
    """A run is over. `values_seq` is the wire seq of its last root `values` line, 0 when it had none.

    `interrupts` is the thread row's form, `{task_id: [{id, value}]}`.
    """

    run_id: str
    attempt: int
    status: EndStatus
    thread_status: ThreadStatus
    error: dict[str, str] | None = None
    values_seq: int = 0
    interrupts: dict[str, Any] = {}


class RunRolledBack(msgspec.Struct):
    """A run and what it wrote are gone."""

    run_id: str
    thread_status: ThreadStatus = "idle"


class RunDeleted(msgspec.Struct):
    """A run that is over shall not be listed any more. Its events stay in the thread log."""

    run_id: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Transition).decode


def encode_transition(transition: Transition) -> bytes:
    """The record's body."""
    return _encode(transition)


def decode_transition(body: bytes) -> Transition:
    """The transition of a record. Raises: msgspec.DecodeError."""
    return _decode(body)


def is_busy(state: ThreadState) -> bool:
    """Whether a run executes or waits."""
    return state.running is not None or bool(state.pending)


def next_run(state: ThreadState, at_ms: int) -> PendingRun | None:
    """The run that may begin now: the first one, if none executes and its time has come."""
    if state.running is not None or not state.pending or state.pending[0].due_ms > at_ms:
        return None
    return state.pending[0]


def existing(state: ThreadState | None) -> ThreadState:
    """The state of a thread that must exist. Raises: NotFound."""
    if state is None or state.deleted:
        raise NotFound("Thread not found.")
    return state


def transition(
    name: TransitionName, command_id: str, at_ms: int, state: ThreadState, payload: object = None
) -> Transition:
    """Put a transition together; the status follows from the runs."""
    if is_busy(state) and state.status != "busy":
        state = msgspec.structs.replace(state, status="busy")
    raw = msgspec.Raw(_encode({} if payload is None else payload))
    return Transition(name, command_id, at_ms, state, raw)


def resolved_created_seq(run: PendingRun, head_seq: int) -> int:
    """The control seq of a pending run's `run_created`: 0 in the state stands for the head itself."""
    return run.created_seq or head_seq


def resolve(state: ThreadState, head_seq: int) -> ThreadState:
    """Replace the 0 that stands for "this very record" by the head's seq. Call it on every head that is read."""
    if not any(run.created_seq == 0 for run in state.pending):
        return state
    pending = tuple(
        run if run.created_seq else msgspec.structs.replace(run, created_seq=head_seq) for run in state.pending
    )
    return msgspec.structs.replace(state, pending=pending)


def is_free(state: ThreadState | None) -> bool:
    """Whether the id is nobody's. Raises: Unavailable while something of an earlier thread is left."""
    if state is not None and state.deleted and not state.erased:
        raise Unavailable(f"thread {state.thread_id} is being deleted; try again")
    return state is None or state.deleted


def create_run(
    state: ThreadState | None,
    command_id: str,
    at_ms: int,
    created: RunCreated,
    *,
    answers: tuple[OpenInterrupt, ...] = (),
    owe: Callable[[PendingRun], OwedTerminal] | None = None,
) -> Transition:
    """Accept a run by its multitask strategy; the thread is created if it does not exist and `thread_metadata` is set.

    `answers` are the interrupts that the run answers: they must be open, and are taken off, so that one of many
    concurrent answers wins. With the strategies `interrupt` and `rollback` the running run is asked to stop, and the
    pending ones end here: `owe` makes their terminal records.
    Raises: NotFound, Conflict (strategy `reject` on a busy thread), NoSuchInterrupt, Rejected (too many pending runs),
    Unavailable (a thread of this id is being deleted).
    """
    if state is None or state.deleted:
        if created.thread_metadata is None:
            raise NotFound("Thread or assistant not found.")
        is_free(state)
        state = ThreadState(created.thread_id)
    if created.strategy == "reject" and is_busy(state):
        raise Conflict(
            "Thread is already running a task. Wait for it to finish or choose a different multitask strategy."
        )
    if len(state.pending) >= PENDING_RUNS_MAX:
        raise Conflict(f"Thread has {PENDING_RUNS_MAX} pending runs already.")
    left, taken = without_answered(state.interrupts, answers)
    state = msgspec.structs.replace(state, interrupts=left)
    if created.strategy in ("interrupt", "rollback"):
        state = _superseded(state, created, owe)
    run = PendingRun(created.run_id, 0, created.graph_id, created.log_seq, created.due_ms, taken)
    ahead = sum(each.due_ms <= max(created.due_ms, at_ms) for each in state.pending)
    pending = (*state.pending[:ahead], run, *state.pending[ahead:])
    state = msgspec.structs.replace(state, pending=pending, status="busy")
    return transition("run_created", command_id, at_ms, state, created)


def _superseded(
    state: ThreadState, created: RunCreated, owe: Callable[[PendingRun], OwedTerminal] | None
) -> ThreadState:
    """Ask the running run to stop and end the pending ones; `created.supersedes` names them all."""
    if state.pending and owe is None:
        raise Rejected("pending runs need their terminal records to be superseded")
    running = state.running
    if running is not None and running.cancel is None:
        action: CancelAction = "rollback" if created.strategy == "rollback" else "interrupt"
        running = msgspec.structs.replace(running, cancel=action)
    created.supersedes = (*((running.run_id,) if running else ()), *(run.run_id for run in state.pending))
    owed = tuple(owe(run) for run in state.pending) if owe else ()
    # The graph will not see their answers, so what they answered is open again.
    asked = (*state.interrupts, *(each for run in state.pending for each in run.answers))
    return msgspec.structs.replace(state, running=running, pending=(), owed=(*state.owed, *owed), interrupts=asked)


def start_run(state: ThreadState | None, command_id: str, at_ms: int, started: RunStarted) -> Transition:
    """Begin an attempt: of the first pending run on an idle thread, or of the running one again.

    Every owed terminal record was published before, so the list is emptied. A running run whose holder vanished counts
    a crash; one that was handed back does not. Raises: NotFound, Conflict.
    """
    state = existing(state)
    if state.running is None:
        if not state.pending or state.pending[0].run_id != started.run_id:
            raise Conflict(f"Run {started.run_id} is not the next one of its thread.")
        first = state.pending[0]
        running = RunningRun(
            first.run_id, first.created_seq, first.graph_id, started.attempt, started.holder, started.fence,
            checkpoint_id=started.checkpoint_id, null_writes=started.null_writes, log_seq=first.log_seq,
            answers=first.answers,
        )  # fmt: skip
        return transition(
            "run_started", command_id, at_ms,
            msgspec.structs.replace(state, running=running, pending=state.pending[1:], owed=(), fence=started.fence),
            started,
        )  # fmt: skip
    if state.running.run_id != started.run_id:
        raise Conflict(f"Run {started.run_id} is not the running one of its thread.")
    before = state.running
    again = msgspec.structs.replace(
        before,
        attempt=started.attempt,
        holder=started.holder,
        fence=started.fence,
        crashes=before.crashes + (1 if before.holder is not None else 0),
    )
    after = msgspec.structs.replace(state, running=again, owed=(), fence=started.fence)
    return transition("run_started", command_id, at_ms, after, started)


def _held(state: ThreadState | None, run_id: str, attempt: int) -> tuple[ThreadState, RunningRun]:
    state = existing(state)
    running = state.running
    if running is None or running.run_id != run_id or running.attempt != attempt:
        raise Conflict(f"Attempt {attempt} of run {run_id} does not hold its thread.")
    return state, running


def release_run(state: ThreadState | None, command_id: str, at_ms: int, released: RunReleased) -> Transition:
    """Hand a run back for another attempt. Raises: NotFound, Conflict."""
    known, running = _held(state, released.run_id, released.attempt)
    freed = msgspec.structs.replace(running, holder=None)
    return transition("run_released", command_id, at_ms, msgspec.structs.replace(known, running=freed), released)


def request_cancel(
    state: ThreadState | None, command_id: str, at_ms: int, run_id: str, action: CancelAction, owed: OwedTerminal | None
) -> Transition:
    """Cancel a run: a running one is asked to stop, a pending one ends here and owes `owed`, its terminal record.

    Raises: NotFound for a run that neither runs nor waits.
    """
    state = existing(state)
    if state.running is not None and state.running.run_id == run_id:
        running = msgspec.structs.replace(state.running, cancel=action)
        return transition(
            "run_cancel_requested", command_id, at_ms, msgspec.structs.replace(state, running=running),
            RunCancelRequested(run_id, action),
        )  # fmt: skip
    kept = tuple(run for run in state.pending if run.run_id != run_id)
    if len(kept) == len(state.pending):
        raise NotFound("No matching runs found to cancel.")
    if owed is None:
        raise Rejected("a pending run needs its terminal record to be cancelled")
    asked = (*state.interrupts, *(each for run in state.pending if run.run_id == run_id for each in run.answers))
    status: ThreadStatus = "busy" if state.running or kept else ("interrupted" if asked else "idle")
    after = msgspec.structs.replace(state, pending=kept, owed=(*state.owed, owed), status=status, interrupts=asked)
    return transition("run_cancel_requested", command_id, at_ms, after, RunCancelRequested(run_id, action, ended=True))


def _owed_behind(owed: OwedTerminal, known: ThreadState) -> tuple[OwedTerminal, ...]:
    """What a run owes at its end, and what came to be owed while it executed: none of that is told before."""
    later = (msgspec.structs.replace(each, after_stream_seq=owed.after_stream_seq) for each in known.owed)
    return (owed, *later)


def end_run(
    state: ThreadState | None, command_id: str, at_ms: int, ended: RunEnded, owed: OwedTerminal,
    interrupts: tuple[OpenInterrupt, ...] = (),
) -> Transition:  # fmt: skip
    """End the running run, which owes `owed` and behind it what runs owe that ended before they began meanwhile.

    Of `interrupts`, those that a waiting run answers are not open. Raises: NotFound, Conflict (another attempt holds).
    """
    known, running = _held(state, ended.run_id, ended.attempt)
    # A run that came to its end has asked again what is still open; another's questions lie behind earlier fences.
    behind = known.asked_behind if known.interrupts and ended.status != "success" else running.fence
    after = msgspec.structs.replace(
        known,
        running=None,
        owed=_owed_behind(owed, known),
        interrupts=still_open(interrupts, (run.answers for run in known.pending)),
        asked_behind=behind if interrupts else 0,
        status="busy" if known.pending else ended.thread_status,
    )
    return transition("run_ended", command_id, at_ms, after, ended)


def roll_back_run(
    state: ThreadState | None, command_id: str, at_ms: int, run_id: str, attempt: int, owed: OwedTerminal
) -> Transition:
    """End the running run whose checkpoints are deleted already: what it has answered is open again.

    Raises: NotFound, Conflict.
    """
    known, running = _held(state, run_id, attempt)
    asked = (*known.interrupts, *running.answers)
    rolled = RunRolledBack(run_id, "interrupted" if asked else "idle")
    after = msgspec.structs.replace(
        known,
        running=None,
        owed=_owed_behind(owed, known),
        interrupts=asked,
        status="busy" if known.pending else rolled.thread_status,
    )
    return transition("run_rolled_back", command_id, at_ms, after, rolled)


def delete_run(state: ThreadState | None, command_id: str, at_ms: int, deleted: RunDeleted) -> Transition:
    """Take a run that is over off the list. Raises: NotFound (thread), Conflict for one that waits or runs."""
    state = existing(state)
    active = (*((state.running.run_id,) if state.running else ()), *(run.run_id for run in state.pending))
    if deleted.run_id in active:
        raise Conflict("The run is not over. Cancel it first.")
    return transition("run_deleted", command_id, at_ms, state, deleted)


def settle(state: ThreadState | None, command_id: str, at_ms: int, run_ids: frozenset[str]) -> Transition:
    """Say that these owed terminal records are in the thread log. Raises: NotFound."""
    known = existing(state)
    left = tuple(owed for owed in known.owed if owed.run_id not in run_ids)
    return transition("thread_settled", command_id, at_ms, msgspec.structs.replace(known, owed=left))
