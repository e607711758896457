"""Taking a run: is it ours to execute, and if so, everything of the old holder is shut out first.

The order is the point: lease (the old holder's publishes are refused), fence row (its checkpoints are refused), then
the checkpoint, then `run_started` expecting the head. Any other order lets the old holder write after we have read. The
head is read before the lease, which saves a round trip: whatever the old holder appends in between makes the
expectation of `run_started` fail, and everything is read again.

A delivery of a run that is held already is a suspicion, not a fact: after a broker outage every running run is delivered
again while its holder lives. So the holder is asked first.
"""

import asyncio
import logging
import time

import msgspec

from slipstream_nats import leases, rpc
from slipstream_nats.controllog import Head
from slipstream_nats.publisher import WrongSequence
from slipstream_nats.stored import at_seq
from slipstream_nats.workqueue import WorkItem
from slipstream_postgres import fences
from slipstream_runner.checkpoints import FencedSaver
from slipstream_runner.runtime import Attempt, Runtime, now_ms
from slipstream_runner.settling import pay_owed, put_next, settle
from slipstream_schemas import run_state as rs
from slipstream_schemas import subjects
from slipstream_schemas.errors import Corrupt, NoResponder, Unavailable
from slipstream_schemas.limits import HOLDER_ANSWER_DEADLINE_S, PUBLISH_DEADLINE_S

log = logging.getLogger("slipstream.runner")

RETRY_WAIT_S = 0.1
START_DEADLINE_S = 2 * PUBLISH_DEADLINE_S
FOREIGN_GRAPH_DELAY_S = 0.5
PING = b'{"question":"ping"}'


async def take(runtime: Runtime, item: WorkItem) -> Attempt | None:
    """Make the run ours, or finish what its work item still asks for and return None.

    The attempt is in `runtime.held` already. Raises: Unavailable, Fenced, Corrupt.
    """
    runtime.crash.reach("delivered")
    while True:
        head = await runtime.control.head(item.scope, item.thread_id)
        state = head.state
        if state is None or state.deleted:
            await item.ack()
            return None
        if not await _is_ours(runtime, item, state) or not await has_graph(runtime, item, state):
            return None
        attempt = await _prepare(runtime, item, head, state)
        if attempt is None:
            continue
        # Before the append: a cancel that is accepted right after it must find whom to stop.
        runtime.held.add(attempt)
        try:
            if await _append_started(runtime, attempt, state, head.stream_seq):
                runtime.crash.reach("started")
                return attempt
        except BaseException:
            runtime.held.remove(attempt)
            raise
        runtime.held.remove(attempt)
        log.info("run %s: its thread changed while it was taken, looking again", item.run_id)


async def _is_ours(runtime: Runtime, item: WorkItem, state: rs.ThreadState) -> bool:
    """Whether the run may execute here now; if not, the work item is answered."""
    running = state.running
    if running is not None and running.run_id == item.run_id:
        if running.holder is None:
            return True
        if running.holder == runtime.holder:
            # Held here: its heartbeats and its final ack reach the item under this delivery as well.
            return runtime.held.by_fence(running.fence) is None
        if not await holder_lives(runtime, running):
            return True
        await item.nak(runtime.settings.ack_wait_s)
        return False
    if running is None and state.pending and state.pending[0].run_id == item.run_id:
        return True
    if any(run.run_id == item.run_id for run in state.pending):
        # It waits for a run that executes; the end of that one queues it again.
        await item.nak(runtime.settings.ack_wait_s)
        return False
    # The run is over. Whoever ended it may have died before it had paid for that.
    if running is None:
        if state.owed:
            fence = await leases.take(runtime.publisher, item.scope, item.thread_id, runtime.holder, item.run_id)
            writer = runtime.threads.writer(item.scope, item.thread_id, fence)
            await pay_owed(runtime, writer, item.scope, item.thread_id, state.owed)
            await settle(runtime, item.scope, item.thread_id, state.owed)
        await put_next(runtime, item.scope, item.thread_id, state)
    await item.ack()
    return False


