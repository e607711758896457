"""Runs as requests describe them, and their way to the log."""

import asyncio
import logging
import time
import uuid
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from slipstream_api import access, configs, upkeep, webhook_urls
from slipstream_api.bodies import bounded, changed
from slipstream_api.context import Context
from slipstream_api.inbound import with_headers
from slipstream_postgres import assistants, temporary
from slipstream_postgres import runs as run_rows
from slipstream_postgres.rows import AssistantRow, RunRow, moment
from slipstream_schemas import run_state as rs
from slipstream_schemas.answers import OpenInterrupt, answered_by
from slipstream_schemas.codec import dumps, to_plain
from slipstream_schemas.errors import (
    InvalidArgument,
    NoRoom,
    NoSuchGraph,
    NotFound,
    Rejected,
    SlipstreamError,
    Unavailable,
)
from slipstream_schemas.ids import derived_id, new_run_id
from slipstream_schemas.limits import AFTER_SECONDS_MAX, CREATE_PROJECTION_WAIT_S, PROJECTION_WAIT_S
from slipstream_schemas.metadata_filter import MetadataFilter
from slipstream_schemas.terminal import running_line, terminal_body
from slipstream_schemas.trace_metadata import trace_attributes
from slipstream_schemas.traceparent import carried

log = logging.getLogger("slipstream.api")

STRATEGIES = ("reject", "enqueue", "interrupt", "rollback")
STREAM_MODES = (
    "values", "messages", "messages-tuple", "tasks", "checkpoints", "updates", "events", "debug", "custom"
)  # fmt: skip
QUEUE_OUTAGE_S = 5.0
"""How long an accepted run waits for its place in the queue before the sweep finds it; a leader changes meanwhile."""
QUEUE_RETRY_S = 0.1
NO_PLACE = "Thread or assistant not found."
NOTHING_TO_RESUME = "command.resume needs a thread: a run on a thread of its own has nothing to resume."
LAGS = "the read model lags behind the log; try again"
CHANGEABLE = ("input", "command", "config", "context")
"""What of a run's request a handler may change, besides its metadata."""
DURABILITIES = ("sync", "async", "exit")
HELD_BESIDE = ("assistant_id", "input", "command")
"""What of a request its record holds by itself."""


class RunCreate(msgspec.Struct):
    """Body of the endpoints that create a run. Unknown keys are ignored."""

    assistant_id: str
    input: Any = None
    command: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    checkpoint: dict[str, Any] | None = None
    checkpoint_id: str | None = None
    stream_mode: str | list[str] | None = None
    stream_subgraphs: bool | None = None
    stream_resumable: bool | None = None
    multitask_strategy: str | None = None
    if_not_exists: str | None = None
    on_disconnect: str | None = None
    on_completion: str | None = None
    interrupt_before: str | list[str] | None = None
    interrupt_after: str | list[str] | None = None
    durability: str | None = None
    checkpoint_during: bool | None = None
    after_seconds: int | None = None
    webhook: str | None = None
    feedback_keys: list[str] | None = None


class Accepted(msgspec.Struct):
    """A run in the log. `log_seq` is the thread log's last stream_seq when it was accepted."""

    run_id: str
    thread_id: str
    control_seq: int
    log_seq: int
    row: RunRow | None = None
    """As it was when it was accepted; None for one that a repeated request has found."""


class _Known(Exception):
    """The run that is to be created waits or executes already: a repeat of its request was first."""

    def __init__(self, control_seq: int) -> None:
        self.control_seq = control_seq


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


def modes_of(body: RunCreate) -> tuple[str, ...]:
    """The requested stream modes. Raises: InvalidArgument."""
    asked = body.stream_mode if body.stream_mode is not None else ["values"]
    modes = tuple(dict.fromkeys([asked] if isinstance(asked, str) else asked))
    for mode in modes:
        if mode not in STREAM_MODES:
            raise InvalidArgument(
                f"Expected one of {', '.join(STREAM_MODES)}", ("body", "stream_mode"), "literal_error"
            )
    return modes or ("values",)


