"""What the API does without a request: firings of crons, ticks that did not fire, threads to delete, logs to trim.

Every instance does all of it. What a tick does is repeatable (see `crons`), so that none has to be the one.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from slipstream_api import crons, erasing, states
from slipstream_api.context import Context
from slipstream_api.retention import keep_to_bounds
from slipstream_nats.inbox import Message
from slipstream_nats.schedules import parse
from slipstream_postgres import crons as rows
from slipstream_postgres import temporary
from slipstream_schemas import run_state as rs
from slipstream_schemas.errors import Conflict, NotFound, SlipstreamError
from slipstream_schemas.limits import CRON_FIRINGS_AT_ONCE, CRON_LATE_S, CRON_SWEEP_ROWS, CRON_SWEEP_S, TEMPORARY_GONE_S

log = logging.getLogger("slipstream.crons")


@asynccontextmanager
async def scheduling(context: Context) -> AsyncIterator[None]:
    """Act in the background."""
    reconnected = asyncio.Event()
    stop_listening = context.connection.on_reconnect(reconnected.set)
    tasks = [
        asyncio.create_task(_for_ever("reading firings", lambda: _listen(context))),
        asyncio.create_task(_for_ever("sweeping crons", lambda: _sweep(context, reconnected))),
        asyncio.create_task(_for_ever("retention", lambda: keep_to_bounds(context))),
    ]
    try:
        yield
    finally:
        stop_listening()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _for_ever(what: str, act: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await act()
        except SlipstreamError as error:
            log.warning("%s: %s", what, error.message)
        except Exception:
            log.exception("%s failed", what)
        await asyncio.sleep(CRON_SWEEP_S)


async def _listen(context: Context) -> None:
    async with context.schedules.firings() as firings:
        async for batch in firings:
            for start in range(0, len(batch), CRON_FIRINGS_AT_ONCE):
                some = batch[start : start + CRON_FIRINGS_AT_ONCE]
                await asyncio.gather(*(_on_firing(context, message) for message in some))


async def _on_firing(context: Context, message: Message) -> None:
    try:
        firing = parse(message)
        if firing.scope.region == context.settings.region:
            await crons.fire(context.by_itself(firing.scope.tenant), firing.cron_id, firing.due_ms)
            await context.schedules.done(firing)
    except SlipstreamError as error:
        # The row still names the tick, and the sweep finds it.
        log.warning("a firing on %s waits for the sweep: %s", message.subject, error.message)
    except Exception:
        # One cron must not keep the others from their time.
        log.exception("a firing on %s failed", message.subject)


async def _make_up_for(context: Context, tenant: str, row: rows.CronRow) -> None:
    due_ms = rows.due_ms(row)
    try:
        if due_ms is not None:
            await crons.fire(context.by_itself(tenant), row.cron_id, due_ms)
    except SlipstreamError as error:
        log.warning("cron %s is overdue and stays so for now: %s", row.cron_id, error.message)
    except Exception:
        log.exception("cron %s is overdue and failed", row.cron_id)


async def _delete_threads(context: Context) -> None:
    """Delete the threads whose time is over. One that cannot be deleted holds up no other."""
    for tenant, thread_id in await temporary.due(context.database, CRON_SWEEP_ROWS):
        try:
            await _delete_if_due(context.by_itself(tenant), thread_id)
        except NotFound:
            await temporary.forget(context.database, tenant, thread_id)
        except SlipstreamError as error:
            log.warning("thread %s is not deleted for now: %s", thread_id, error.message)
    await erasing.finish_deletions(context)
    for tenant, thread_id in await temporary.gone(context.database, TEMPORARY_GONE_S, CRON_SWEEP_ROWS):
        await temporary.forget(context.database, tenant, thread_id)


async def _delete_if_due(context: Context, thread_id: str) -> None:
    """Delete a thread whose rows say that its time is over, unless its log says that it was used since.

    Raises: NotFound, Conflict when that was just now, Unavailable, Corrupt.
    """
    head = await context.control.head(context.scope, thread_id)
    # Rows that lag are waited for by the next sweep.
    if not await context.projected(head.stream_seq, 0):
        return
    if head.state is not None and not await temporary.is_due(context.database, context.scope.tenant, thread_id):
        return

    def check(state: rs.ThreadState | None) -> None:
        if state != head.state:
            raise Conflict("The thread is in use.")

    await erasing.delete_thread(context, thread_id, check)


async def _prune_threads(context: Context) -> None:
    """Take the older checkpoints of threads whose ttl says so. One that cannot be pruned holds up no other."""
    for tenant, thread_id in await temporary.to_prune(context.database, CRON_SWEEP_ROWS):
        try:
            done = await states.keep_latest(context.by_itself(tenant), thread_id)
        except SlipstreamError as error:
            log.warning("thread %s is not pruned for now: %s", thread_id, error.message)
            done = False
        await temporary.pruned(context.database, tenant, thread_id, done=done)


async def _sweep(context: Context, reconnected: asyncio.Event) -> None:
    while True:
        reconnected.clear()
        for tenant, row in await rows.overdue(context.database, CRON_LATE_S, CRON_SWEEP_ROWS):
            await _make_up_for(context, tenant, row)
        await _delete_threads(context)
        await _prune_threads(context)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CRON_SWEEP_S):
                await reconnected.wait()
