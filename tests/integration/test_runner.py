"""A runner process on a real log: what it makes of runs, and what becomes of them when it is disturbed."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from slipstream_nats.connection import Connection, connect
from slipstream_nats.controllog import ControlLog
from slipstream_nats.provision import StreamSettings
from slipstream_nats.publisher import open_publisher
from slipstream_nats.stored import next_of_subject
from slipstream_nats.threadlog import ThreadLog
from slipstream_nats.workqueue import WorkQueue
from slipstream_schemas import run_state as rs
from slipstream_schemas import subjects
from slipstream_schemas.ids import new_run_id
from slipstream_schemas.lines import LineView, decode_line
from slipstream_schemas.record import Record
from slipstream_schemas.subjects import Scope
from slipstream_schemas.terminal import terminal_body
from testkit.servers import NatsServer
from testkit.service import Service
from testkit.stack import Stack, prepare
from testkit.wait import until

ACK_WAIT_S = 2.0
SLOW_S = 8.0
"""Longer than a delivery is waited for."""
OUTAGE_ACK_WAIT_S = 10
"""What the work consumer is provisioned with."""
GRAPHS = """
import asyncio, operator, time
from typing import Annotated, TypedDict
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

class State(TypedDict, total=False):
    steps: Annotated[list[str], operator.add]

def made(**nodes):
    graph = StateGraph(State)
    before = START
    for name, node in nodes.items():
        graph.add_node(name, node)
        graph.add_edge(before, name)
        before = name
    return graph.compile()

async def one(state): return {"steps": ["one"]}
async def fail(state): raise ValueError("boom")
async def ask(state): return {"steps": [interrupt("sure?")]}
async def slow(state):
    await asyncio.sleep(SLOW_S)
    return {"steps": ["slow"]}
async def ask_nobody(state): return {"steps": ["first"]}
async def endless(state): await asyncio.sleep(600)
async def blocking(state): time.sleep(600)
def stuck(state): time.sleep(600)
async def tick(state):
    for number in range(200):
        get_stream_writer()({"tick": number})
        await asyncio.sleep(0.2)

def choose(state):
    get_stream_writer()({"at": "the edge"})
    time.sleep(3)  # The window in which the runner is stopped: a path function that blocks its thread.
    return "one"

chooses = StateGraph(State)
chooses.add_node("first", ask_nobody).add_node("one", one).add_edge(START, "first")
chooses = chooses.add_conditional_edges("first", choose, ["one"]).compile()