def _one_of(value: str | None, allowed: tuple[str, ...], default: str, name: str) -> str:
    if value is None:
        return default
    if value not in allowed:
        raise InvalidArgument(f"Expected one of {', '.join(allowed)}", ("body", name), "literal_error")
    return value


async def assistant_of(context: Context, name: str) -> AssistantRow:
    """A run's assistant as it is now. Raises: NotFound for an unknown id, NoSuchGraph for another name, Unavailable."""
    found = await access.permit(context, "assistants", "read", {"assistant_id": name})
    row = await assistants.get(context.database, context.scope.tenant, name, found, own_graphs=True)
    if row is not None:
        return row
    try:
        uuid.UUID(name)
    except ValueError:
        graphs = ", ".join(await assistants.graph_versions(context.database)) or "none yet"
        text = f"Invalid assistant: {name[:80]!r}. Must be the id of an assistant or one of the graphs: {graphs}"
        raise NoSuchGraph(text, ("body", "assistant_id"), "no_such_graph") from None
    raise NotFound(NO_PLACE)


async def resolve(
    context: Context, thread_id: str, body: RunCreate, *, key: str | None = None, creates_thread: bool = False
) -> rs.RunCreated:
    """Check a request, ask whether the caller may, and resolve the assistant.

    `creates_thread`: the run gets a thread of its own. Raises: Rejected, InvalidArgument, Forbidden, NotFound,
    Unavailable.
    """
    modes_of(body)
    if creates_thread and (body.command or {}).get("resume") is not None:
        raise Rejected(NOTHING_TO_RESUME)
    if _one_of(body.if_not_exists, ("reject", "create"), "reject", "if_not_exists") == "create":
        creates_thread = True
    run_id = new_run_id() if key is None else derived_id("run", *context.caller.parts, thread_id, key)
    body, found = await _permitted(context, thread_id, run_id, body, creates_thread=creates_thread)
    # The assistant first: a run that would make its thread then does the same work for an id that is taken, too.
    assistant = await assistant_of(context, body.assistant_id)
    await access.check_new_thread(context, thread_id, found, may_create=creates_thread, text=NO_PLACE)
    if body.webhook is not None:
        webhook_urls.parse(body.webhook, allow_private=context.settings.webhook_allow_private)
    config, given = configs.for_run(assistant, body.config, body.context)
    config = with_headers(config)
    checkpoint = {**(body.checkpoint or {}), **({"checkpoint_id": body.checkpoint_id} if body.checkpoint_id else {})}
    strategy = _one_of(body.multitask_strategy, STRATEGIES, "enqueue", "multitask_strategy")
    exits = body.checkpoint_during is False
    durability = _one_of(body.durability, DURABILITIES, "exit" if exits else "async", "durability")
    after_s = bounded(body.after_seconds or 0, 0, AFTER_SECONDS_MAX, ("body", "after_seconds"))
    kwargs = msgspec.to_builtins(body)
    return rs.RunCreated(
        run_id,
        thread_id,
        assistant.assistant_id,
        assistant.graph_id,
        input=body.input,
        command=body.command,
        config=config,
        context=given,
        metadata={**msgspec.json.decode(assistant.metadata), **(body.metadata or {})},
        strategy=cast("rs.Strategy", strategy),
        interrupt_before=body.interrupt_before,
        interrupt_after=body.interrupt_after,
        durability=durability,
        checkpoint=checkpoint or None,
        stream_modes=modes_of(body),
        kwargs={k: v for k, v in kwargs.items() if v is not None and k not in HELD_BESIDE},
        thread_metadata=dict(body.metadata or {}) if creates_thread else None,
        user_id=context.caller.identity,
        user=context.caller.shown,
        assistant_version=assistant.version,
        due_ms=now_ms() + after_s * 1000 if after_s else 0,
    )


