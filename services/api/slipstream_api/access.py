"""What the caller of a request may touch: the user's `on` handlers asked, and their filters held against the rows.

Theory of operation. Every route asks before it acts, and a context gives out no scope before it has been asked. The
answer may be a filter on metadata. A thread that exists and does not match is answered as one that does not exist, with
the same words and the same work, so that nobody learns of it. The row is read once its projection has passed the head
of the thread's control log: a filter is never held against less than what has been decided before.
"""

from typing import Any

from slipstream_api.context import Context
from slipstream_postgres import threads as thread_rows
from slipstream_schemas.errors import Conflict, NotFound, Unavailable
from slipstream_schemas.limits import PROJECTION_WAIT_S
from slipstream_schemas.metadata_filter import MetadataFilter
from slipstream_schemas.run_state import ThreadState

NO_THREAD = "Thread not found."


async def permit(context: Context, resource: str, action: str, value: dict[str, Any]) -> MetadataFilter | None:
    """Ask whether the caller may do this; the handler may change `value`. Raises: Forbidden, Unavailable."""
    found = None
    if context.asks and context.handlers is not None:
        found = await context.handlers.permit(context.caller, resource, action, value)
    context.is_decided = True
    return found


async def thread(context: Context, thread_id: str, action: str = "read", said: dict[str, Any] | None = None) -> "Watch":
    """Check that the caller may do this to an existing thread. `said` is what else the handler learns, and may change.

    Raises: Forbidden, NotFound for a thread that is not there for the caller, Unavailable.
    """
    value = {} if said is None else said
    value["thread_id"] = thread_id
    found = await permit(context, "threads", action, value)
    await check_thread(context, thread_id, found)
    return Watch(context, thread_id, found)


async def check_thread(context: Context, thread_id: str, found: MetadataFilter | None, text: str = NO_THREAD) -> None:
    """Hold a filter against a thread. Without one nothing is looked up. Raises: NotFound, Unavailable."""
    if found is not None and not await matches(context, thread_id, found):
        raise NotFound(text)


async def matches(context: Context, thread_id: str, found: MetadataFilter) -> bool:
    """Whether the thread exists and meets the filter now. Raises: Unavailable."""
    _, known = await _look(context, thread_id, found)
    return known


async def _look(context: Context, thread_id: str, found: MetadataFilter) -> tuple[bool, bool]:
    """Whether the thread exists, and whether it exists and matches."""
    head = await context.control.head(context.scope, thread_id)
    exists = head.state is not None and not head.state.deleted
    if not await context.projected(head.stream_seq, PROJECTION_WAIT_S):
        raise Unavailable("the read model lags behind the log; try again")
    known = await thread_rows.matches(context.database, context.scope.tenant, thread_id, found)
    return exists, exists and known


async def check_new_thread(
    context: Context, thread_id: str, found: MetadataFilter | None, *, may_create: bool = True, text: str = NO_THREAD
) -> None:
    """Hold a filter against a thread that the caller may make. Raises: NotFound, Unavailable."""
    if found is None:
        return
    exists, known = await _look(context, thread_id, found)
    if not known and (exists or not may_create):
        raise NotFound(text)
    if not exists:
        context.missing.add(thread_id)


def check_still_missing(context: Context, thread_id: str, state: ThreadState | None) -> None:
    """A thread that was not there to be checked must not be there when the run is decided.

    Raises: Conflict when somebody has made it since.
    """
    if thread_id in context.missing and state is not None and not state.deleted:
        raise Conflict("Somebody has just made this thread; try again.")


class Watch:
    """Leave to stream a thread, which may not exist yet, be somebody else's, or be made anew under its id.

    A stream of a thread that is not there for the caller says nothing at all, as that of an id which nobody uses: so
    nobody learns which ids are used. When another run begins to speak, the filter is held against the thread again.
    """

    def __init__(self, context: Context, thread_id: str, found: MetadataFilter | None, *, is_open: bool = True) -> None:
        self._context, self._thread_id, self._found = context, thread_id, found
        self.is_open = is_open or found is None
        self._run_id: str | None = None
        self._checked_through = 0

    async def check(self) -> None:
        """Look whose thread it is now. Raises: Unavailable."""
        if self._found is not None:
            # A thread's log is emptied when it is deleted, so what lies in it now is what the filter is held against.
            through = await self._context.threads.last_seq(self._context.scope, self._thread_id)
            self.is_open = await matches(self._context, self._thread_id, self._found)
            self._checked_through = through

    async def lets(self, run_id: str, stream_seq: int) -> bool:
        """Whether a record of this run may be sent. Raises: Unavailable."""
        if self._found is not None and run_id != self._run_id and stream_seq > self._checked_through:
            await self.check()
        self._run_id = run_id
        return self.is_open


async def stream(context: Context, thread_id: str) -> Watch:
    """Leave to stream a thread. Raises: Forbidden, Unavailable."""
    watch = Watch(context, thread_id, await permit(context, "threads", "read", {"thread_id": thread_id}), is_open=False)
    await watch.check()
    return watch
