"""The sweep: now and then, put runs back on the queue that seem to have fallen off it.

Whoever creates, ends or cancels a run writes the decision first and acts on it second, and the broker may lose a work
item, or complete one at the word of a runner that is gone. So a run may be left without a work item, or one that is
over without its terminal event. Two searches find them, and the head of the thread's control log decides:

- runs that wait or execute, from the rows, which know them for as long as they do;
- threads that may be closing, from the control log itself, each change once, by one runner of the region.

One work item too many does no harm: its taker asks again before it acts.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from slipstream_nats import rpc
from slipstream_nats.owed import is_published
from slipstream_nats.pull import open_pull
from slipstream_postgres import positions, runs
from slipstream_runner.runtime import Attempt, Runtime, now_ms
from slipstream_schemas import run_state as rs
from slipstream_schemas import subjects
from slipstream_schemas.errors import SlipstreamError, Unavailable
from slipstream_schemas.limits import SWEEP_THREADS_MAX
from slipstream_schemas.subjects import Scope

log = logging.getLogger("slipstream.runner")

POSITION: Final = "sweep"
Held = Mapping[int, Attempt]


class _Round(msgspec.Struct, frozen=True):
    """Once through both searches: a run that both find is queued once, by its `again`."""

    older_than_s: float
    again: str


async def sweep(runtime: Runtime, held: Held) -> None:
    """Sweep for ever. `held` are the attempts of this process."""
    while True:
        await asyncio.sleep(runtime.settings.sweep_s)
        older_than_s = 3 * runtime.settings.ack_wait_s
        now = _Round(older_than_s, f":{int(time.time() / older_than_s)}")
        for search in (_sweep_unfinished, _sweep_closing):
            try:
                await search(runtime, held, now)
            except SlipstreamError as error:
                log.warning("the sweep stopped: %s", error.message)
            except Exception:
                # One that fails for good, for want of a right say, must not end the runner, whose runs it only mends.
                log.exception("the sweep failed")


def _is_held(held: Held, tenant: str, thread_id: str) -> bool:
    return any(attempt.key == (tenant, thread_id) for attempt in held.values())


async def _sweep_unfinished(runtime: Runtime, held: Held, now: _Round) -> None:
    for tenant, thread_id, run_id in await runs.unfinished(runtime.database, now.older_than_s):
        if _is_held(held, tenant, thread_id):
            continue
        scope = Scope(runtime.settings.region, tenant)
        try:
            state = (await runtime.control.head(scope, thread_id)).state
            if state is None or state.deleted or not await _is_forgotten(runtime, state, run_id):
                continue
        except SlipstreamError as error:
            # One thread that cannot be read must not keep the others from being found.
            log.warning("the sweep leaves thread %s out: %s", thread_id, error.message)
            continue
        await _queue(runtime, scope, thread_id, run_id, now)


async def _queue(runtime: Runtime, scope: Scope, thread_id: str, run_id: str, now: _Round) -> None:
    log.info("run %s seems forgotten and is queued again", run_id)
    await runtime.work.put(scope, thread_id, run_id, again=now.again)


async def _is_forgotten(runtime: Runtime, state: rs.ThreadState, run_id: str) -> bool:
    """Whether nobody executes the run, nobody else has to come first, and something is left to do for it."""
    running = state.running
    if running is not None:
        return running.run_id == run_id and not await _holder_answers(runtime, running)
    first = rs.next_run(state, now_ms())
    if first is not None:
        return first.run_id == run_id
    return any(owed.run_id == run_id for owed in state.owed)


async def _holder_answers(runtime: Runtime, running: rs.RunningRun) -> bool:
    if running.holder is None:
        return False
    subject = subjects.runner_rpc(runtime.settings.region, running.holder)
    try:
        return await rpc.call(runtime.connection, subject, b'{"fence":%d}' % running.fence) == b"true"
    except Unavailable:
        return False


async def _sweep_closing(runtime: Runtime, held: Held, now: _Round) -> None:
    """Look at each thread once more that changed, when its holder has had time to pay what the change owes."""
    while await _sweep_some(runtime, held, now):
        pass


async def _sweep_some(runtime: Runtime, held: Held, now: _Round) -> bool:
    """Look at some of those threads; whether there are more."""
    newest = await runtime.control.newest_seq(runtime.settings.region)
    async with positions.claimed(runtime.database, POSITION) as claim:
        if claim is None or claim.stream_seq >= newest:
            return False
        changed, reached = await _changed(runtime, claim.stream_seq, newest, now_ms() - int(now.older_than_s * 1000))
        for subject in [subject for subject, owes in changed.items() if owes]:
            where = subjects.parse(subject)
            if _is_held(held, where.scope.tenant, where.thread_id):
                continue
            try:
                run_id = await _owing(runtime, where.scope, where.thread_id)
            except Unavailable:
                raise
            except SlipstreamError as error:
                log.warning("the sweep leaves thread %s out: %s", where.thread_id, error.message)
                continue
            if run_id is not None:
                await _queue(runtime, where.scope, where.thread_id, run_id, now)
        claim.stream_seq = reached
    return len(changed) >= SWEEP_THREADS_MAX


async def _changed(runtime: Runtime, position: int, newest: int, before_ms: int) -> tuple[dict[str, bool], int]:
    """Some control subjects behind a position, with whether something is left to pay, and the position reached."""
    region = runtime.settings.region
    owing: dict[str, bool] = {}
    stream, family = subjects.control_stream(region), subjects.family("control", region)
    async with open_pull(runtime.connection, stream, family, position + 1, batch_records=SWEEP_THREADS_MAX) as pull:
        async for batch in pull:
            for message in batch:
                if message.timestamp_ms > before_ms or len(owing) >= SWEEP_THREADS_MAX:
                    return owing, position
                position = message.stream_seq
                owing[message.subject] = _owes(message.body)
            if position >= newest:
                break
    return owing, position


def _owes(body: bytes) -> bool:
    try:
        state = rs.decode_transition(body).state
    except msgspec.MsgspecError:
        return False
    return state.running is None and bool(state.owed or state.pending)


async def _owing(runtime: Runtime, scope: Scope, thread_id: str) -> str | None:
    """The run whose work item would pay what the thread owes; None for nothing. Raises: Unavailable, Corrupt."""
    state = (await runtime.control.head(scope, thread_id)).state
    if state is None or state.deleted or state.running is not None:
        return None
    first = rs.next_run(state, now_ms())
    if first is not None:
        return first.run_id
    for owed in state.owed:
        if not await is_published(runtime.threads, scope, thread_id, owed):
            return owed.run_id
    return None
