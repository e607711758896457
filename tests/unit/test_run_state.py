"""The state table: what each command leads to, and what it refuses."""

import msgspec
import pytest

from slipstream_schemas import run_state as rs
from slipstream_schemas import thread_life
from slipstream_schemas.answers import OpenInterrupt
from slipstream_schemas.errors import Conflict, NoSuchInterrupt, NotFound, Unavailable
from slipstream_schemas.limits import PENDING_RUNS_MAX


def run(run_id: str, strategy: rs.Strategy = "enqueue", *, creates: bool = False) -> rs.RunCreated:
    """A run of the graph `g` on the thread `t`."""
    return rs.RunCreated(
        run_id, "t", "a", "g", strategy=strategy, thread_metadata={"made": "by run"} if creates else None
    )


def owe(pending: rs.PendingRun) -> rs.OwedTerminal:
    """An owed terminal record whose body names its run."""
    return rs.OwedTerminal(pending.run_id, 0, f"end of {pending.run_id}")


def created(*runs: rs.RunCreated) -> rs.ThreadState:
    """The state after these runs were created on a new thread."""
    state = thread_life.create_thread(None, "t", "c", 1, rs.ThreadCreated()).state
    for number, each in enumerate(runs, start=2):
        state = rs.resolve(rs.create_run(state, f"c{number}", number, each, owe=owe).state, number)
    return state


def started(state: rs.ThreadState, run_id: str, attempt: int = 1, holder: str = "h1", fence: int = 9) -> rs.ThreadState:
    """The state after an attempt began."""
    return rs.start_run(state, "s", 5, rs.RunStarted(run_id, attempt, holder, fence)).state


def ended(state: rs.ThreadState, run_id: str, attempt: int = 1) -> rs.ThreadState:
    """The state after the run succeeded."""
    return rs.end_run(
        state, "e", 6, rs.RunEnded(run_id, attempt, "success", "idle"), rs.OwedTerminal(run_id, 3, "bytes")
    ).state


def test_a_thread_is_created_once() -> None:
    state = created()
    assert state.status == "idle"
    with pytest.raises(Conflict):
        thread_life.create_thread(state, "t", "c", 1, rs.ThreadCreated())


def test_a_deleted_thread_can_be_created_again_and_knows_nothing() -> None:
    state = thread_life.delete_thread(created(run("r1")), "d", 3).state
    assert state == rs.ThreadState("t", deleted=True)
    with pytest.raises(NotFound):
        thread_life.patch_thread(state, "p", 4, rs.ThreadPatched())
    with pytest.raises(Unavailable):
        thread_life.create_thread(state, "t", "c", 5, rs.ThreadCreated())
    with pytest.raises(Unavailable):
        rs.create_run(state, "c", 5, run("r2", creates=True))
    erased = thread_life.erase_thread(state, "e", 5).state
    assert erased == rs.ThreadState("t", deleted=True, erased=True)
    for other in (None, created(), erased):
        with pytest.raises(Conflict):
            thread_life.erase_thread(other, "e", 6)
    assert thread_life.create_thread(erased, "t", "c", 6, rs.ThreadCreated()).state == rs.ThreadState("t")
    assert rs.create_run(erased, "c", 6, run("r2", creates=True)).state.status == "busy"


def test_a_run_on_a_missing_thread_needs_leave_to_create_it() -> None:
    with pytest.raises(NotFound):
        rs.create_run(None, "c", 1, run("r1"))
    assert rs.create_run(None, "c", 1, run("r1", creates=True)).state.status == "busy"


def test_the_seq_of_a_fresh_run_is_that_of_its_own_record() -> None:
    state = rs.create_run(created(), "c", 1, run("r1")).state
    assert state.pending[0].created_seq == 0
    assert rs.resolve(state, 77).pending[0].created_seq == 77


def test_runs_wait_in_the_order_of_their_creation() -> None:
    state = started(created(run("r1"), run("r2"), run("r3")), "r1")
    assert [p.run_id for p in state.pending] == ["r2", "r3"]
    with pytest.raises(Conflict):
        started(ended(state, "r1"), "r3")
    assert started(ended(state, "r1"), "r2").running == rs.RunningRun("r2", 3, "g", 1, "h1", 9)


