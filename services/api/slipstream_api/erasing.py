"""Deleting a thread, and all that there is of it.

Theory of operation. The tombstone comes first: from then on the thread is gone for everybody. What it leaves is removed
by a runner, behind a lease that shuts out whoever still writes: its log, its checkpoints. Only then does a second
tombstone free the id. Whoever is killed on the way leaves the first tombstone, the projector keeps a row of it, and any
API takes the deletion up again; each step may be done twice.
"""

import asyncio
import logging
from collections.abc import Callable

from slipstream_api import upkeep
from slipstream_api.context import Context
from slipstream_api.runs import now_ms
from slipstream_postgres import erasures, temporary
from slipstream_schemas import run_state as rs
from slipstream_schemas import thread_life
from slipstream_schemas.errors import Conflict, SlipstreamError, Unavailable
from slipstream_schemas.ids import new_run_id
from slipstream_schemas.limits import CRON_SWEEP_ROWS

log = logging.getLogger("slipstream.erasing")


async def delete_thread(
    context: Context, thread_id: str, check: Callable[[rs.ThreadState | None], None] | None = None
) -> None:
    """Delete a thread. `check` may raise why it must stay. Raises: NotFound, Unavailable, what `check` raises."""
    command_id = new_run_id()

    def decide(state: rs.ThreadState | None) -> rs.Transition:
        if check is not None:
            check(state)
        return thread_life.delete_thread(state, command_id, now_ms())

    _, seq = await context.control.decide(context.scope, thread_id, decide)
    context.written = max(context.written, seq)
    context.crash.reach("thread_deleted")
    try:
        await erase(context, thread_id)
    except Unavailable as error:
        # The decision stands, so it is no failure; `finish_deletions` comes back to it.
        log.warning("what thread %s has left is erased later: %s", thread_id, error.message)


async def erase(context: Context, thread_id: str) -> None:
    """Remove what a deleted thread has left. Raises: Unavailable."""
    scope, command_id = context.scope, new_run_id()
    head = await context.control.head(scope, thread_id)
    if head.state is None or not head.state.deleted or head.state.erased:
        return
    await upkeep.erase(context, thread_id)
    await context.control.purge_work(scope, thread_id)
    # What users wrote goes while the first tombstone stands, so that whoever takes this up finds it.
    await context.control.purge_before(scope, thread_id, head.stream_seq)
    # The id is not free yet, so this is no ttl of a namesake's.
    await temporary.forget(context.database, scope.tenant, thread_id)
    try:
        _, seq = await context.control.decide(
            scope, thread_id, lambda state: thread_life.erase_thread(state, command_id, now_ms())
        )
    except Conflict:
        return  # Somebody else has taken the deletion up, and was first.
    context.written = max(context.written, seq)
    await context.control.purge_before(scope, thread_id, seq)


async def finish_deletions(context: Context) -> None:
    """Take up the deletions that somebody began and has not ended. Raises: Unavailable."""
    for tenant, thread_id in await erasures.unfinished(context.database, context.settings.sweep_s, CRON_SWEEP_ROWS):
        try:
            acting = context.by_itself(tenant)
            state = (await acting.control.head(acting.scope, thread_id)).state
            if state is not None and state.deleted and not state.erased:
                log.info("the deletion of thread %s was broken off and is taken up", thread_id)
                await erase(acting, thread_id)
        except SlipstreamError as error:
            log.warning("thread %s is not wholly deleted yet: %s", thread_id, error.message)
            await asyncio.sleep(0)
