"""Crons: what they are, and what a tick does.

Theory of operation. The row of a cron names the tick that comes next, and the broker holds a schedule of that tick
alone. A firing that names another tick is out of date and does nothing. What a tick does is the same whoever does it
and however often: the run's id (and its thread's, where the cron has none) is derived from the cron and the tick, and
the row moves on to the next tick by a comparison that one wins. So a firing that comes twice, or to two instances,
gives one run; and a tick whose firing got lost is found by the sweep, since the row still names it. After an outage of
several ticks one run is made up for, that of the first of them.
"""

import logging
from datetime import UTC, datetime
from typing import Any

import msgspec

from slipstream_api import runs
from slipstream_api.auth.caller import caller_again
from slipstream_api.bodies import convert
from slipstream_api.context import Context
from slipstream_api.ticks import next_tick
from slipstream_postgres import crons as rows
from slipstream_postgres import runs as run_rows
from slipstream_postgres import temporary
from slipstream_postgres.crons import CronRow
from slipstream_schemas.errors import Conflict, Forbidden, NotFound, Rejected, Unavailable
from slipstream_schemas.ids import derived_id
from slipstream_schemas.limits import PROJECTION_WAIT_S

log = logging.getLogger("slipstream.crons")


def following(row: CronRow, after_ms: int) -> int | None:
    """The tick that comes next, None when there is none. Raises: InvalidArgument."""
    tick_ms = next_tick(row.schedule, row.timezone, after_ms)
    if not row.enabled or tick_ms is None or (row.end_time is not None and tick_ms > _ms(row.end_time)):
        return None
    return tick_ms


def _ms(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def shown(moment_ms: int) -> str:
    """A moment as the wire has it."""
    return datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat()


async def add(context: Context, row: CronRow) -> CronRow | None:
    """Store a new definition and let its next tick fire; None when there is one of its id, which stays.

    Raises: InvalidArgument, Unavailable.
    """
    next_ms = following(row, runs.now_ms())
    user = context.caller.shown
    caller = None if user is None else msgspec.json.encode(user)
    if not await rows.add(context.database, context.scope.tenant, row, next_ms, caller):
        return None
    return await _let_fire(context, row, next_ms)


async def change(context: Context, row: CronRow) -> CronRow | None:
    """Store a changed definition, whose `updated_at` is still as it was read, and let its next tick fire.

    None when somebody has changed or deleted it meanwhile: then nothing is stored.
    Raises: InvalidArgument, Unavailable.
    """
    next_ms = following(row, runs.now_ms())
    # Two changes in one millisecond are told apart, too.
    changed = msgspec.structs.replace(row, updated_at=shown(max(runs.now_ms(), _ms(row.updated_at) + 1)))
    if not await rows.change(context.database, context.scope.tenant, changed, next_ms, row.updated_at):
        return None
    return await _let_fire(context, changed, next_ms)


async def _let_fire(context: Context, row: CronRow, next_ms: int | None) -> CronRow:
    await _schedule(context, row.cron_id, next_ms)
    return msgspec.structs.replace(row, next_run_date=None if next_ms is None else shown(next_ms))


async def forget(context: Context, cron_id: str) -> bool:
    """Delete a cron; whether there was one. Raises: Unavailable."""
    found = await rows.delete(context.database, context.scope.tenant, cron_id)
    if found:
        await context.schedules.cancel(context.scope, cron_id)
    return found


async def _schedule(context: Context, cron_id: str, next_ms: int | None) -> None:
    if next_ms is None:
        await context.schedules.cancel(context.scope, cron_id)
    else:
        await context.schedules.put(context.scope, cron_id, next_ms)


async def fire(context: Context, cron_id: str, due_ms: int) -> None:
    """Do what a tick does; nothing when it is handled or out of date. Raises: Unavailable, then it is still due."""
    tenant = context.scope.tenant
    row = await rows.get(context.database, tenant, cron_id)
    if row is None or rows.due_ms(row) != due_ms:
        return
    try:
        await _submit(context, row, due_ms)
    except NotFound as error:
        log.warning("cron %s is disabled, since what it runs on is gone: %s", cron_id, error.message)
        row.enabled = False
        await change(context, row)
        return
    except (Rejected, Conflict, Forbidden) as error:
        log.warning("cron %s: no run for %s: %s", cron_id, shown(due_ms), error.message)
    next_ms = following(row, max(due_ms, runs.now_ms()))
    if await rows.advance(context.database, tenant, cron_id, due_ms, next_ms):
        await _schedule(context, cron_id, next_ms)


async def _submit(context: Context, row: CronRow, due_ms: int) -> None:
    """Create the tick's run, unless it exists. Raises: Rejected, Conflict, Unavailable."""
    tick = (context.scope.tenant, row.cron_id, str(due_ms))
    run_id, thread_id = derived_id("cron", *tick), row.thread_id or derived_id("cron-thread", *tick)
    if not await _was_submitted(context, row, thread_id, run_id):
        body = convert(msgspec.json.decode(row.payload), runs.RunCreate)
        asking = await _asking(context, row)
        created = await runs.resolve(asking, thread_id, body, creates_thread=row.thread_id is None)
        created.run_id, created.metadata = run_id, {**created.metadata, "cron_id": row.cron_id}
        if row.thread_id is None:
            created.thread_metadata = {**(created.thread_metadata or {}), "cron_id": row.cron_id}
        await runs.accept(context, created)
    if row.thread_id is None and row.on_run_completed != "keep":
        await temporary.remember(context.database, context.scope.tenant, thread_id, run_id)


async def _asking(context: Context, row: CronRow) -> Context:
    """The context of whoever made the cron: what their handlers say now decides about the run. Raises: Unavailable."""
    shown = await rows.caller(context.database, context.scope.tenant, row.cron_id)
    if shown is None:
        return context
    return context.in_name_of(caller_again(context.scope.tenant, msgspec.json.decode(shown)))


async def _was_submitted(context: Context, row: CronRow, thread_id: str, run_id: str) -> bool:
    """Whether somebody has created the run; then it is put to work, which that somebody may not have come to.

    Two at once find nothing here and create it both: within the broker's dedupe window that is one record.
    """
    scope = context.scope
    head = await context.control.head(scope, thread_id)
    if row.thread_id is not None:
        if not await context.projected(head.stream_seq, PROJECTION_WAIT_S):
            raise Unavailable("the read model lags behind the log; try again")
        if await run_rows.place(context.database, scope.tenant, run_id) is None:
            return False
    if head.state is not None and not head.state.deleted:
        await context.work.put_next(scope, thread_id, head.state)
    return head.stream_seq > 0


def payload_of(body: runs.RunCreate) -> dict[str, Any]:
    """A run's request as a cron keeps it."""
    asked: dict[str, Any] = msgspec.to_builtins(body)
    return {name: value for name, value in asked.items() if value is not None}
