"""Removing what a thread log holds from before a moment, for retention.

The control log decides: a thread with a run keeps all of its log. What goes is removed first and told after, so whoever
is killed between the two is followed by one who finds nothing more to remove, and tells.
"""

from datetime import UTC, datetime

from slipstream_nats import owed
from slipstream_runner.runtime import Runtime, now_ms
from slipstream_schemas.errors import NotFound
from slipstream_schemas.ids import new_run_id
from slipstream_schemas.retention import LogTrimmed, trim_log, trimmable_through
from slipstream_schemas.subjects import Scope
from slipstream_schemas.upkeep import TrimLog


async def trim(runtime: Runtime, question: TrimLog) -> int:
    """Remove them; the seq of the transition that says so, 0 where none may go. Raises: Unavailable."""
    scope, thread_id, threads = Scope(runtime.settings.region, question.tenant), question.thread_id, runtime.threads
    before = datetime.fromtimestamp(question.before_ms / 1000, UTC)
    state = (await runtime.control.head(scope, thread_id)).state
    last = await threads.last_seq(scope, thread_id)
    through = trimmable_through(state, await threads.first_since(scope, thread_id, before), last)
    if state is None or through is None:
        return 0
    if state.owed:
        # Whoever looks for a terminal record that is gone would publish it again.
        for each in state.owed:
            if not await owed.is_published(threads, scope, thread_id, each):
                return 0
        await owed.settle(runtime.control, scope, thread_id, state.owed, now_ms())
    if through:
        await threads.trim(scope, thread_id, through)
    command_id, trimmed = new_run_id(), LogTrimmed(through, question.before_ms)
    try:
        _, seq = await runtime.control.decide(
            scope, thread_id, lambda state: trim_log(state, command_id, now_ms(), trimmed)
        )
    except NotFound:
        return 0  # It was deleted meanwhile.
    return seq
