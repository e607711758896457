"""Taking a run: is it ours to execute, and if so, everything of the old holder is shut out first.

The order is the point: lease (the old holder's publishes are refused), fence row (its checkpoints are refused), then
the checkpoint, then `run_started` expecting the head. Any other order lets the old holder write after we have read.

A run may be queued more than once, and its items be delivered at one moment. So the lease is taken from the one that
the head names, and whoever finds it taken leaves the run to the taker, if that lives: it would else shut out an attempt
that has just begun.
"""

import asyncio
import logging

import msgspec

from slipstream_nats import leases, rpc
from slipstream_nats.controllog import Head
from slipstream_nats.publisher import WrongSequence
from slipstream_nats.stored import at_seq
from slipstream_nats.workqueue import WorkItem
from slipstream_postgres import fences
from slipstream_runner.checkpoints import FencedSaver
from slipstream_runner.recover import open_after
from slipstream_runner.runtime import Attempt, Runtime, now_ms
from slipstream_runner.settling import pay_owed, put_next, settle
from slipstream_runner.undoing import remember
from slipstream_schemas import run_state as rs
from slipstream_schemas import subjects
from slipstream_schemas.errors import Corrupt, NoResponder, Unavailable
from slipstream_schemas.limits import HOLDER_ANSWER_DEADLINE_S, HOLDER_RETURN_S
from slipstream_schemas.record import NOTHING_OPEN, OpenState

log = logging.getLogger("slipstream.runner")


class _LeaseTaken(Exception):
    """Somebody has taken the lease since."""


async def take(runtime: Runtime, item: WorkItem) -> Attempt | None:
    """Make the run ours, or finish what its work item still asks for and return None. Raises: Unavailable, Corrupt."""
    runtime.crash.reach("delivered")
    lease: int | None = None
    while True:
        head = await runtime.control.head(item.scope, item.thread_id)
        state = head.state
        if state is None or state.deleted:
            await item.ack()
            return None
        if not await _is_ours(runtime, item, state):
            return None
        try:
            return await _start(runtime, item, head, state, state.fence if lease is None else lease)
        except _LeaseTaken:
            lease, taken = await leases.newest(runtime.connection, item.scope, item.thread_id)
            if taken.run_id == item.run_id and await _holder_lives(runtime, taken.holder, lease):
                await item.nak(runtime.settings.ack_wait_s)
                return None
        except WrongSequence:
            lease = None
            log.info("run %s: its thread changed while it was taken, looking again", item.run_id)


async def _is_ours(runtime: Runtime, item: WorkItem, state: rs.ThreadState) -> bool:
    """Whether the run may execute here now; if not, the work item is answered."""
    running = state.running
    if running is not None and running.run_id == item.run_id:
        if running.holder is None or not await _holder_lives(runtime, running.holder, running.fence):
            return True
        await item.nak(runtime.settings.ack_wait_s)
        return False
    if running is None and state.pending and state.pending[0].run_id == item.run_id:
        return await _is_due(runtime, item, state)
    if any(run.run_id == item.run_id for run in state.pending):
        # It waits for a run that executes; the end of that one queues it again.
        await item.nak(runtime.settings.ack_wait_s)
        return False
    # The run is over. Whoever ended it may have died before it had paid for that.
    if running is None:
        if not await settle(runtime, item.scope, item.thread_id):
            await item.nak(runtime.settings.ack_wait_s)
            return False
        await put_next(runtime, item.scope, item.thread_id, state)
    await item.ack()
    return False


async def _is_due(runtime: Runtime, item: WorkItem, state: rs.ThreadState) -> bool:
    """Whether the time of the first run has come; if not, its work item comes back then."""
    wait_s = (state.pending[0].due_ms - now_ms()) / 1000
    if wait_s <= 0:
        return True
    if wait_s <= runtime.settings.ack_wait_s:
        await item.nak(wait_s)
    else:
        # An unanswered item takes a place in the queue; a schedule takes none.
        await runtime.work.put_next(item.scope, item.thread_id, state)
        await item.ack()
    return False


async def _holder_lives(runtime: Runtime, holder: str, fence: int) -> bool:
    """Ask the holder of a lease. Nobody there: it is dead. No answer: ask again after an ack wait, it may be paused.

    Right after an outage of the broker nobody is there yet.
    """
    subject = subjects.runner_rpc(runtime.settings.region, holder)
    question = msgspec.json.encode({"fence": fence})
    for is_last in (False, True):
        try:
            answer = await rpc.call(runtime.connection, subject, question, HOLDER_ANSWER_DEADLINE_S)
            return bool(msgspec.json.decode(answer, type=bool))
        except NoResponder:
            returns_s = HOLDER_RETURN_S - runtime.connection.up_s
            if returns_s <= 0 or is_last:
                return False
            await asyncio.sleep(returns_s)
        except Unavailable:
            if is_last:
                log.warning("the holder %s of lease %d does not answer, taking over", holder, fence)
                return False
            await asyncio.sleep(runtime.settings.ack_wait_s)
    return False


