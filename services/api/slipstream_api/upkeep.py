"""What the API has a runner do: what takes a lease, or removes records of a thread log (ADR 31)."""

import logging
from datetime import datetime

import msgspec

from slipstream_api.context import Context
from slipstream_nats import rpc
from slipstream_schemas import subjects
from slipstream_schemas.errors import NoResponder, SlipstreamError, Unavailable
from slipstream_schemas.limits import ERASE_DEADLINE_S
from slipstream_schemas.upkeep import EraseThread, SettleThread, TrimLog, UpkeepQuestion

log = logging.getLogger("slipstream.api")


async def _ask(context: Context, question: UpkeepQuestion) -> bytes:
    subject = subjects.upkeep_rpc(context.settings.region)
    try:
        return await rpc.call(context.connection, subject, msgspec.json.encode(question), ERASE_DEADLINE_S)
    except NoResponder as error:
        raise Unavailable("no runner is up") from error


async def settle(context: Context, thread_id: str, run_id: str) -> None:
    """Have the terminal records of a run that never began published, by the next runner that comes at the latest.

    Raises: Unavailable when not even that can be asked.
    """
    scope = context.scope
    try:
        await _ask(context, SettleThread(scope.tenant, thread_id))
    except SlipstreamError as error:
        log.warning("the end of run %s is published later: %s", run_id, error.message)
        await context.work.put(scope, thread_id, run_id, again=":ended")


async def erase(context: Context, thread_id: str) -> None:
    """Have the log and the checkpoints of a deleted thread erased. Raises: Unavailable."""
    await _ask(context, EraseThread(context.scope.tenant, thread_id))


async def trim(context: Context, thread_id: str, before: datetime) -> int:
    """Have a thread's records from before a moment removed; the seq of what says so, 0 where none may go.

    Raises: Unavailable.
    """
    return int(await _ask(context, TrimLog(context.scope.tenant, thread_id, int(before.timestamp() * 1000))))
