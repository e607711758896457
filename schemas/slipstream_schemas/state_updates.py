"""Deciding on a state that a client wrote, outside of any run: what it does to the thread's folded state."""

from typing import Any

import msgspec

from slipstream_schemas import run_state as rs
from slipstream_schemas.answers import OpenInterrupt
from slipstream_schemas.errors import Conflict


class StateUpdated(msgspec.Struct, omit_defaults=True):
    """A client wrote the thread's state, outside of any run.

    `values_seq` is the wire seq of its root `values` line, 0 when there is none. `interrupts` is the row's form.
    """

    checkpoint_id: str
    thread_status: rs.ThreadStatus
    fence: int
    values_seq: int = 0
    interrupts: dict[str, Any] = {}


def update_state(
    state: rs.ThreadState | None,
    command_id: str,
    at_ms: int,
    updated: StateUpdated,
    interrupts: tuple[OpenInterrupt, ...] = (),
    settled: frozenset[str] = frozenset(),
) -> rs.Transition:
    """Record a state that was written. `settled` are the runs whose owed terminal records were published in passing.

    A run may have been created since, which will begin from this state: the thread stays busy then.
    Raises: NotFound, Conflict when a run has begun from this state already, or a later one was written.
    """
    known = rs.existing(state)
    if known.fence > updated.fence:
        raise Conflict("The thread has gone on from this state.")
    owed = tuple(owed for owed in known.owed if owed.run_id not in settled)
    after = msgspec.structs.replace(known, owed=owed, fence=updated.fence)
    if not rs.is_busy(known):
        after = msgspec.structs.replace(after, status=updated.thread_status, interrupts=interrupts)
    return rs.transition("state_updated", command_id, at_ms, after, updated)
