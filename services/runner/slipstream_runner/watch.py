"""Watching the control log for what concerns the runs in this process: cancels, deletes, terminal records to pay."""

import asyncio
import logging
from collections.abc import Mapping

import msgspec

from slipstream_nats.connection import Connection
from slipstream_nats.inbox import Message
from slipstream_nats.pull import open_pull
from slipstream_runner.runtime import Attempt
from slipstream_schemas import subjects
from slipstream_schemas.run_state import ThreadState, decode_transition

log = logging.getLogger("slipstream.runner")

POLL_S = 0.01


async def watch(
    connection: Connection,
    region: str,
    held: Mapping[int, Attempt],
    beginning: Mapping[int, Attempt],
    ready: asyncio.Event,
) -> None:
    """Follow the region's control log from now on, for ever. `held` and `beginning` are keyed by fence.

    `beginning` are attempts whose start may be in the log already while its answer is under way. `ready` is set once
    nothing can be missed: no run may be taken before.
    """
    stream, subject = subjects.control_stream(region), subjects.family("control", region)
    async with open_pull(connection, stream, subject, "new") as pull:
        while not pull.consumers_made:  # noqa: ASYNC110  a pull has no event for it, and this happens once
            await asyncio.sleep(POLL_S)
        ready.set()
        async for batch in pull:
            for message in batch:
                where = subjects.parse(message.subject)
                key = (where.scope.tenant, where.thread_id)
                for attempt in [each for each in (*beginning.values(), *held.values()) if each.key == key]:
                    if message.stream_seq > attempt.control_seq:
                        _concerns(attempt, message)


def _concerns(attempt: Attempt, message: Message) -> None:
    try:
        state = decode_transition(message.body).state
    except msgspec.MsgspecError:
        log.exception("record %d of %s is unreadable", message.stream_seq, message.subject)
        return
    apply_state(attempt, state)


def apply_state(attempt: Attempt, state: ThreadState) -> None:
    """Do what a new state of the thread asks of its holder."""
    if state.deleted:
        attempt.cancel("deleted")
        return
    running = state.running
    if running is None or running.run_id != attempt.run.run_id:
        return
    if running.attempt > attempt.number:
        attempt.cancel("fenced")
    elif running.cancel is not None and attempt.stop is None:
        attempt.cancel(running.cancel)
    for owed in state.owed:
        attempt.tell(owed)