async def _permitted(
    context: Context, thread_id: str, run_id: str, body: RunCreate, *, creates_thread: bool
) -> tuple[RunCreate, MetadataFilter | None]:
    """The request as the caller's handlers leave it, and the filter for its thread. Raises: Forbidden, Unavailable."""
    if not context.asks:
        return body, None
    said: dict[str, Any] = {name: getattr(body, name) for name in CHANGEABLE}
    value: dict[str, Any] = {
        "thread_id": thread_id, "assistant_id": body.assistant_id, "run_id": run_id, "status": "pending",
        "metadata": body.metadata or {}, "prevent_insert_if_inflight": body.multitask_strategy == "reject",
        "multitask_strategy": body.multitask_strategy or "enqueue", "after_seconds": 0,
        "if_not_exists": "create" if creates_thread else "reject", "kwargs": said,
    }  # fmt: skip
    found = await access.permit(context, "threads", "create_run", value)
    return changed(body, {"metadata": value.get("metadata"), **{name: said.get(name) for name in CHANGEABLE}}), found


async def accept(
    context: Context, created: rs.RunCreated, answers: tuple[OpenInterrupt, ...] = (), *, resumes: bool = False,
    is_watched: bool = False,
) -> Accepted:  # fmt: skip
    """Decide on a run and put it to work, as `_accept` says. Its record carries the trace that it belongs to."""
    about = {
        **trace_attributes(created.metadata),
        "slipstream.run_id": created.run_id, "slipstream.thread_id": created.thread_id,
    }  # fmt: skip
    span = context.tracing.start("accept run", carried.get(), about)
    created.traceparent = span.traceparent
    try:
        accepted = await _accept(context, created, answers, resumes=resumes, is_watched=is_watched)
    except BaseException as error:
        span.end(type(error).__name__)
        raise
    span.end()
    return accepted


async def _accept(
    context: Context, created: rs.RunCreated, answers: tuple[OpenInterrupt, ...], *, resumes: bool, is_watched: bool
) -> Accepted:
    """Decide on a run and put it to work if it may execute now.

    `resumes`: input for a thread that waits for an answer becomes that answer. `is_watched`: its client comes to watch.
    Raises: NotFound, Conflict, NoSuchInterrupt, InvalidArgument (its `Idempotency-Key` was used with another body),
    Unavailable; then nothing was written.
    """
    scope, thread_id = context.scope, created.thread_id
    created.log_seq = await context.threads.last_seq(scope, thread_id)
    wanted_metadata = created.thread_metadata
    wanted, kwargs = (created.command, created.input), created.kwargs
    # At a checkpoint of the caller's choice nobody asks.
    resumes = resumes and forks_at(created) is None

    def decide(state: rs.ThreadState | None) -> rs.Transition:
        existed = state is not None and not state.deleted
        access.check_still_missing(context, thread_id, state)
        _check_unknown(state, created.run_id)
        created.thread_metadata = None if existed else wanted_metadata
        asked = state.interrupts if state is not None else ()
        given = _given(wanted, asked) if resumes else wanted
        created.command, created.input = given
        # The request said an input, which has become a command.
        created.kwargs = kwargs if given is wanted else {**kwargs, "input": wanted[1], "command": None}
        created.answers = answered_by(asked, created.command)
        # Whatever answers an interrupt takes it off, so that no later answer is accepted as well.
        taken = answers or tuple(OpenInterrupt(each.interrupt_id, each.namespace) for each in created.answers)
        at_ms = now_ms()
        accepted = rs.create_run(
            state, f"{created.run_id}:created", at_ms, created, answers=taken, owe=lambda run: owe(run, at_ms)
        )
        if is_watched:
            # Before the run can begin: the other instances hear of it before its end can be read from the log.
            context.unwatched.note(context.own_key(thread_id), created.log_seq, is_fresh=not existed)
        return accepted

    try:
        transition, seq = await context.control.decide(scope, thread_id, decide)
    except _Known as known:
        found = (
            await _found(context, created) if await context.projected(known.control_seq, PROJECTION_WAIT_S) else None
        )
        if found is None:
            raise Unavailable(LAGS) from known
        return found
    context.written = max(context.written, seq)
    context.crash.reach("created")
    await _queue(context, thread_id, transition.state)
    if created.supersedes:
        await _pay_for_the_ended(context, thread_id, created.run_id, transition.state)
    return Accepted(created.run_id, thread_id, seq, created.log_seq, _new_row(created, transition.at_ms))