def test_reject_refuses_a_busy_thread() -> None:
    with pytest.raises(Conflict):
        rs.create_run(created(run("r1")), "c", 3, run("r2", "reject"))
    assert rs.create_run(created(), "c", 3, run("r2", "reject")).state.pending[0].run_id == "r2"


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
def test_interrupt_and_rollback_supersede_what_is_in_flight(strategy: rs.Strategy) -> None:
    state = started(created(run("r1"), run("r2")), "r1")
    after = rs.create_run(state, "c", 7, run("r3", strategy), owe=owe)
    payload = msgspec.json.decode(after.payload, type=rs.RunCreated)
    assert payload.supersedes == ("r1", "r2")
    assert after.state.running is not None and after.state.running.cancel == strategy
    assert [p.run_id for p in after.state.pending] == ["r3"]
    assert [o.run_id for o in after.state.owed] == ["r2"]


def test_the_queue_is_bounded() -> None:
    state = created(*(run(f"r{n}") for n in range(PENDING_RUNS_MAX)))
    with pytest.raises(Conflict, match=str(PENDING_RUNS_MAX)):
        rs.create_run(state, "c", 1, run("one-more"))


def test_only_a_vanished_holder_counts_as_a_crash() -> None:
    state = started(created(run("r1")), "r1")
    crashed = started(state, "r1", attempt=2, holder="h2", fence=10)
    assert crashed.running is not None and (crashed.running.crashes, crashed.running.attempt) == (1, 2)
    released = rs.release_run(crashed, "l", 8, rs.RunReleased("r1", 2)).state
    again = started(released, "r1", attempt=3, holder="h3", fence=11)
    assert again.running is not None and (again.running.crashes, again.running.holder) == (1, "h3")


def test_an_old_attempt_can_neither_end_nor_release() -> None:
    state = started(started(created(run("r1")), "r1"), "r1", attempt=2, holder="h2")
    with pytest.raises(Conflict):
        ended(state, "r1", attempt=1)
    with pytest.raises(Conflict):
        rs.release_run(state, "l", 8, rs.RunReleased("r1", 1))


def test_the_terminal_record_is_owed_until_the_next_attempt_or_a_settlement() -> None:
    state = ended(started(created(run("r1")), "r1"), "r1")
    assert [o.run_id for o in state.owed] == ["r1"] and state.status == "idle"
    assert rs.settle(state, "x", 9, frozenset({"r1"})).state.owed == ()
    busy = rs.create_run(state, "c", 9, run("r2")).state
    assert [o.run_id for o in busy.owed] == ["r1"]
    assert started(busy, "r2").owed == ()


def test_what_a_cancelled_successor_owes_is_paid_behind_the_end_of_the_run_that_executes() -> None:
    state = started(created(run("r1"), run("r2")), "r1")
    cancelled = rs.request_cancel(state, "x", 7, "r2", "interrupt", owe(state.pending[0])).state
    assert cancelled.pending == () and [o.run_id for o in cancelled.owed] == ["r2"]
    own, ended_run = rs.OwedTerminal("r1", 3, "b"), rs.RunEnded("r1", 1, "success", "idle")
    rolled = rs.roll_back_run(cancelled, "e", 8, "r1", 1, own)
    for after in (rs.end_run(cancelled, "e", 8, ended_run, own), rolled):
        assert [(o.run_id, o.after_stream_seq) for o in after.state.owed] == [("r1", 3), ("r2", 3)]


def test_cancel_marks_a_running_run_and_refuses_an_unknown_one() -> None:
    state = started(created(run("r1")), "r1")
    after = rs.request_cancel(state, "x", 7, "r1", "interrupt", None).state
    assert after.running is not None and after.running.cancel == "interrupt"
    with pytest.raises(NotFound):
        rs.request_cancel(state, "x", 7, "other", "interrupt", None)


