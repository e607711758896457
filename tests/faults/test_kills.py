"""Kill -9 of each part in the middle of a run: what was acknowledged is there, once, and the run ends."""

import asyncio
import uuid

import pytest

from slipstream_nats.connection import connect
from slipstream_nats.controllog import ControlLog
from slipstream_nats.publisher import open_publisher
from slipstream_schemas.subjects import Scope
from testkit.client import Client, Frame, new_thread
from testkit.servers import NatsServer
from testkit.service import Service
from testkit.stack import Stack
from testkit.wait import until

DEADLINE_S = 60
STEPS = 12
COUNT = {"steps": STEPS, "delay_s": 0.1}


async def some(client: Client, thread_id: str, count: int) -> list[Frame]:
    """The first events of a thread; then the client is gone."""
    seen: list[Frame] = []
    async with client.events(thread_id) as stream:
        async for frame in stream:
            seen.append(frame)
            if len(seen) == count:
                break
    return seen


def counts(frames: list[Frame]) -> list[int]:
    """The states of the counter, in the order of the log."""
    bodies = [frame.body for frame in frames if frame.event == "values"]
    return [body["params"]["data"]["count"] for body in bodies if "count" in body["params"]["data"]]


def running_events(frames: list[Frame]) -> int:
    """How many attempts have said that they run."""
    return sum(1 for f in frames if f.event == "lifecycle" and f.body["params"]["data"]["event"] == "running")


def check_whole(frames: list[Frame]) -> None:
    """In order, each once, one end."""
    seqs = [frame.seq for frame in frames]
    assert seqs == sorted(set(seqs))
    assert sum(frame.ends_root for frame in frames) == 1
    assert counts(frames)[-1] == STEPS


@pytest.mark.parametrize("victim", ["api", "projector"])
async def test_a_killed_api_or_projector_loses_nothing(stack: Stack, victim: str) -> None:
    await asyncio.to_thread(stack.start)
    thread_id = new_thread()
    async with Client(stack.url) as client:
        await client.start(thread_id, "counter", COUNT)
        seen = await some(client, thread_id, 8)
    next(service for service in stack.services if service.name.startswith(victim)).kill()
    service = stack.spawn_api() if victim == "api" else stack.spawn_projector()
    await service.ready()
    async with Client(stack.url) as client, asyncio.timeout(DEADLINE_S):
        seen += await client.run_events(thread_id, since=seen[-1].seq)
        whole = await client.run_events(thread_id)
        assert seen == whole
        check_whole(whole)
        assert running_events(whole) == 1
        thread = (await client.http.get(f"/threads/{thread_id}")).json()
        assert (thread["status"], thread["values"]["count"]) == ("idle", STEPS)


async def test_a_killed_runner_is_replaced_and_the_run_goes_on_where_it_was(stack: Stack) -> None:
    await asyncio.to_thread(lambda: stack.start(runners=2, slipstream_ack_wait_s="2"))
    thread_id = new_thread()
    async with Client(stack.url) as client, asyncio.timeout(DEADLINE_S):
        await client.start(thread_id, "counter", COUNT)
        await some(client, thread_id, 16)
        state = (await client.http.get(f"/threads/{thread_id}/runs")).json()
        assert state[0]["status"] == "running"
        holder = await holder_of(stack, thread_id)
        holder.kill()
        whole = await client.run_events(thread_id)
    check_whole(whole)
    assert running_events(whole) == 2
    said = [frame for frame in whole if not frame.data.count('"synth:')]
    attempts = [frame.body["event_id"].split(":")[1] for frame in said]
    assert attempts == sorted(attempts) and set(attempts) == {"1", "2"}
    # The last steps before the kill may run again: those whose checkpoint was not stored yet.
    by_attempt = list(zip(said, attempts, strict=True))
    first, second = (counts([frame for frame, at in by_attempt if at == number]) for number in "12")
    assert first == sorted(first) and second == sorted(second) and len(first) + len(second) <= STEPS + 6
    assert {*first, *second} >= set(range(1, STEPS + 1))


async def holder_of(stack: Stack, thread_id: str) -> Service:
    """The runner process that holds the thread, by the name that it is ready under."""
    connection = await connect(stack.nats_url, "test")
    control = ControlLog(connection, await open_publisher(connection), stack.region)
    state = (await control.head(Scope(stack.region), thread_id)).state
    await connection.close()
    assert state is not None and state.running is not None
    holder = state.running.holder or "nobody"
    return next(runner for runner in stack.runners if holder in runner.log_text())


async def test_a_killed_broker_that_is_away_for_ten_seconds_costs_no_event(
    own_stack: Stack, own_nats: NatsServer
) -> None:
    await asyncio.to_thread(own_stack.start)
    thread_id = str(uuid.uuid4())
    async with Client(own_stack.url) as client, asyncio.timeout(DEADLINE_S):
        await client.start(thread_id, "counter", COUNT)
        seen = await some(client, thread_id, 8)
        own_nats.kill()
        away = asyncio.get_running_loop().time()
        await until(lambda: asyncio.get_running_loop().time() - away > 10, DEADLINE_S)
        await asyncio.to_thread(own_nats.start)

        async def answers() -> bool:
            return bool((await client.http.get(f"/threads/{thread_id}")).status_code == 200)

        await until(answers, DEADLINE_S)
        seen += await client.run_events(thread_id, since=seen[-1].seq)
        whole = await client.run_events(thread_id)
    assert seen == whole
    check_whole(whole)
    assert running_events(whole) == 1
