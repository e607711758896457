"""When the newest state of a thread is that of a run which begins."""

import pytest

from slipstream_api.states import is_beginning
from slipstream_schemas import run_state as rs

RUNNING = rs.RunningRun("now", 1, "g", 1, "h", 5)
DUE = rs.PendingRun("next", 2, "g")
LATER = rs.PendingRun("next", 2, "g", due_ms=2**62)


@pytest.mark.parametrize(
    ("running", "pending", "newest_run_id", "expected"),
    [
        (None, (), None, False),
        (None, (), "now", False),
        (None, (DUE,), "before", True),
        (None, (LATER,), "before", False),
        (RUNNING, (), None, True),
        (RUNNING, (), "before", True),
        (RUNNING, (), "now", False),
        (RUNNING, (LATER,), "now", False),
        (RUNNING, (DUE,), "now", True),
    ],
)
def test_a_run_begins_until_it_has_written(
    running: rs.RunningRun | None, pending: tuple[rs.PendingRun, ...], newest_run_id: str | None, *, expected: bool
) -> None:
    state = rs.ThreadState("t", running=running, pending=pending)
    assert is_beginning(state, newest_run_id) is expected