Given = tuple[dict[str, Any] | None, Any]
"""Command and input."""


def _given(wanted: Given, asked: tuple[OpenInterrupt, ...]) -> Given:
    """What a run is given on a thread that asks: its input is the answer. Without input it asks once more.

    Raises: InvalidArgument when several wait and the input names none of them, which the graph would refuse.
    """
    command, value = wanted
    if not asked or command is not None or value is None:
        return wanted
    given: dict[str, Any] = {"resume": value}
    if len(asked) > 1 and not answered_by(asked, given):
        text = f"The thread waits for {len(asked)} answers: name their interrupts, or send input.respond"
        raise InvalidArgument(text, ("body", "input"), "ambiguous_answer")
    return given, None


def forks_at(created: rs.RunCreated) -> str | None:
    """The checkpoint of the caller's choice at which the run begins. Raises: InvalidArgument."""
    places: dict[str, Any] = {**created.config.get("configurable", {}), **(created.checkpoint or {})}
    found = places.get("checkpoint_id")
    if found is not None and not isinstance(found, str):
        raise InvalidArgument("Expected a string", ("body", "config", "configurable", "checkpoint_id"), "type_error")
    return found or None


async def _queue(context: Context, thread_id: str, state: rs.ThreadState) -> None:
    """Put the thread's next run to work. It never raises: the run is accepted, and the sweep queues what is not."""
    end = time.monotonic() + QUEUE_OUTAGE_S
    while True:
        try:
            return await context.work.put_next(context.scope, thread_id, state)
        except Unavailable as error:
            if isinstance(error, NoRoom) or time.monotonic() > end:
                log.warning("the next run of thread %s is queued later: %s", thread_id, error.message)
                return None
            await asyncio.sleep(QUEUE_RETRY_S)


def _check_unknown(state: rs.ThreadState | None, run_id: str) -> None:
    """Raises: _Known for a run that waits or executes."""
    if state is not None and not state.deleted:
        for run in (*((state.running,) if state.running else ()), *state.pending):
            if run.run_id == run_id:
                raise _Known(run.created_seq)


def _new_row(created: rs.RunCreated, at_ms: int) -> RunRow:
    """The row of a run that was accepted now, as the projector will make it."""
    begins_at = moment(datetime.fromtimestamp((created.due_ms or at_ms) / 1000, UTC))
    metadata, kwargs = (msgspec.Raw(dumps(each)) for each in (created.metadata, created.said))
    return RunRow(created.run_id, created.thread_id, created.assistant_id, begins_at, begins_at, "pending",
                  metadata, kwargs, created.strategy)  # fmt: skip


async def row_of(context: Context, accepted: Accepted) -> RunRow:
    """The row of an accepted run. An accepted run is answered with it, whatever has become of its row, or of Postgres.

    Raises: NotFound, Unavailable for a run of a repeated request alone.
    """
    await context.projected(accepted.control_seq, CREATE_PROJECTION_WAIT_S)
    try:
        row = await run_rows.get(context.database, context.scope.tenant, accepted.run_id)
    except Unavailable:
        if accepted.row is None:
            raise
        row = None
    row = row or accepted.row
    if row is None:
        raise NotFound("Run not found.")
    return row


async def accept_alone(context: Context, body: RunCreate, created: rs.RunCreated) -> Accepted:
    """Accept a run on a thread of its own, which goes some time after its end unless `on_completion` is `keep`.

    Raises: InvalidArgument, and what `accept` does.
    """
    if _one_of(body.on_completion, ("delete", "keep"), "delete", "on_completion") == "delete":
        kept_s = context.settings.stateless_kept_s
        await temporary.remember(context.database, context.scope.tenant, created.thread_id, created.run_id, kept_s)
    return await accept(context, created)


