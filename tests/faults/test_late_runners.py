"""A runner that stands still at the worst of moments and then goes on: it says nothing more, and overlooks no cancel.

Both would go unseen where a frozen runner has nothing left to say, and where a cancel comes before or behind the end;
so here it is frozen with a full queue, and between the end of its graph and the decision that the run has ended.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from slipstream_nats.provision import StreamSettings
from testkit.client import Client, Frame, new_thread
from testkit.proxy import Proxy
from testkit.servers import NatsServer
from testkit.stack import Stack, prepare
from testkit.wait import until

DEADLINE_S = 150
ACK_WAIT_S = 2.0
LATENCY_S = 0.2
"""A record takes twice this time, in which the graph fills the queue."""
EVENTS = 6000


def spoken(frames: list[Frame], run_id: str) -> list[int]:
    """The attempts of a run, in the order in which they spoke."""
    ids = [str(frame.body.get("event_id")).split(":") for frame in frames]
    return [int(each[1]) for each in ids if each[0] == run_id]


@pytest.fixture
async def quick(nats_server: NatsServer, database_dsn: str, tmp_path: Path) -> AsyncIterator[Stack]:
    """A stack that soon takes a runner for dead."""
    with Stack(nats_server.url, database_dsn, f"l{secrets.token_hex(5)}", tmp_path / "quick") as made:
        await prepare(made.nats_url, made.dsn, made.region, StreamSettings(ack_wait_s=ACK_WAIT_S))
        made.settings |= {"slipstream_ack_wait_s": str(ACK_WAIT_S), "slipstream_sweep_s": "2"}
        yield made


async def test_a_runner_that_was_taken_over_with_a_full_queue_says_nothing_more(quick: Stack) -> None:
    stack, thread_id = quick, new_thread()
    async with Proxy(stack.nats_url) as proxy:
        late = stack.spawn_runner(nats_url=proxy.url, slipstream_drain_grace_s="10")
        await asyncio.to_thread(lambda: stack.start(runners=0))
        await late.ready()
        async with Client(stack.url) as client, asyncio.timeout(DEADLINE_S):
            proxy.latency_s = LATENCY_S
            run_id = await client.start(thread_id, "firehose", {"count": EVENTS})
            async with client.events(thread_id) as stream:
                async for frame in stream:
                    if frame.event == "custom":
                        break
            late.pause()
            stack.spawn_runner()
            assert await client.run_events(thread_id), "nobody has taken it over"
            proxy.latency_s = 0
            late.resume()
            # Before it ends, it has done with the run, and sent what was still to be sent.
            late.terminate()
            await late.ended()
            await client.start(thread_id, "firehose", {"count": 1})
            whole = await client.run_events(thread_id, ends=2)
    attempts = spoken(whole, run_id)
    assert set(attempts) == {1, 2}
    assert attempts == sorted(attempts), "a runner that was taken over has spoken"


async def test_a_cancel_that_comes_before_the_answer_to_a_start_is_not_overlooked(stack: Stack) -> None:
    """The log has the start of the run, its answer is lost: the runner asks again, and hears of the cancel before."""
    thread_id = new_thread()
    async with Proxy(stack.nats_url) as proxy, asyncio.timeout(DEADLINE_S):
        runner = stack.spawn_runner(nats_url=proxy.url)
        await asyncio.to_thread(lambda: stack.start(runners=0))
        await runner.ready()
        async with Client(stack.url) as client:
            proxy.lose_answer_to = b"run_started"
            run_id = await client.start(thread_id, "counter", {"steps": 10_000, "delay_s": 0.01})
            path = f"/threads/{thread_id}/runs/{run_id}"

            async def has_begun() -> bool:
                return bool((await client.http.get(path)).json()["status"] == "running")

            await until(has_begun)
            cancel = await client.http.post(f"{path}/cancel")
            assert cancel.status_code == 202, cancel.text
            ends = [frame for frame in await client.run_events(thread_id) if frame.ends_root]
            assert [frame.body["params"]["data"]["event"] for frame in ends] == ["interrupted"]
            state = (await client.http.get(f"/threads/{thread_id}/state")).json()
            assert state["values"].get("count", 0) < 10_000


async def test_a_run_that_is_being_taken_when_its_runner_is_stopped_is_handed_back(stack: Stack) -> None:
    """Its runner would end at the end of its grace, and the run go on when its holder is missed."""
    thread_id = new_thread()
    async with Proxy(stack.nats_url) as proxy, asyncio.timeout(DEADLINE_S):
        runner = stack.spawn_runner(nats_url=proxy.url)
        await asyncio.to_thread(lambda: stack.start(runners=0))
        await runner.ready()
        async with Client(stack.url) as client:
            proxy.hold_at = b"HPUB leases."
            run_id = await client.start(thread_id, "counter", {"steps": 100, "delay_s": 0.01})
            await until(lambda: proxy.is_holding)
            runner.terminate()
            await until(lambda: "draining" in runner.log_text())
            proxy.let_go()
            await runner.ended()
            await stack.spawn_runner().ready()
            assert set(spoken(await client.run_events(thread_id), run_id)) == {2}


async def test_a_cancel_that_is_accepted_when_the_graph_has_ended_is_not_overlooked(stack: Stack) -> None:
    stack.settings["slipstream_crashpoint"] = "stop:executed"
    await asyncio.to_thread(lambda: stack.start(runners=2))
    async with Client(stack.url) as client, asyncio.timeout(DEADLINE_S):
        for action in ("interrupt", "rollback"):
            thread_id = new_thread()
            run_id = await client.start(thread_id, "counter", {"steps": 1, "delay_s": 0})
            (runner,) = await until(lambda: [each for each in stack.runners if each.is_stopped], DEADLINE_S)
            path = f"/threads/{thread_id}/runs/{run_id}"
            cancel = await client.http.post(f"{path}/cancel", params={"action": action})
            assert cancel.status_code == 202, cancel.text
            runner.resume()
            ends = [frame for frame in await client.run_events(thread_id) if frame.ends_root]
            assert [frame.body["params"]["data"]["event"] for frame in ends] == ["interrupted"]
            row = await client.http.get(path)
            state = (await client.http.get(f"/threads/{thread_id}/state")).json()
            if action == "rollback":
                assert (row.status_code, state["values"]) == (404, {})
            else:
                assert (row.json()["status"], state["values"]["count"]) == ("interrupted", 1)
            # The other one has not been frozen yet.
            runner.kill()
