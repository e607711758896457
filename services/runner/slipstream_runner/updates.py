"""Writing a thread's state from outside of a run: `POST /threads/{id}/state`, forks, and the steps that a thread is
created with.

Theory of operation. An update touches three stores, and what it must never do is disturb a run, be half there, or be
refused and leave something. The order:

1. The lease that rules now is read, then the head of the control log. A thread that runs or waits is refused. The lease
   is then taken *from the one that was read*: a runner that has taken the thread since keeps it. A runner that takes
   it later shuts us out, as any holder. The head is read again under it, and the lease once more behind the fence row:
   a thread that was deleted in between, and perhaps erased, gets nothing.
2. What an ended run owes is paid, and the fence row raised.
3. In one Postgres transaction, which holds the fence row, the graph applies the update and the new state is read back.
   A run that begins now waits for that row, so it sees the update whole or not at all. Until the commit every failure
   leaves nothing; **the commit is the decision**.
4. The record of the thread log, fenced: `checkpoints` and its companion `values`, as a run would write them.
5. `state_updated` in the control log, from which the thread's row gets its values, status and interrupts.

A run that was created after step 1 and begins after step 3 goes on from the update. If it begins before step 4 or 5,
the record is refused, or the transition, and left out: the run's own `values` tell the same. If the lease was taken by
something that leaves the state alone (an update that its graph refused, a settlement), it is taken back and the record
written then, as long as the update's checkpoint is the newest one.

A crash after step 3 leaves a state that readers and the next run see; rows and streams learn of it with the next run,
and its client has no answer, as after any crash.
Source: docs/adr/0017-state-updates-commit-in-postgres.md.
"""

import asyncio
import logging
from typing import Any

import msgspec
from langgraph.types import StateUpdate

from slipstream_nats import leases
from slipstream_nats.publisher import WrongSequence
from slipstream_nats.threadlog import ThreadLogWriter
from slipstream_postgres import fences
from slipstream_runner.checkpoints import CHECK, FencedSaver, copy_checkpoints, failures
from slipstream_runner.inputs import as_command
from slipstream_runner.runtime import Runtime, now_ms
from slipstream_runner.settling import pay_owed
from slipstream_runner.states import for_factory, interrupt_of, place
from slipstream_runner.translate import assemble, describe_error, for_log
from slipstream_runner.translate.drafts import draft, encode_x
from slipstream_schemas import run_state as rs
from slipstream_schemas.answers import OpenInterrupt
from slipstream_schemas.codec import dumps, to_plain
from slipstream_schemas.errors import Conflict, Fenced, NotFound, Rejected, SlipstreamError, TooLarge
from slipstream_schemas.limits import MESSAGE_BYTES_MAX, REQUEST_DEADLINE_S, STATE_UPDATE_DEADLINE_S
from slipstream_schemas.record import RecordHeader
from slipstream_schemas.seq import pack
from slipstream_schemas.state_forms import to_v2
from slipstream_schemas.state_updates import StateUpdated
from slipstream_schemas.state_updates import update_state as decide_update
from slipstream_schemas.subjects import Scope, thread_key

log = logging.getLogger("slipstream.runner")

BUSY = "Thread is running a task. Wait for it to finish, then update its state."
OVERTAKEN = "The thread was changed by somebody else meanwhile. Read it again, then update it."
HEADERS_BYTES_MAX = 4096
TELL_TRIES_MAX = 5


class Update(msgspec.Struct):
    """What one node would have written."""

    values: Any = None
    as_node: str | None = None
    command: dict[str, Any] | None = None


class UpdateQuestion(msgspec.Struct, tag_field="ask", tag="update"):
    """Write the state behind `checkpoint` (the newest one when it names none), superstep by superstep.

    `source` is a thread whose checkpoints a new one begins with; there may be no supersteps then.
    """

    graph_id: str
    tenant: str
    thread_id: str
    command_id: str
    supersteps: list[list[Update]]
    configurable: dict[str, Any] = {}
    checkpoint: dict[str, Any] = {}
    source: str | None = None


class Updated(msgspec.Struct):
    """Where the new checkpoint lies (empty when the source of a copy had none), and the seq of `state_updated` in the
    control log, 0 when it was not told.
    """

    configurable: dict[str, Any]
    control_seq: int


class _Written(msgspec.Struct):
    """A committed update, and what there is to tell about it."""

    placed: dict[str, Any]
    is_root: bool
    body: bytes
    has_next: bool
    rows: dict[str, Any]
    interrupts: tuple[OpenInterrupt, ...]