async def repeated(context: Context, created: rs.RunCreated, key: str | None) -> Accepted | None:
    """The run that this `Idempotency-Key` has created before, None for a new one.

    Raises: InvalidArgument when the key was used with another body, Unavailable.
    """
    if key is None:
        return None
    # The first time may have been accepted a moment ago, by another instance: the rows must know all that the log does.
    head = await context.control.head(context.scope, created.thread_id)
    if not await context.projected(head.stream_seq, PROJECTION_WAIT_S):
        raise Unavailable(LAGS)
    return await _found(context, created)


async def _found(context: Context, created: rs.RunCreated) -> Accepted | None:
    """The run as the rows have it. Raises: InvalidArgument when it was created by another body, Unavailable."""
    tenant = context.scope.tenant
    place = await run_rows.place(context.database, tenant, created.run_id)
    row = None if place is None else await run_rows.get(context.database, tenant, created.run_id)
    if place is None or row is None:
        return None
    same = msgspec.json.decode(row.kwargs) == to_plain(created.said) and row.assistant_id == created.assistant_id
    if not same:
        text = "this Idempotency-Key was used with another body"
        raise InvalidArgument(text, ("header", "idempotency-key"), "idempotency_key_reused")
    return Accepted(place.run_id, place.thread_id, 0, place.log_seq)


def owe(run: rs.PendingRun, at_ms: int) -> rs.OwedTerminal:
    """The last record of a run that ends before it began, and its first: clients look for a run's `running`."""
    running = running_line(run.run_id, run.graph_id, at_ms, attempt=0)
    body = terminal_body(
        run.run_id, "interrupted", at_ms, graph_name=run.graph_id, run_status="interrupted", before=[running]
    )
    return rs.OwedTerminal(run.run_id, run.log_seq, body.decode())


def cancel_action(asked: str | None) -> rs.CancelAction:
    """What becomes of a cancelled run: `interrupt` keeps what it wrote. Raises: InvalidArgument."""
    if asked not in (None, "interrupt", "rollback"):
        raise InvalidArgument("Expected one of interrupt, rollback", ("query", "action"), "literal_error")
    return "rollback" if asked == "rollback" else "interrupt"


async def cancel(context: Context, thread_id: str, run_id: str, action: rs.CancelAction) -> int:
    """Ask a run to stop; one that waits ends here, terminal event included. Returns the control seq.

    Raises: NotFound for a run that is over or never was, Unavailable.
    """
    command_id, scope = new_run_id(), context.scope

    def decide(state: rs.ThreadState | None) -> rs.Transition:
        at_ms = now_ms()
        waiting = next((run for run in rs.existing(state).pending if run.run_id == run_id), None)
        return rs.request_cancel(state, command_id, at_ms, run_id, action, owe(waiting, at_ms) if waiting else None)

    transition, seq = await context.control.decide(scope, thread_id, decide)
    context.written = max(context.written, seq)
    await _pay_for_the_ended(context, thread_id, run_id, transition.state)
    return seq


async def _pay_for_the_ended(context: Context, thread_id: str, run_id: str, state: rs.ThreadState) -> None:
    """Publish the terminal records of runs that ended before they began, if nobody else will.

    It never raises: the command is decided. Whoever has taken the lease since pays, and the sweep what is left.
    """
    # A holder pays in passing, and so does a successor that a runner is about to take.
    if not state.owed or state.running is not None or rs.next_run(state, now_ms()) is not None:
        return
    context.crash.reach("pending_cancelled")
    try:
        await upkeep.settle(context, thread_id, run_id)
    except SlipstreamError as error:
        log.info("the end of run %s on thread %s is left to others: %s", run_id, thread_id, error.message)


async def delete(context: Context, thread_id: str, run_id: str) -> None:
    """Take a run off the list. Raises: NotFound, Conflict for one that is not over, Unavailable."""
    deleted, command_id = rs.RunDeleted(run_id), new_run_id()
    _, seq = await context.control.decide(
        context.scope, thread_id, lambda state: rs.delete_run(state, command_id, now_ms(), deleted)
    )
    context.written = max(context.written, seq)
    await context.projected(seq, CREATE_PROJECTION_WAIT_S)
