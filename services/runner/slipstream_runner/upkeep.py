"""What the API has runners do: an API may not write leases or thread logs, nor remove what is in them."""

import msgspec

from slipstream_nats import leases, rpc
from slipstream_nats.publisher import WrongSequence
from slipstream_postgres import fences
from slipstream_runner.runtime import Runtime
from slipstream_runner.settling import settle
from slipstream_runner.trimming import trim
from slipstream_schemas import subjects
from slipstream_schemas.subjects import Scope
from slipstream_schemas.upkeep import EraseThread, SettleThread, TrimLog, UpkeepQuestion

_decode = msgspec.json.Decoder(UpkeepQuestion).decode


async def serve(runtime: Runtime) -> None:
    """Answer the API's questions. Raises: Unavailable."""

    async def answer(body: bytes) -> bytes:
        asked: UpkeepQuestion = _decode(body)
        match asked:
            case SettleThread() as question:
                await settle(runtime, Scope(runtime.settings.region, question.tenant), question.thread_id)
            case EraseThread() as question:
                await erase(runtime, question)
            case TrimLog() as question:
                return b"%d" % await trim(runtime, question)
        return b"true"

    await rpc.serve(runtime.connection, subjects.upkeep_rpc(runtime.settings.region), answer, "runners")


async def erase(runtime: Runtime, question: EraseThread) -> None:
    """Erase what a deleted thread has left; doing it again changes nothing. Raises: Unavailable."""
    scope, thread_id = Scope(runtime.settings.region, question.tenant), question.thread_id
    # The lease shuts out whoever still writes; what it wrote before goes with the rest.
    fence = await _lease_of_deleted(runtime, scope, thread_id)
    if fence is None:
        return
    key = subjects.thread_key(scope, thread_id)
    await fences.advance(runtime.database, key, fence)
    await runtime.threads.erase(scope, thread_id, fence)
    await fences.forget_checkpoints(runtime.database, key, fence)


async def _lease_of_deleted(runtime: Runtime, scope: Scope, thread_id: str) -> int | None:
    """The lease of a thread that is to be erased; None when that is done, and the id perhaps another's by now."""
    while True:
        lease = await leases.last(runtime.connection, scope, thread_id)
        if not await _is_to_be_erased(runtime, scope, thread_id):
            return None
        try:
            fence = await leases.take(runtime.publisher, scope, thread_id, runtime.holder, "", expected=lease)
        except WrongSequence:
            continue
        # Under the lease once more: who erases it from here on, so that the id is free, takes it from us.
        if await _is_to_be_erased(runtime, scope, thread_id):
            return fence
        await leases.forget(runtime.connection, scope, thread_id, fence)


async def _is_to_be_erased(runtime: Runtime, scope: Scope, thread_id: str) -> bool:
    state = (await runtime.control.head(scope, thread_id)).state
    return state is not None and state.deleted and not state.erased
