"""What the API has runners do: an API may not write leases or thread logs, nor remove what is in them."""

import msgspec

from slipstream_nats import leases, rpc
from slipstream_nats.publisher import WrongSequence
from slipstream_postgres import fences
from slipstream_runner.runtime import Runtime
from slipstream_runner.settling import pay_owed
from slipstream_runner.trimming import trim
from slipstream_schemas import subjects
from slipstream_schemas.errors import Fenced, Unavailable
from slipstream_schemas.subjects import Scope
from slipstream_schemas.upkeep import EraseThread, SettleThread, TrimLog, UpkeepQuestion

_decode = msgspec.json.Decoder(UpkeepQuestion).decode


async def serve(runtime: Runtime) -> None:
    """Answer the API's questions. Raises: Unavailable."""

    async def answer(body: bytes) -> bytes:
        asked: UpkeepQuestion = _decode(body)
        match asked:
            case SettleThread() as question:
                await settle(runtime, question)
            case EraseThread() as question:
                await erase(runtime, question)
            case TrimLog() as question:
                return b"%d" % await trim(runtime, question)
        return b"true"

    await rpc.serve(runtime.connection, subjects.upkeep_rpc(runtime.settings.region), answer, "runners")


async def settle(runtime: Runtime, question: SettleThread) -> None:
    """Publish what the thread owes, unless somebody holds it: a holder pays in passing. Raises: Unavailable."""
    scope, thread_id = Scope(runtime.settings.region, question.tenant), question.thread_id
    lease = await leases.last(runtime.connection, scope, thread_id)
    state = (await runtime.control.head(scope, thread_id)).state
    if state is None or not state.owed or state.running is not None:
        return
    try:
        fence = await leases.take(runtime.publisher, scope, thread_id, runtime.holder, "", expected=lease)
        writer = runtime.threads.writer(scope, thread_id, fence)
        await pay_owed(runtime, writer, scope, thread_id, state.owed, settle=True)
    except (WrongSequence, Fenced):
        return


async def erase(runtime: Runtime, question: EraseThread) -> None:
    """Erase what a deleted thread has left; doing it again changes nothing. Raises: Unavailable."""
    scope, thread_id = Scope(runtime.settings.region, question.tenant), question.thread_id
    # Another may erase it as well, and be first: then a namesake's lease, log and checkpoints are none of ours.
    lease = await leases.last(runtime.connection, scope, thread_id)
    state = (await runtime.control.head(scope, thread_id)).state
    if state is None or not state.deleted or state.erased:
        return
    try:
        # The lease shuts out whoever still writes; what it wrote before goes with the rest.
        fence = await leases.take(runtime.publisher, scope, thread_id, runtime.holder, "", expected=lease)
    except WrongSequence:
        await erase(runtime, question)
        return
    key = subjects.thread_key(scope, thread_id)
    if not await fences.advance(runtime.database, key, fence):
        raise Unavailable("somebody else erases the thread")
    await runtime.threads.erase(scope, thread_id, fence)
    await fences.forget_checkpoints(runtime.database, key, fence)
