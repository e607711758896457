"""Retention: thread logs bounded by age and by size, as the operator chose. By default they are kept for ever.

Theory of operation. The rows name threads that nobody uses and whose log holds something old, or, when all logs
together are too large, those that nobody has used for longest. A runner is asked to trim each: an API may remove
nothing. Transitions, leases, work and crons are never touched. Every instance does all of it: done twice, it does no
harm.
"""

import asyncio
import logging
import random
from datetime import UTC, datetime, timedelta

from slipstream_api import upkeep
from slipstream_api.context import Context
from slipstream_nats.figures import stream_figures
from slipstream_postgres import retention as rows
from slipstream_schemas.errors import SlipstreamError, Unavailable
from slipstream_schemas.limits import (
    REQUEST_DEADLINE_S,
    RETENTION_BATCH,
    RETENTION_QUIET_S,
    RETENTION_ROOM,
    RETENTION_STEPS,
    RETENTION_SWEEP_S,
)
from slipstream_schemas.subjects import threads_stream

log = logging.getLogger("slipstream.retention")


async def keep_to_bounds(context: Context) -> None:
    """Trim for ever, if the operator set a bound. Raises: Unavailable."""
    settings = context.settings
    if not settings.threads_age_max_s and not settings.threads_bytes_max:
        await asyncio.Event().wait()
    while True:
        # Instances should not all look at the same moment.
        await asyncio.sleep(random.uniform(0.5, 1.5) * min(RETENTION_SWEEP_S, settings.threads_age_max_s or 3600))
        if settings.threads_age_max_s:
            await trim_by_age(context, timedelta(seconds=settings.threads_age_max_s))
        if settings.threads_bytes_max:
            await trim_by_size(context, settings.threads_bytes_max)


async def trim_by_age(context: Context, age_max: timedelta, quiet_s: float = RETENTION_QUIET_S) -> int:
    """Remove what is older; returns the number of threads that were looked at. Raises: Unavailable."""
    count = 0
    while True:
        now = datetime.now(UTC)
        quiet_since = now - min(timedelta(seconds=quiet_s), age_max)
        before = now - age_max
        found = await rows.aged(context.database, quiet_since, before, age_max / RETENTION_STEPS, RETENTION_BATCH)
        written = [await _trim(context, tenant, thread_id, before) for tenant, thread_id in found]
        count += len(found)
        if not await _are_projected(context, written):
            if count:
                log.info("retention looked at %d threads for records from before %s", count, before.isoformat())
            return count


async def trim_by_size(context: Context, bytes_max: int, quiet_s: float = RETENTION_QUIET_S) -> int:
    """Remove what nobody has used for longest; returns the number of threads that were looked at.

    Raises: Unavailable.
    """
    count, target = 0, bytes_max
    stream = threads_stream(context.settings.region)
    while (size := (await stream_figures(context.connection, stream, REQUEST_DEADLINE_S)).bytes) > target:
        target = int(bytes_max * RETENTION_ROOM)
        now = datetime.now(UTC)
        found = await rows.longest_unused(context.database, now - timedelta(seconds=quiet_s), RETENTION_BATCH)
        written = [await _trim(context, tenant, thread_id, now) for tenant, thread_id in found]
        count += len(found)
        if not await _are_projected(context, written):
            log.warning("thread logs hold %d bytes, %d are allowed, and no unused thread is left to trim: raise "
                        "SLIPSTREAM_THREADS_BYTES_MAX or delete threads", size, bytes_max)  # fmt: skip
            break
    return count


async def _trim(context: Context, tenant: str, thread_id: str, before: datetime) -> int:
    """As `upkeep.trim`. A log that cannot be trimmed holds up no other. Raises: Unavailable."""
    try:
        return await upkeep.trim(context.by_itself(tenant), thread_id, before)
    except Unavailable:
        raise
    except SlipstreamError as error:
        log.warning("the log of thread %s is not trimmed for now: %s", thread_id, error.message)
        return 0


async def _are_projected(context: Context, written: list[int]) -> bool:
    """Wait until the rows say what was trimmed, so that they do not name it again; False when nothing was."""
    newest = max(written, default=0)
    return newest > 0 and await context.projected(newest, REQUEST_DEADLINE_S)
