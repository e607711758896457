"""The sweep: now and then, put runs back on the queue that seem to have fallen off it.

Whoever creates or cancels a run writes the decision first and acts on it second, so a crash between the two leaves a
run without a work item, or a cancelled one whose terminal event nobody publishes. One work item too many does no harm:
its taker asks again before it acts.
"""

import asyncio
import logging
import time
from collections.abc import Container
from typing import Final

from slipstream_nats import rpc
from slipstream_postgres import runs
from slipstream_runner.runtime import Runtime, now_ms
from slipstream_schemas import run_state as rs
from slipstream_schemas import subjects
from slipstream_schemas.errors import SlipstreamError, Unavailable
from slipstream_schemas.subjects import Scope

log = logging.getLogger("slipstream.runner")

CANCELLED_WINDOW_S: Final = 3600.0
"""How far back cancelled runs are looked at."""


async def sweep(runtime: Runtime, held: Container[tuple[str, str]]) -> None:
    """Sweep for ever. `held` are the `(tenant, thread_id)` that this process works on."""
    while True:
        await asyncio.sleep(runtime.settings.sweep_s)
        try:
            await _sweep_once(runtime, held)
        except SlipstreamError as error:
            log.warning("the sweep stopped: %s", error.message)


async def _sweep_once(runtime: Runtime, held: Container[tuple[str, str]]) -> None:
    older_than_s = 3 * runtime.settings.ack_wait_s
    found = await runs.unfinished(runtime.database, older_than_s)
    found += await runs.cancelled_before_start(runtime.database, older_than_s, CANCELLED_WINDOW_S)
    for tenant, thread_id, run_id in found:
        if (tenant, thread_id) in held:
            continue
        scope = Scope(runtime.settings.region, tenant)
        state = (await runtime.control.head(scope, thread_id)).state
        if state is None or state.deleted or not await _is_forgotten(runtime, state, run_id):
            continue
        log.info("run %s seems forgotten and is queued again", run_id)
        await runtime.work.put(scope, thread_id, run_id, again=f":{int(time.time() / older_than_s)}")


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
