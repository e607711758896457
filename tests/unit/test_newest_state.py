"""What comes next in the newest state of a thread while a run goes on."""

import msgspec
import pytest

from slipstream_api.newest_state import Newest, next_of
from slipstream_schemas import run_state as rs

NOW_MS = 1000
RUNNING = rs.RunningRun("now", 1, "g", 1, "h", 5)
DUE = rs.PendingRun("later", 2, "g", due_ms=NOW_MS)
DELAYED = rs.PendingRun("later", 2, "g", due_ms=NOW_MS + 1)
START = ["__start__"]


@pytest.mark.parametrize(
    ("running", "pending", "newest_run_id", "tasks", "expected"),
    [
        (None, (), "before", [], None),
        (None, (), "before", ["failed"], None),
        (None, (DUE,), "before", [], START),
        (None, (DELAYED,), "before", [], None),
        (RUNNING, (), None, [], START),
        (RUNNING, (), "before", [], START),
        (RUNNING, (), "before", ["failed"], START),
        (RUNNING, (), "now", [], None),
        (RUNNING, (), "now", ["one", "two"], ["one", "two"]),
        (RUNNING, (DUE,), "now", ["one"], ["one"]),
        (RUNNING, (DUE,), "now", [], START),
        (RUNNING, (DELAYED,), "now", [], None),
    ],
)
def test_what_comes_next(
    running: rs.RunningRun | None, pending: tuple[rs.PendingRun, ...], newest_run_id: str | None, tasks: list[str],
    expected: list[str] | None,
) -> None:  # fmt: skip
    thread = rs.ThreadState("t", running=running, pending=pending)
    metadata = None if newest_run_id is None else {"run_id": newest_run_id}
    newest = msgspec.convert({"next": [], "tasks": [{"name": name} for name in tasks], "metadata": metadata}, Newest)
    assert next_of(thread, newest, NOW_MS) == expected
