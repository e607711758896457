"""Following the control log, so that whoever holds a thread learns what was decided about it.

Every head of a held thread is kept in its attempt: that saves the run's end a read. A cancel stops the graph; terminal
records that others came to owe are published in passing, because only the holder may write the thread log.
"""

import asyncio
import logging

import msgspec

from slipstream_nats.inbox import Message
from slipstream_nats.pull import ContinuousPull, open_pull
from slipstream_runner.runtime import Attempt, Held, Runtime
from slipstream_schemas import subjects
from slipstream_schemas.errors import Unavailable
from slipstream_schemas.limits import CONNECT_DEADLINE_S
from slipstream_schemas.run_state import decode_transition, resolve

log = logging.getLogger("slipstream.runner")

POLL_S = 0.01


async def watch(runtime: Runtime, ready: asyncio.Event) -> None:
    """Follow the region's control log for ever; `ready` is set once nothing can be missed. Raises: Corrupt."""
    region = runtime.settings.region
    stream, subject = subjects.control_stream(region), subjects.family("control", region)
    async with open_pull(runtime.connection, stream, subject, "new") as pull:
        await _until_made(pull)
        ready.set()
        async for batch in pull:
            for message in batch:
                try:
                    see(runtime.held, message)
                except msgspec.MsgspecError:
                    log.error("control record %d on %s is unreadable", message.stream_seq, message.subject)


async def _until_made(pull: ContinuousPull) -> None:
    try:
        async with asyncio.timeout(CONNECT_DEADLINE_S):
            while not pull.consumers_made:
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        raise Unavailable("JetStream makes no consumer for the control log") from error


def see(held: Held, message: Message) -> None:
    """Tell the attempt that holds the message's thread. Raises: msgspec.DecodeError."""
    where = subjects.parse(message.subject)
    attempt = held.on_thread(where.scope.tenant, where.thread_id)
    if attempt is None or message.stream_seq <= attempt.head_seq:
        return
    state = resolve(decode_transition(message.body).state, message.stream_seq)
    attempt.head_seq, attempt.state = message.stream_seq, state
    if state.deleted:
        attempt.cancel("deleted")
        return
    running = state.running
    if running is None or running.run_id != attempt.run.run_id:
        # Our own end, or a predecessor's record while we are still taking the run.
        return
    if running.attempt > attempt.number:
        attempt.cancel("fenced")
    elif running.attempt == attempt.number:
        _obey(attempt)


def _obey(attempt: Attempt) -> None:
    running = attempt.state.running
    if running is not None and running.cancel is not None:
        attempt.cancel(running.cancel)
    if attempt.owe is not None:
        for owed in attempt.state.owed:
            attempt.owe(owed)