def test_one_of_many_answers_wins() -> None:
    waiting = OpenInterrupt("i1", ("sub:1",), "task")
    state = started(created(run("r1")), "r1")
    state = rs.end_run(
        state, "e", 6, rs.RunEnded("r1", 1, "success", "interrupted"), rs.OwedTerminal("r1", 3, "b"), (waiting,)
    ).state
    assert state.status == "interrupted"
    for elsewhere in (("sub:2",), ("sub:1", "below"), ("sub",)):
        with pytest.raises(NoSuchInterrupt):
            rs.create_run(state, "c", 7, run("r2"), answers=(OpenInterrupt("i1", elsewhere),))
    from_above = rs.create_run(state, "c", 7, run("r2"), answers=(OpenInterrupt("i1"),)).state
    assert from_above.interrupts == ()
    won = rs.create_run(state, "c", 7, run("r2"), answers=(waiting,)).state
    assert won.interrupts == ()
    with pytest.raises(NoSuchInterrupt):
        rs.create_run(won, "c", 8, run("r3"), answers=(waiting,))


def asked(*interrupts: OpenInterrupt) -> rs.ThreadState:
    """A thread whose run has asked."""
    state = started(created(run("r1")), "r1")
    ended = rs.RunEnded("r1", 1, "success", "interrupted")
    return rs.end_run(state, "e", 6, ended, rs.OwedTerminal("r1", 3, "b"), interrupts).state


def test_an_answer_that_no_graph_will_see_leaves_its_question_open() -> None:
    one, two = OpenInterrupt("i1", (), "t1"), OpenInterrupt("i2", ("sub:1",), "t2")
    answered = rs.resolve(rs.create_run(asked(one, two), "c", 7, run("r2"), answers=(OpenInterrupt("i1"),)).state, 7)
    assert answered.interrupts == (two,)
    cancelled = rs.request_cancel(answered, "x", 8, "r2", "interrupt", owe(answered.pending[0])).state
    assert (set(cancelled.interrupts), cancelled.status) == ({one, two}, "interrupted")
    newer = msgspec.structs.replace(run("r3"), strategy="interrupt")
    superseded = rs.create_run(answered, "x", 8, newer, owe=owe).state
    assert set(superseded.interrupts) == {one, two}


def test_a_question_that_a_waiting_run_answers_is_not_open_when_it_is_asked_again() -> None:
    one, two = OpenInterrupt("i1", (), "t1"), OpenInterrupt("i2", (), "t2")
    state = rs.create_run(asked(one, two), "c", 7, run("r2"), answers=(one,)).state
    state = rs.create_run(rs.resolve(state, 7), "c", 8, run("r3"), answers=(two,)).state
    state = started(rs.resolve(state, 8), "r2")
    ended = rs.RunEnded("r2", 1, "success", "interrupted")
    again = rs.end_run(state, "e", 9, ended, rs.OwedTerminal("r2", 3, "b"), (two,)).state
    assert again.interrupts == ()
    cancelled = rs.request_cancel(again, "x", 10, "r3", "interrupt", owe(again.pending[0])).state
    assert (cancelled.interrupts, cancelled.status) == ((two,), "interrupted")
    assert cancelled.asked_behind == state.running.fence if state.running else False


def test_a_transition_survives_its_encoding() -> None:
    transition = rs.create_run(created(), "c", 7, run("r1", creates=True))
    assert rs.decode_transition(rs.encode_transition(transition)) == transition


def later(run_id: str, due_ms: int) -> rs.RunCreated:
    """A run that starts no earlier."""
    return msgspec.structs.replace(run(run_id), due_ms=due_ms)


def test_runs_wait_in_the_order_of_the_times_from_which_they_may_start() -> None:
    state = created(later("b", 100), later("d", 200), run("a"), later("c", 100))
    state = rs.resolve(rs.create_run(state, "x", 150, run("between")).state, 150)
    assert [each.run_id for each in state.pending] == ["a", "b", "c", "between", "d"]
    assert [each.created_seq for each in state.pending] == [4, 2, 5, 150, 3]
    assert state.status == "busy"


def test_a_run_begins_when_none_executes_and_its_time_has_come() -> None:
    state = created(later("r1", 100), later("r2", 200))
    assert rs.next_run(state, 99) is None
    first = rs.next_run(state, 100)
    assert first is not None
    assert first.run_id == "r1"
    assert rs.next_run(started(state, "r1"), 300) is None
    cancelled = rs.request_cancel(state, "x", 50, "r1", "interrupt", owe(first)).state
    assert (cancelled.status, rs.next_run(cancelled, 199)) == ("busy", None)
    assert rs.next_run(created(), 300) is None