async def _start(runtime: Runtime, item: WorkItem, head: Head, state: rs.ThreadState, lease: int) -> Attempt:
    """Shut the old holder out, whose lease is `lease`, and append `run_started`.

    Raises: _LeaseTaken, WrongSequence when the head moved.
    """
    try:
        accepted, fence = await asyncio.gather(
            _created(runtime, head, state, item.run_id),
            leases.take(runtime.publisher, item.scope, item.thread_id, runtime.holder, item.run_id, expected=lease),
        )
    except WrongSequence as error:
        raise _LeaseTaken from error
    runtime.taking.add(fence)
    try:
        return await _begin(runtime, item, head, state, accepted, fence)
    except BaseException:
        # A cancel, too: whoever asks must not be told of a holder that has given up.
        runtime.taking.discard(fence)
        runtime.beginning.pop(fence, None)
        raise


async def _begin(
    runtime: Runtime, item: WorkItem, head: Head, state: rs.ThreadState, accepted: rs.Transition, fence: int
) -> Attempt:
    """Append `run_started`, under our lease. Raises: WrongSequence when the head moved."""
    created = msgspec.json.decode(accepted.payload, type=rs.RunCreated)
    runtime.crash.reach("leased")
    writer = runtime.threads.writer(item.scope, item.thread_id, fence)
    if state.owed and (await runtime.control.head(item.scope, item.thread_id)).stream_seq != head.stream_seq:
        # It may have been deleted before we had the lease, and its log be another's.
        raise WrongSequence("the thread has changed", -1)
    opened = await _left_open(runtime, item, state)
    await asyncio.gather(
        fences.advance(runtime.database, subjects.thread_key(item.scope, item.thread_id), fence),
        pay_owed(runtime, writer, item.scope, item.thread_id, state.owed, settle=False, opened=opened),
    )
    number = state.running.attempt + 1 if state.running else 1
    checkpoint_id, null_writes = None, 0
    if created.command or created.input is None:
        saver = FencedSaver(runtime.checkpoints, item.scope, item.thread_id, fence)
        checkpoint_id, null_writes = await saver.null_writes()
        begins_at = (created.checkpoint or {}).get("checkpoint_id") or checkpoint_id
        if number == 1 and begins_at is not None:
            await remember(runtime.checkpoints, item.scope, item.thread_id, item.run_id, begins_at, fence)
    started = rs.RunStarted(item.run_id, number, runtime.holder, fence, checkpoint_id, null_writes)
    transition = rs.start_run(state, f"{item.run_id}:{number}:{fence}:started", now_ms(), started)
    attempt = Attempt(
        item.scope, item.thread_id, created, number, fence, transition.state, head.stream_seq, item, writer,
        checkpoint_id, null_writes, traceparent=created.traceparent,
    )  # fmt: skip
    # From here on: a cancel may be accepted, and seen by the watch, before the log's answer to this has come.
    runtime.beginning[fence] = attempt
    await runtime.control.append_once(item.scope, item.thread_id, transition, head.stream_seq)
    runtime.crash.reach("started")
    if number == 1:
        runtime.metrics.queue_wait.observe(max(0, transition.at_ms - accepted.at_ms) / 1000)
    return attempt


async def _left_open(runtime: Runtime, item: WorkItem, state: rs.ThreadState) -> OpenState:
    """What a dead attempt left open, which its successor must find behind the ends of others that are told first."""
    if state.running is None or not state.owed:
        return NOTHING_OPEN
    last = await runtime.threads.last(item.scope, item.thread_id)
    return NOTHING_OPEN if last is None else open_after(last)


async def _created(runtime: Runtime, head: Head, state: rs.ThreadState, run_id: str) -> rs.Transition:
    """The run's `run_created`: often it is the head itself."""
    run = state.running if state.running is not None else state.pending[0]
    if head.transition is not None and run.created_seq == head.stream_seq:
        return head.transition
    stream = subjects.control_stream(runtime.settings.region)
    found = await at_seq(runtime.connection, stream, run.created_seq)
    if found is None:
        raise Corrupt(f"run {run_id}: its creation record {run.created_seq} is gone")
    return rs.decode_transition(found.body)
