"""What retention may take: never what a run, a question or the cursor of an up-to-date client still needs."""

import pytest

from slipstream_schemas import run_state as rs
from slipstream_schemas.answers import OpenInterrupt
from slipstream_schemas.errors import NotFound
from slipstream_schemas.retention import LogTrimmed, trim_log, trimmable_through

IDLE = rs.ThreadState("t", fence=3)
ASKED = rs.ThreadState("t", status="interrupted", interrupts=(OpenInterrupt("i", ()),), asked_behind=12)


@pytest.mark.parametrize(
    ("state", "first_kept", "last", "through"),
    [
        (IDLE, 0, 30, 29),
        (IDLE, 20, 30, 19),
        (IDLE, 30, 30, 29),
        (IDLE, 0, 0, 0),
        (rs.ThreadState("t", log_floor=19), 0, 0, 19),
        (ASKED, 0, 30, 12),
        (ASKED, 10, 30, 9),
        (rs.ThreadState("t", running=rs.RunningRun("r", 1, "g", 1, "h", 5)), 0, 30, None),
        (rs.ThreadState("t", pending=(rs.PendingRun("r", 1, "g"),)), 0, 30, None),
        (rs.ThreadState("t", deleted=True), 0, 30, None),
        (None, 0, 30, None),
    ],
)
def test_what_may_go(state: rs.ThreadState | None, first_kept: int, last: int, through: int | None) -> None:
    assert trimmable_through(state, first_kept, last) == through


def test_the_floor_only_rises() -> None:
    once = trim_log(IDLE, "c", 1, LogTrimmed(20, 1000))
    assert once.state == rs.ThreadState("t", fence=3, log_floor=20)
    assert trim_log(once.state, "d", 2, LogTrimmed(7, 2000)).state.log_floor == 20
    with pytest.raises(NotFound):
        trim_log(rs.ThreadState("t", deleted=True), "c", 1, LogTrimmed(20, 1000))