async def update_state(runtime: Runtime, question: UpdateQuestion) -> Updated:
    """Write a state.

    Raises: NotFound, Rejected, Conflict, TooLarge, Unavailable; with Unavailable alone it may have been written.
    """
    scope, thread_id = Scope(runtime.settings.region, question.tenant), question.thread_id
    lease = await leases.last(runtime.connection, scope, thread_id)
    state = rs.existing((await runtime.control.head(scope, thread_id)).state)
    if rs.is_busy(state):
        raise Conflict(BUSY)
    try:
        fence = await leases.take(
            runtime.publisher, scope, thread_id, runtime.holder, question.command_id, expected=lease
        )
        writer = runtime.threads.writer(scope, thread_id, fence)
        # Under the lease once more: the thread may have been deleted, and its id another's.
        state = rs.existing((await runtime.control.head(scope, thread_id)).state)
        await pay_owed(runtime, writer, scope, thread_id, state.owed, settle=False)
        is_highest = await fences.advance(runtime.database, thread_key(scope, thread_id), fence)
        # Where it was erased before, its fence is ours again, which nobody raises.
        if not is_highest or await leases.last(runtime.connection, scope, thread_id) != fence:
            raise Conflict(OVERTAKEN)
        written = await _write(runtime, question, scope, fence, await _interrupts(runtime, question, scope, state))
    except (WrongSequence, Fenced) as error:
        raise Conflict(OVERTAKEN) from error
    if written is None:
        return Updated({}, 0)
    runtime.crash.reach("state_committed")
    values_seq = await _tell(runtime, writer, question, written)
    status: rs.ThreadStatus = "interrupted" if written.has_next else "idle"
    updated = StateUpdated(written.placed["checkpoint_id"], status, fence, values_seq, written.rows)
    settled = frozenset(owed.run_id for owed in state.owed)
    command_id = f"{question.command_id}:updated"
    try:
        _, seq = await runtime.control.decide(
            scope,
            thread_id,
            lambda head: decide_update(head, command_id, now_ms(), updated, written.interrupts, settled),
        )
    except Conflict as error:
        log.info("thread %s: an update is not told: %s", thread_id, error.message)
        seq = 0
    return Updated(written.placed, seq)


async def _interrupts(
    runtime: Runtime, question: UpdateQuestion, scope: Scope, state: rs.ThreadState
) -> tuple[OpenInterrupt, ...]:
    """The interrupts that may stay open, with their namespaces: a snapshot does not tell those. Raises: Unavailable."""
    if question.source is None:
        return state.interrupts
    source = (await runtime.control.head(scope, question.source)).state
    return () if source is None else source.interrupts


async def _write(
    runtime: Runtime, question: UpdateQuestion, scope: Scope, fence: int, known: tuple[OpenInterrupt, ...]
) -> _Written | None:
    """Apply and commit; None when there is no state.

    Raises: Fenced, NotFound, Rejected, TooLarge, Unavailable, and then nothing was written.
    """
    key = thread_key(scope, question.thread_id)
    with failures(fence):
        async with runtime.checkpoints.connection() as connection, connection.transaction():
            await connection.execute(CHECK, (key, fence))
            saver = FencedSaver(connection, scope, question.thread_id, fence)
            try:
                async with asyncio.timeout(STATE_UPDATE_DEADLINE_S):
                    if question.source is not None:
                        await copy_checkpoints(connection, scope, question.source, question.thread_id)
                    return await _apply(runtime, question, saver, known)
            except TimeoutError as error:
                text = f"the graph did not apply the update within {STATE_UPDATE_DEADLINE_S:.0f} s"
                raise Rejected(text) from error


async def _apply(
    runtime: Runtime, question: UpdateQuestion, saver: FencedSaver, known: tuple[OpenInterrupt, ...]
) -> _Written | None:
    root: dict[str, Any] = {"configurable": {"thread_id": question.thread_id, "checkpoint_ns": ""}}
    config: dict[str, Any] = {
        "configurable": {**root["configurable"], **question.checkpoint, "thread_id": question.thread_id},
        "metadata": {"thread_id": question.thread_id, "graph_id": question.graph_id, "created_by": "system"},
    }
    async with (
        runtime.stores.for_graph(question.tenant) as store,
        runtime.graphs.use(question.graph_id, for_factory(config, question.configurable), saver, store) as graph,
    ):
        named: Any = {"configurable": config["configurable"]}
        if question.checkpoint.get("checkpoint_id") and await saver.aget_tuple(named) is None:
            raise NotFound("Checkpoint not found.")
        try:
            steps: Any = [[_values_of(update) for update in step] for step in question.supersteps]
            placed: Any = await graph.abulk_update_state(config, steps) if steps else root  # type: ignore[arg-type]
            snapshot = await graph.aget_state(placed)
            whole = snapshot if not placed["configurable"].get("checkpoint_ns") else await graph.aget_state(root)  # type: ignore[arg-type]
        except SlipstreamError:
            raise
        except Exception as error:  # the graph's own code refuses what it was given
            log.info("an update of thread %s was refused by its graph", question.thread_id, exc_info=for_log(error))
            said = describe_error(error)
            raise Rejected(f"{said['error']}: {said['message']}") from error
    placed = snapshot.config if not steps else placed
    if not placed["configurable"].get("checkpoint_id"):
        return None
    body = _body(question.command_id, snapshot)
    if len(body) > MESSAGE_BYTES_MAX - HEADERS_BYTES_MAX:
        raise TooLarge(f"the state would be larger than {MESSAGE_BYTES_MAX} bytes")
    namespaces = {each.id: each.namespace for each in known}
    return _Written(
        place(placed) or {}, whole is snapshot, body, bool(whole.next),
        {task.id: [interrupt_of(each) for each in task.interrupts] for task in whole.tasks if task.interrupts},
        tuple(
            OpenInterrupt(each.id, namespaces.get(each.id, ()), task.id)
            for task in whole.tasks for each in task.interrupts
        ),
    )  # fmt: skip


