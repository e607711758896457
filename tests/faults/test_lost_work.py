"""Runs that nobody holds: their work item is lost or acknowledged by somebody who did not do the work. The sweep finds
them in the log, whatever was left undone, and a runner does it. It may find one whose item only waits, too.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from slipstream_nats.connection import Connection, connect
from slipstream_nats.publisher import open_publisher
from slipstream_nats.workqueue import WorkPuller, WorkQueue
from slipstream_schemas import subjects
from slipstream_schemas.subjects import Scope
from testkit.client import Client, new_thread
from testkit.stack import Stack
from testkit.wait import until

SWEEPING = {"slipstream_ack_wait_s": "1", "slipstream_sweep_s": "0.5"}
SLOW = {"steps": 30, "delay_s": 0.1}
QUICK = {"steps": 2}
RUNS = 5
QUEUED = {"multitaskStrategy": "enqueue"}


@pytest.fixture
async def nats(stack: Stack) -> AsyncIterator[Connection]:
    """A connection to the stack's log."""
    opened = await connect(stack.nats_url, "test")
    yield opened
    await opened.close()


@pytest.fixture
async def idle(stack: Stack) -> Stack:
    """A stack that has known the graphs, without a runner."""
    await asyncio.to_thread(stack.start)
    stack.runners[0].terminate()
    await until(lambda: not stack.runners)
    return stack


async def lose_work(nats: Connection, stack: Stack, thread_id: str) -> None:
    """Delete the thread's work items, as a broker that lost them."""
    subject = subjects.work(Scope(stack.region), thread_id)
    answer = await nats.api(f"STREAM.PURGE.{subjects.control_stream(stack.region)}", {"filter": subject})
    assert answer["purged"] >= 1, answer


async def statuses(client: Client, thread_id: str) -> list[str]:
    """Of the thread's runs, oldest first."""
    return [run["status"] for run in reversed((await client.http.get(f"/threads/{thread_id}/runs")).json())]


async def goes_on(client: Client, thread_id: str) -> None:
    """The thread is not busy, and takes another run."""
    assert (await client.http.get(f"/threads/{thread_id}")).json()["status"] != "busy"
    body = {"assistant_id": "counter", "input": QUICK, "multitask_strategy": "reject"}
    answer = await client.http.post(f"/threads/{thread_id}/runs/wait", json=body)
    assert answer.status_code == 200 and "__error__" not in answer.json(), answer.text


def roots(frames: list[Any]) -> list[str]:
    """The root's lifecycle."""
    found = [json.loads(frame.data)["params"] for frame in frames if frame.event == "lifecycle"]
    return [params["data"]["event"] for params in found if params["namespace"] == []]


async def test_a_waiting_run_whose_work_item_is_lost(idle: Stack, nats: Connection) -> None:
    thread_id = new_thread()
    async with Client(idle.url) as client:
        await client.start(thread_id, "counter", QUICK)
        await lose_work(nats, idle, thread_id)
        await idle.spawn_runner(**SWEEPING).ready()
        assert roots(await client.run_events(thread_id)) == ["running", "completed"]
        await goes_on(client, thread_id)


async def test_runs_that_are_queued_twice_are_executed_once(idle: Stack, nats: Connection) -> None:
    """As by the sweep where all slots were taken for long; then a runner comes, and takes both items of each."""
    work = WorkQueue(await open_publisher(nats), idle.region)
    attempts: list[str] = []
    async with Client(idle.url) as client:
        runs = {new_thread(): "" for _ in range(RUNS)}
        for thread_id in runs:
            runs[thread_id] = await client.start(thread_id, "counter", QUICK)
            await work.put(Scope(idle.region), thread_id, runs[thread_id], again=":again")
        await idle.spawn_runner().ready()
        for thread_id, run_id in runs.items():
            ids = [str(frame.body.get("event_id")).split(":") for frame in await client.run_events(thread_id)]
            attempts += [each[1] for each in ids if each[0] == run_id]
    assert set(attempts) == {"1"}


async def test_a_waiting_run_whose_work_item_a_zombie_has_acknowledged(idle: Stack, nats: Connection) -> None:
    thread_id = new_thread()
    async with Client(idle.url) as client:
        await client.start(thread_id, "counter", QUICK)
        puller = WorkPuller(nats, idle.region)
        await puller.open()
        (item,) = await until(lambda: puller.pull(1), what="the zombie has the item")
        await item.ack()
        await puller.close()
        await idle.spawn_runner(**SWEEPING).ready()
        assert roots(await client.run_events(thread_id)) == ["running", "completed"]
        await goes_on(client, thread_id)


async def test_a_running_run_whose_holder_died_and_whose_work_item_is_lost(idle: Stack, nats: Connection) -> None:
    thread_id = new_thread()
    holder = await idle.spawn_runner(**SWEEPING).ready()
    async with Client(idle.url) as client:
        await client.start(thread_id, "counter", SLOW)
        async with client.events(thread_id, channels=["values", "lifecycle"]) as stream:
            async for frame in stream:
                if frame.event == "values":
                    break
        holder.kill()
        await lose_work(nats, idle, thread_id)
        await idle.spawn_runner(**SWEEPING).ready()
        assert roots(await client.run_events(thread_id)) == ["running", "running", "completed"]
        assert (await client.http.get(f"/threads/{thread_id}")).json()["values"]["count"] == SLOW["steps"]
        await goes_on(client, thread_id)


@pytest.mark.parametrize("point", ["ended", "terminal"])
async def test_a_run_whose_holder_died_before_it_had_paid_for_its_end(
    idle: Stack, nats: Connection, point: str
) -> None:
    """`ended`: the thread is closing, nobody has told its end. `terminal`: nobody has queued the run behind it."""
    thread_id = new_thread()
    doomed = await idle.spawn_runner(slipstream_crashpoint=point, **SWEEPING).ready()
    async with Client(idle.url) as client:
        await client.start(thread_id, "counter", QUICK)
        if point == "terminal":
            await client.start(thread_id, "counter", QUICK, **QUEUED)
        assert await doomed.ended() == -signal.SIGKILL
        await lose_work(nats, idle, thread_id)
        await idle.spawn_runner(**SWEEPING).ready()
        ends = 2 if point == "terminal" else 1
        assert roots(await client.run_events(thread_id, ends=ends)) == ["running", "completed"] * ends
        assert await statuses(client, thread_id) == ["success"] * ends
        await goes_on(client, thread_id)


async def test_a_thread_that_cannot_be_read_does_not_hide_the_others(idle: Stack, nats: Connection) -> None:
    broken, thread_id = new_thread(), new_thread()
    async with Client(idle.url) as client:
        await client.start(broken, "counter", QUICK)
        await client.start(thread_id, "counter", QUICK)
        await lose_work(nats, idle, broken)
        await lose_work(nats, idle, thread_id)
        subject = subjects.control(Scope(idle.region), broken)
        await nats.request(subject, b"what no version can read")
        await idle.spawn_runner(**SWEEPING).ready()
        assert roots(await client.run_events(thread_id)) == ["running", "completed"]
