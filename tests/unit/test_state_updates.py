"""What a posted state does to the folded state of its thread."""

import pytest

from slipstream_schemas import run_state as rs
from slipstream_schemas.answers import OpenInterrupt
from slipstream_schemas.errors import Conflict, NotFound
from slipstream_schemas.state_updates import StateUpdated, update_state

WAITING = OpenInterrupt("i", ("a",), "task")
UPDATED = StateUpdated("checkpoint", "interrupted", 7)


def test_the_status_and_the_interrupts_are_the_new_states() -> None:
    state = rs.ThreadState("t", owed=(rs.OwedTerminal("r1", 3, "end"), rs.OwedTerminal("r2", 4, "end")), fence=6)
    after = update_state(state, "c", 1, UPDATED, (WAITING,), frozenset({"r1"})).state
    assert (after.status, after.interrupts, after.fence) == ("interrupted", (WAITING,), 7)
    assert [owed.run_id for owed in after.owed] == ["r2"]
    assert update_state(after, "c", 2, StateUpdated("next", "idle", 8)).state.interrupts == ()


def test_a_run_that_was_created_meanwhile_keeps_the_thread_busy() -> None:
    state = rs.ThreadState("t", "busy", pending=(rs.PendingRun("r", 4, "g"),), interrupts=(WAITING,))
    after = update_state(state, "c", 1, StateUpdated("checkpoint", "idle", 7)).state
    assert (after.status, after.pending, after.interrupts) == ("busy", state.pending, (WAITING,))


def test_an_update_that_a_run_or_another_has_gone_on_from_is_void() -> None:
    pending = rs.ThreadState("t", "busy", pending=(rs.PendingRun("r", 4, "g"),))
    running = rs.start_run(pending, "s", 1, rs.RunStarted("r", 1, "holder", 8)).state
    ended = rs.end_run(running, "e", 2, rs.RunEnded("r", 1, "success", "idle"), rs.OwedTerminal("r", 3, "end")).state
    later = update_state(rs.ThreadState("t"), "c", 3, StateUpdated("later", "idle", 8)).state
    for state in (running, ended, later):
        with pytest.raises(Conflict):
            update_state(state, "c", 4, UPDATED)


def test_a_thread_that_is_gone_takes_no_state() -> None:
    for state in (None, rs.ThreadState("t", deleted=True)):
        with pytest.raises(NotFound):
            update_state(state, "c", 1, UPDATED)
