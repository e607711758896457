"""What retention takes from a thread log, and what it says of it in the control log.

A run that is not over keeps all of its records, however old: its streams, its next attempt and whoever answers it read
them. The last record of a thread always stays, so that a client that has seen everything finds its cursor.
"""

import msgspec

from slipstream_schemas import run_state as rs


class LogTrimmed(msgspec.Struct):
    """The thread log holds nothing up to `floor` any more, and nothing older than `before_ms` but its last record.

    `floor` is a stream_seq, `before_ms` in Unix milliseconds.
    """

    floor: int
    before_ms: int


def trimmable_through(state: rs.ThreadState | None, first_kept: int, last: int) -> int | None:
    """The stream_seq up to which records may go; None for a thread of which none may go now.

    `first_kept` is the first record that is young enough, `last` the newest one; 0 stands for none.
    """
    if state is None or state.deleted or rs.is_busy(state):
        return None
    through = min(first_kept or last, last) - 1
    if state.interrupts:
        # What was asked is still to be answered, and a client that opens the thread learns it from here.
        through = min(through, state.asked_behind)
    return max(through, state.log_floor, 0)


def trim_log(state: rs.ThreadState | None, command_id: str, at_ms: int, trimmed: LogTrimmed) -> rs.Transition:
    """Say what has been removed. Raises: NotFound."""
    known = rs.existing(state)
    after = msgspec.structs.replace(known, log_floor=max(known.log_floor, trimmed.floor))
    return rs.transition("log_trimmed", command_id, at_ms, after, trimmed)
