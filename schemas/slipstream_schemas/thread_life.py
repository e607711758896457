"""Deciding on a thread itself: it is created, patched, deleted, erased. As in `run_state`, there is no I/O."""

from slipstream_schemas.errors import Conflict
from slipstream_schemas.run_state import (
    ThreadCreated,
    ThreadPatched,
    ThreadState,
    Transition,
    existing,
    is_free,
    transition,
)


def create_thread(
    state: ThreadState | None, thread_id: str, command_id: str, at_ms: int, created: ThreadCreated
) -> Transition:
    """Raises: Conflict when the thread exists, Unavailable while an earlier one of this id is being deleted."""
    if not is_free(state):
        raise Conflict(f"Thread {thread_id} already exists.")
    return transition("thread_created", command_id, at_ms, ThreadState(thread_id), created)


def patch_thread(state: ThreadState | None, command_id: str, at_ms: int, patched: ThreadPatched) -> Transition:
    """Raises: NotFound."""
    return transition("thread_patched", command_id, at_ms, existing(state), patched)


def delete_thread(state: ThreadState | None, command_id: str, at_ms: int) -> Transition:
    """Delete a thread and whatever runs on it. Raises: NotFound."""
    known = existing(state)
    return transition("thread_deleted", command_id, at_ms, ThreadState(known.thread_id, deleted=True))


def erase_thread(state: ThreadState | None, command_id: str, at_ms: int) -> Transition:
    """Say that nothing is left of a deleted thread. Raises: Conflict unless it is deleted and something was left."""
    if state is None or not state.deleted or state.erased:
        raise Conflict("The thread is not being deleted.")
    after = ThreadState(state.thread_id, deleted=True, erased=True)
    return transition("thread_erased", command_id, at_ms, after)