ok, bad, asks = made(one=one), made(fail=fail), made(ask=ask)
lasting, hangs, blocks = made(one=one, slow=slow), made(one=one, endless=endless), made(blocking=blocking)
sticks, ticks = made(one=one, stuck=stuck), made(one=one, tick=tick)
""".replace("SLOW_S", str(SLOW_S))


class Rig:
    """A region, its logs, and runners that the test starts."""

    def __init__(
        self, stack: Stack, connection: Connection, control: ControlLog, log: ThreadLog, work: WorkQueue
    ) -> None:
        self.stack, self.connection, self.control, self.log, self.work = stack, connection, control, log, work
        self.scope = Scope(region=stack.region)

    def settings(self, **chosen: str) -> dict[str, str]:
        """What a runner of this rig is started with."""
        return {"slipstream_ack_wait_s": str(ACK_WAIT_S), "slipstream_sweep_s": "3600", **chosen}

    async def runner(self, **settings: str) -> Service:
        """A runner that is ready."""
        return await self.stack.spawn_runner(**self.settings(**settings)).ready()

    async def start(self, graph_id: str, thread_id: str = "t", *, queued: bool = True, **created: Any) -> str:
        """Create a run; it is queued if it may execute."""
        run = rs.RunCreated(new_run_id(), thread_id, "a", graph_id, input={"steps": ["in"]}, thread_metadata={})
        run = msgspec.structs.replace(run, **created)
        decided, _ = await self.control.decide(
            self.scope, thread_id, lambda state: rs.create_run(state, run.run_id, 1, run, owe=_owe)
        )
        if queued and decided.state.running is None and decided.state.pending[0].run_id == run.run_id:
            await self.work.put(self.scope, thread_id, run.run_id)
        return run.run_id

    async def cancel(self, run_id: str, action: rs.CancelAction = "interrupt") -> None:
        """Ask for a stop."""
        owed = _owe(rs.PendingRun(run_id, 1, "g"))
        await self.control.decide(
            self.scope, "t", lambda state: rs.request_cancel(state, f"c{run_id}", 1, run_id, action, owed)
        )

    async def state(self, thread_id: str = "t") -> rs.ThreadState:
        """The folded head."""
        found = (await self.control.head(self.scope, thread_id)).state
        assert found is not None
        return found

    async def lines(self, thread_id: str = "t") -> list[LineView]:
        """Every line of a thread log so far, as who follows the thread is told."""
        records = await self.records(thread_id)
        return [decode_line(line) for record in records if not record.header.is_ahead for line in record.lines]

    async def records(self, thread_id: str = "t") -> list[Record]:
        """The thread log so far."""
        out: list[Record] = []
        record = await self.log.next(self.scope, thread_id, 1)
        while record is not None:
            out.append(record)
            record = await self.log.next(self.scope, thread_id, record.stream_seq + 1)
        return out

    async def roots(self, run_id: str, thread_id: str = "t") -> list[str]:
        """What the root lifecycle of a run said."""
        return [v.data["event"] for v in await self.lines(thread_id) if v.event_id.startswith(f"synth:{run_id}:")]

    async def running(self) -> rs.RunningRun:
        """The run that executes, once there is output of its first node."""

        async def spoke() -> bool:
            return any(view.method == "updates" for view in await self.lines())

        await until(spoke, what="a run executes")
        running = (await self.state()).running
        assert running is not None
        return running

    async def ended(self, run_id: str, deadline_s: float = 40.0) -> rs.RunEnded:
        """How a run ended, once its terminal line is in the thread log."""

        async def found() -> bool:
            return any(each in ("completed", "failed", "interrupted") for each in await self.roots(run_id))

        await until(found, deadline_s, what=f"run {run_id} ends")
        for transition in await self.transitions():
            if transition.name == "run_ended":
                ended = msgspec.json.decode(transition.payload, type=rs.RunEnded)
                if ended.run_id == run_id:
                    return ended
        raise AssertionError("a terminal line without run_ended")

    async def transitions(self) -> list[rs.Transition]:
        """The control log."""
        stream, subject = subjects.control_stream(self.scope.region), subjects.control(self.scope, "t")
        out: list[rs.Transition] = []
        found = await next_of_subject(self.connection, stream, subject, 1)
        while found is not None:
            out.append(rs.decode_transition(found.body))
            found = await next_of_subject(self.connection, stream, subject, found.stream_seq + 1)
        return out

    async def attempts(self) -> int:
        """How many attempts began."""
        return sum(each.name == "run_started" for each in await self.transitions())


def _owe(run: rs.PendingRun) -> rs.OwedTerminal:
    body = terminal_body(run.run_id, "interrupted", 1, graph_name=run.graph_id, run_status="interrupted")
    return rs.OwedTerminal(run.run_id, run.log_seq, body.decode())


async def opened_rig(stack: Stack, nats_url: str, folder: Path) -> Rig:
    """A rig on the graphs above."""
    (folder / "agent.py").write_text(GRAPHS)
    names = ("ok", "bad", "asks", "lasting", "hangs", "blocks", "sticks", "ticks", "chooses")
    stack.config = folder / "langgraph.json"
    stack.config.write_bytes(msgspec.json.encode({"graphs": {name: f"./agent.py:{name}" for name in names}}))
    connection = await connect(nats_url, "rig")
    publisher = await open_publisher(connection)
    return Rig(
        stack, connection, ControlLog(connection, publisher, stack.region),
        ThreadLog(connection, publisher, stack.region), WorkQueue(publisher, stack.region),
    )  # fmt: skip


@pytest.fixture
async def rig(nats_server: NatsServer, database_dsn: str, region: str, tmp_path: Path) -> AsyncIterator[Rig]:
    """One whose queue soon takes a runner for dead."""
    with Stack(nats_server.url, database_dsn, region, tmp_path / "stack") as stack:
        await prepare(stack.nats_url, stack.dsn, region, StreamSettings(ack_wait_s=ACK_WAIT_S))
        opened = await opened_rig(stack, nats_server.url, tmp_path)
        yield opened
        await opened.connection.close()
        assert not stack.refusals()


async def test_success_error_interrupt_and_resume(rig: Rig) -> None:
    await rig.runner()
    good = await rig.start("ok")
    ended = await rig.ended(good)
    assert (ended.status, ended.thread_status) == ("success", "idle")
    record = await rig.log.get(rig.scope, "t", ended.values_seq >> 8)
    assert record is not None
    assert decode_line(record.lines[ended.values_seq & 255]).data == {"steps": ["in", "one"]}
    assert await rig.roots(good) == ["running", "completed"]

    bad = await rig.start("bad")
    ended = await rig.ended(bad)
    assert (ended.status, ended.thread_status) == ("error", "error")
    assert ended.error == {"error": "ValueError", "message": "boom"}

    asks = await rig.start("asks")
    ended = await rig.ended(asks)
    assert (ended.status, ended.thread_status) == ("success", "interrupted")
    assert [view.data["value"] for view in await rig.lines() if view.method == "input.requested"] == ["sure?"]
    assert (await rig.roots(asks))[-1] == "interrupted"
    (waiting,) = (await rig.state()).interrupts
    again = await rig.start("asks", input=None, command={"resume": {waiting.id: "yes"}})
    ended = await rig.ended(again)
    assert (ended.status, ended.thread_status) == ("success", "idle")
    assert [v.data for v in await rig.lines() if v.method == "values"][-1]["steps"][-1] == "yes"
    assert (await rig.state()).interrupts == ()


async def test_cancel_while_running_and_while_pending(rig: Rig) -> None:
    await rig.runner()
    first = await rig.start("hangs")
    await rig.running()
    second = await rig.start("ok")
    third = await rig.start("ok")
    await rig.cancel(second)
    await until(lambda: _is_told_ahead(rig, second), what="who waits for the run cancelled while pending is told")
    assert await rig.roots(second) == []
    await rig.cancel(first)
    assert (await rig.ended(first)).status == "interrupted"
    assert (await rig.ended(third)).status == "success"
    ends = [view.event_id for view in await rig.lines() if view.event_id.endswith("||interrupted")]
    assert ends == [f"synth:{run_id}:lc||interrupted" for run_id in (first, second)]


async def _is_told_ahead(rig: Rig, run_id: str) -> bool:
    return any(each.header.is_ahead and each.header.run_id == run_id for each in await rig.records())


async def test_rollback_leaves_no_checkpoints(rig: Rig, database_dsn: str) -> None:
    await rig.runner()
    run_id = await rig.start("hangs")
    await rig.running()
    await rig.cancel(run_id, "rollback")
    await until(lambda: _has_end(rig, run_id), what="the rolled back run has a terminal line")
    with psycopg.connect(database_dsn) as opened:
        assert opened.execute("select count(*) from checkpoints").fetchone() == (0,)


async def _has_end(rig: Rig, run_id: str) -> bool:
    return (await rig.roots(run_id))[-1:] == ["interrupted"]


async def test_redelivery_to_the_living_holder_begins_no_second_attempt(rig: Rig) -> None:
    """Twice: the first redelivery must not make the runner forget what it holds."""
    runner = await rig.runner()
    run_id = await rig.start("lasting")
    await rig.running()
    for number in range(3):
        await rig.work.put(rig.scope, "t", run_id, again=f":again{number}")
    assert (await rig.ended(run_id)).attempt == 1
    assert await rig.attempts() == 1
    assert runner.is_alive


async def test_a_killed_holder_is_taken_over(rig: Rig) -> None:
    first = await rig.runner()
    run_id = await rig.start("lasting")
    await rig.running()
    first.kill()
    second = await rig.runner()
    ended = await rig.ended(run_id)
    assert (ended.status, ended.attempt) == ("success", 2)
    values = [v.data["steps"] for v in await rig.lines() if v.method == "values"]
    assert values[-1] == ["in", "one", "slow"], "the finished node ran once"
    assert second.is_alive


async def test_a_paused_holder_is_fenced_when_it_wakes(rig: Rig) -> None:
    first = await rig.runner()
    run_id = await rig.start("lasting")
    await rig.running()
    first.pause()
    await rig.runner()
    ended = await rig.ended(run_id, 60.0)
    first.resume()
    await until(lambda: "attempt 1: lost" in first.log_text(), what="it notices")
    assert ended.attempt == 2
    lines = await rig.lines()
    assert lines[-1].event_id == f"synth:{run_id}:lc||completed", "nothing lies behind the end"
    assert [v.data["steps"] for v in lines if v.method == "values"][-1] == ["in", "one", "slow"]


async def test_a_graph_that_nobody_has_ends_as_an_error(rig: Rig) -> None:
    await rig.runner()
    ended = await rig.ended(await rig.start("absent"))
    assert ended.status == "error"
    assert ended.error is not None
    assert "absent" in ended.error["message"]


async def test_timeout_and_stall(rig: Rig) -> None:
    runner = await rig.runner(slipstream_run_timeout_s="1.5", slipstream_stall_limit_s="2")
    assert (await rig.ended(await rig.start("hangs"))).status == "timeout"
    blocked = await rig.ended(await rig.start("blocks"))
    assert blocked.status == "timeout"
    assert await runner.ended() == 75


async def test_a_run_that_blocks_is_ended_beside_one_that_is_over(rig: Rig) -> None:
    """Its holder has not noticed, as between the end of a run and what is left to do for it."""
    runner = await rig.runner(slipstream_stall_limit_s="2")
    over = await rig.start("hangs", "over")

    async def has_begun() -> bool:
        return (await rig.state("over")).running is not None

    await until(has_begun, what="the first run executes")
    ended, owed = rs.RunEnded(over, 1, "success", "idle"), _owe(rs.PendingRun(over, 1, "hangs"))
    await rig.control.decide(rig.scope, "over", lambda state: rs.end_run(state, f"{over}:ended", 1, ended, owed))
    assert (await rig.ended(await rig.start("blocks"))).status == "timeout"
    assert await runner.ended() == 75


async def test_drain_hands_runs_back(rig: Rig) -> None:
    first = await rig.runner(slipstream_drain_grace_s="0.5")
    run_id = await rig.start("lasting")
    await rig.running()
    first.terminate()
    await rig.runner()
    assert await first.ended() == 0
    ended = await rig.ended(run_id)
    assert (ended.status, ended.attempt) == ("success", 2)
    crashes = [each.state.running.crashes for each in await rig.transitions() if each.state.running]
    assert max(crashes) == 0, "a run that is handed back did not crash"


async def test_a_run_that_is_handed_back_at_a_conditional_edge_takes_it_later(rig: Rig) -> None:
    first = await rig.runner(slipstream_drain_grace_s="0.5")
    run_id = await rig.start("chooses")

    async def at_the_edge() -> bool:
        return any(view.method == "custom" for view in await rig.lines())

    await until(at_the_edge, what="the node has its result, and its path function blocks")
    first.terminate()
    await rig.runner()
    ended = await rig.ended(run_id)
    assert (ended.status, ended.attempt) == ("success", 2)
    assert [v.data["steps"] for v in await rig.lines() if v.method == "values"][-1] == ["in", "first", "one"]


async def test_a_sync_node_that_never_returns_keeps_neither_its_run_nor_the_process(rig: Rig) -> None:
    runner = await rig.runner(slipstream_drain_grace_s="0.5")
    run_id = await rig.start("sticks")
    await rig.running()
    await rig.cancel(run_id)
    assert (await rig.ended(run_id)).status == "interrupted"
    runner.terminate()
    assert await runner.ended() == 0


async def test_a_run_crashes_only_so_often(rig: Rig) -> None:
    """A run that kills its runner each time ends as an error, and the thread goes on."""
    run_id = await rig.start("ok")
    for _ in range(4):
        runner = rig.stack.spawn_runner(**rig.settings(slipstream_crashpoint="started"))
        assert await runner.ended() == -signal.SIGKILL
    await rig.runner()
    ended = await rig.ended(run_id)
    assert (ended.status, ended.attempt) == ("error", 5)
    assert ended.error == {
        "error": "RunnerCrashed", "message": "the run's holder vanished 4 times; it is not tried again"
    }  # fmt: skip
    assert (await rig.ended(await rig.start("ok"))).status == "success"


@pytest.mark.parametrize(
    "point", ["delivered", "leased", "started", "output", "ended", "terminal", "next_work", "acknowledged"]
)
async def test_a_crash_at_any_point_loses_and_doubles_nothing(rig: Rig, point: str) -> None:
    first = await rig.runner(slipstream_crashpoint=point)
    run_id = await rig.start("ok")
    following = await rig.start("ok")
    assert await first.ended() == -signal.SIGKILL
    await rig.runner()
    for each in (run_id, following):
        assert (await rig.ended(each)).status == "success"
        assert (await rig.roots(each)).count("completed") == 1
    steps = [v.data["steps"] for v in await rig.lines() if v.method == "values"][-1]
    assert steps == ["in", "one", "in", "one"], "each run was applied once"


async def test_a_run_without_a_work_item_is_found(rig: Rig) -> None:
    """Whoever created it died before it was queued."""
    await rig.stack.spawn_projector().ready()
    run_id = await rig.start("ok", queued=False)
    await rig.runner(slipstream_ack_wait_s="0.5", slipstream_sweep_s="0.5")
    assert (await rig.ended(run_id)).status == "success"
    assert await rig.attempts() == 1


async def test_a_broker_that_is_away_for_long_gives_no_run_a_second_attempt(
    own_stack: Stack, own_nats: NatsServer, tmp_path: Path
) -> None:
    """20 live runs on two runners; afterwards every item is delivered again at once while its holder lives."""
    rig = await opened_rig(own_stack, own_nats.url, tmp_path)
    threads = [f"t{number}" for number in range(20)]
    for _ in range(2):
        await rig.runner(slipstream_ack_wait_s=str(OUTAGE_ACK_WAIT_S))
    run_ids = {thread_id: await rig.start("ticks", thread_id) for thread_id in threads}

    async def all_speak() -> bool:
        logs = [await rig.lines(each) for each in threads]
        return all(any(view.method == "custom" for view in lines) for lines in logs)

    await until(all_speak, what="all runs execute")
    own_nats.kill()
    await asyncio.sleep(3 * OUTAGE_ACK_WAIT_S)  # The length of the outage is what is tested.
    own_nats.start()

    async def all_end() -> bool:
        return all([(await rig.roots(run_ids[each], each))[-1:] == ["completed"] for each in threads])

    await until(all_end, 60.0, what="all runs end")
    for each in threads:
        lines = await rig.lines(each)
        assert [v.data["payload"]["tick"] for v in lines if v.method == "custom"] == list(range(200))
        assert {v.event_id.split(":")[1] for v in lines if not v.event_id.startswith("synth")} == {"1"}
    await rig.connection.close()