async def has_graph(runtime: Runtime, item: WorkItem, state: rs.ThreadState) -> bool:
    """Whether to take the run here: we have its graph, or nobody has; another runner's run goes back to the queue."""
    graph_id = (state.running or state.pending[0]).graph_id
    if graph_id in runtime.graphs:
        return True
    try:
        subject = subjects.graph_rpc(runtime.settings.region, graph_id)
        await rpc.call(runtime.connection, subject, PING, HOLDER_ANSWER_DEADLINE_S)
    except NoResponder:
        # Its runner may be restarting: it gets the time after which it would count as dead.
        first_s = runtime.missing.setdefault(item.run_id, time.monotonic())
        if time.monotonic() - first_s >= runtime.settings.ack_wait_s:
            del runtime.missing[item.run_id]
            return True
    except Unavailable:
        pass  # Somebody has it, and is busy.
    await item.nak(FOREIGN_GRAPH_DELAY_S)
    return False


async def holder_lives(runtime: Runtime, running: rs.RunningRun) -> bool:
    """Ask the holder. Nobody there: it is dead. No answer: ask once more after an ack wait, it may be paused."""
    subject = subjects.runner_rpc(runtime.settings.region, running.holder or "")
    question = msgspec.json.encode({"fence": running.fence})
    for is_last in (False, True):
        try:
            answer = await rpc.call(runtime.connection, subject, question, HOLDER_ANSWER_DEADLINE_S)
            return bool(msgspec.json.decode(answer, type=bool))
        except NoResponder:
            return False
        except Unavailable:
            if is_last:
                log.warning("run %s: its holder %s does not answer, taking over", running.run_id, running.holder)
                return False
            await asyncio.sleep(runtime.settings.ack_wait_s)
    return False


async def _prepare(runtime: Runtime, item: WorkItem, head: Head, state: rs.ThreadState) -> Attempt | None:
    """Shut the old holder out and read what it left; None when somebody took a later lease meanwhile."""
    scope, thread_id = item.scope, item.thread_id
    created, fence = await asyncio.gather(
        _created(runtime, head, state, item.run_id),
        leases.take(runtime.publisher, scope, thread_id, runtime.holder, item.run_id),
    )
    runtime.crash.reach("leased")
    writer = runtime.threads.writer(scope, thread_id, fence)
    is_newest, _ = await asyncio.gather(
        fences.advance(runtime.database, subjects.thread_key(scope, thread_id), fence),
        pay_owed(runtime, writer, scope, thread_id, state.owed),
    )
    if not is_newest:
        return None
    number = state.running.attempt + 1 if state.running else 1
    attempt = Attempt(scope, thread_id, created, number, fence, state, 0, item, writer)
    if created.command or number > 1:
        saver = FencedSaver(runtime.checkpoints, scope, thread_id, fence)
        root = await saver.root()
        attempt.checkpoint_id, attempt.null_writes = root.checkpoint_id, root.null_writes
        attempt.is_stored = root.run_id == created.run_id
    return attempt


async def _append_started(runtime: Runtime, attempt: Attempt, state: rs.ThreadState, head_seq: int) -> bool:
    """Append `run_started` behind the head that was read; False when the head has moved."""
    run_id = attempt.run.run_id
    started = rs.RunStarted(
        run_id, attempt.number, runtime.holder, attempt.fence, attempt.checkpoint_id, attempt.null_writes
    )
    transition = rs.start_run(state, f"{run_id}:{attempt.number}:{attempt.fence}:started", now_ms(), started)
    end = time.monotonic() + START_DEADLINE_S
    while True:
        try:
            stream_seq = await runtime.control.append(attempt.scope, attempt.thread_id, transition, head_seq)
        except WrongSequence:
            return False
        except Unavailable:
            # A repeat that was stored the first time is recognised by its id.
            if time.monotonic() > end:
                raise
            await asyncio.sleep(RETRY_WAIT_S)
        else:
            if stream_seq >= attempt.head_seq:
                attempt.head_seq, attempt.state = stream_seq, transition.state
            return True


async def _created(runtime: Runtime, head: Head, state: rs.ThreadState, run_id: str) -> rs.RunCreated:
    """The `run_created` payload: often it is the head itself. Raises: Unavailable, Corrupt."""
    run = state.running if state.running is not None else state.pending[0]
    if head.transition is not None and run.created_seq == head.stream_seq:
        return msgspec.json.decode(head.transition.payload, type=rs.RunCreated)
    stream = subjects.control_stream(runtime.settings.region)
    found = await at_seq(runtime.connection, stream, run.created_seq)
    if found is None:
        raise Corrupt(f"run {run_id}: its creation record {run.created_seq} is gone")
    return msgspec.json.decode(rs.decode_transition(found.body).payload, type=rs.RunCreated)