def _values_of(update: Update) -> StateUpdate:
    return StateUpdate(as_command(update.command) if update.command else update.values, update.as_node)  # type: ignore[arg-type]


def _body(command_id: str, snapshot: Any) -> bytes:
    """The record of a snapshot: its checkpoint, then its values, in the translator's form."""
    here, parent = place(snapshot.config) or {}, place(snapshot.parent_config)
    namespace = tuple(part for part in here["checkpoint_ns"].split("|") if part)
    metadata = snapshot.metadata or {}
    light = {"id": here["checkpoint_id"], **({"parent_id": parent["checkpoint_id"]} if parent else {}),
             "step": metadata.get("step"), "source": metadata.get("source")}  # fmt: skip
    tasks = [
        {"id": task.id, "name": task.name, "interrupts": [interrupt_of(each) for each in task.interrupts]}
        for task in snapshot.tasks
    ]
    kept = {"config": {"configurable": here}, "parent_config": {"configurable": parent} if parent else None,
            "metadata": to_plain(metadata), "next": list(snapshot.next), "tasks": tasks}  # fmt: skip
    values, patch = to_v2(to_plain(snapshot.values))
    at_ms = now_ms()
    drafts = [
        draft("checkpoints", namespace, dumps(light), at_ms, x=encode_x(c=kept, v=1)),
        draft("values", namespace, dumps(values), at_ms, x=encode_x(p=patch)),
    ]
    return assemble(drafts, command_id, 0, 1)


async def _tell(runtime: Runtime, writer: ThreadLogWriter, question: UpdateQuestion, written: _Written) -> int:
    """Append the record; the wire seq of its root values, 0 when there are none or the thread has gone on.

    Raises: Unavailable.
    """
    header, committed_fence = RecordHeader(question.command_id, 0, 1), writer.fence
    for _ in range(TELL_TRIES_MAX):
        try:
            stream_seq = await writer.append(header, written.body, outage_s=REQUEST_DEADLINE_S)
            return pack(stream_seq, 1) if written.is_root else 0
        except Fenced:
            again = await _retake(runtime, question, written.placed, committed_fence)
            if again is None:
                break
            writer = again
    log.info("thread %s: an update is not told in the thread log: the thread has gone on", question.thread_id)
    return 0


async def _retake(
    runtime: Runtime, question: UpdateQuestion, placed: dict[str, Any], committed_fence: int
) -> ThreadLogWriter | None:
    """The lease once more, for a record only; None when a run, or a later update, tells what there is to tell.

    Raises: Unavailable.
    """
    scope, thread_id = Scope(runtime.settings.region, question.tenant), question.thread_id
    lease = await leases.last(runtime.connection, scope, thread_id)
    state = (await runtime.control.head(scope, thread_id)).state
    if state is None or state.deleted or rs.is_busy(state) or state.fence > committed_fence:
        return None
    try:
        fence = await leases.take(
            runtime.publisher, scope, thread_id, runtime.holder, question.command_id, expected=lease
        )
        writer = runtime.threads.writer(scope, thread_id, fence)
        await pay_owed(runtime, writer, scope, thread_id, state.owed, settle=True)
    except (WrongSequence, Fenced):
        return runtime.threads.writer(scope, thread_id, lease)
    # Under the lease: what is committed later than this is told later than our record.
    saver = FencedSaver(runtime.checkpoints, scope, thread_id, None)
    newest = await saver.aget_tuple(
        {"configurable": {"thread_id": thread_id, "checkpoint_ns": placed["checkpoint_ns"]}}
    )
    where: dict[str, Any] = {} if newest is None else newest.config.get("configurable", {})
    return writer if where.get("checkpoint_id") == placed["checkpoint_id"] else None
