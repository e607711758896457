"""`after_seconds`: a run is accepted at once and starts when its time comes, whatever dies meanwhile."""

import asyncio
import signal
import time
from datetime import datetime
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client

from slipstream_schemas.limits import AFTER_SECONDS_MAX
from testkit.client import Client, new_thread
from testkit.servers import NatsServer
from testkit.service import Service
from testkit.stack import Stack
from testkit.wait import until

COUNT = {"steps": 1, "delay_s": 0}
LONG_S = 86_400
SHORT_S = 3
SWEEPING = {"slipstream_ack_wait_s": "0.5", "slipstream_sweep_s": "0.5"}
DEADLINE_S = 60.0


async def later(url: str, thread_id: str, after_s: int, **more: Any) -> dict[str, Any]:
    """Create a run that starts later, by the stock SDK."""
    client = get_client(url=url)
    return dict(
        await client.runs.create(
            thread_id, "counter", input=COUNT, after_seconds=after_s, if_not_exists="create", **more
        )
    )  # fmt: skip


async def started_ms(url: str, thread_id: str, run_id: str) -> int:
    """When the run began, by its first event."""
    async with Client(url) as client, client.events(thread_id, 0) as events:
        async for frame in events:
            if (
                frame.event == "lifecycle"
                and run_id in frame.data
                and frame.body["params"]["data"]["event"] == "running"
            ):
                return int(frame.body["params"]["timestamp"])
    raise AssertionError("the run never began")


def due_ms(run: dict[str, Any]) -> int:
    """From when a run may start: its row says that it was created then."""
    return round(datetime.fromisoformat(run["created_at"]).timestamp() * 1000)


async def test_a_run_waits_and_others_go_first(live: Stack) -> None:
    client, thread_id = get_client(url=live.url), new_thread()
    delayed = await later(live.url, thread_id, SHORT_S)
    assert delayed["status"] == "pending"
    assert (await client.threads.get(thread_id))["status"] == "busy"
    # One that may start at once does; those that come later wait for their own time.
    far = await later(live.url, thread_id, LONG_S)
    assert await client.runs.wait(thread_id, "counter", input=COUNT) is not None
    assert (await client.runs.get(thread_id, delayed["run_id"]))["status"] == "pending"
    async with httpx.AsyncClient(base_url=live.url, timeout=30) as http:
        refused = await http.post(
            f"/threads/{thread_id}/runs", json={"assistant_id": "counter", "multitask_strategy": "reject"}
        )
        assert refused.status_code == 409
    await client.runs.join(thread_id, delayed["run_id"])
    assert (await client.runs.get(thread_id, delayed["run_id"]))["status"] == "success"
    assert await started_ms(live.url, thread_id, delayed["run_id"]) >= due_ms(delayed)
    assert [run["run_id"] for run in await client.runs.list(thread_id, status="pending")] == [far["run_id"]]
    assert (await client.threads.get(thread_id))["status"] == "busy"


async def test_a_run_is_cancelled_while_it_waits(live: Stack) -> None:
    client, thread_id = get_client(url=live.url), new_thread()
    first, second = await later(live.url, thread_id, LONG_S), await later(live.url, thread_id, LONG_S + 1)
    await client.runs.cancel(thread_id, first["run_id"])
    # Its end is told although its successor stays where it is.
    async with asyncio.timeout(DEADLINE_S):
        await client.runs.join(thread_id, first["run_id"])
    assert (await client.runs.get(thread_id, first["run_id"]))["status"] == "interrupted"
    # And so is that of one that makes room for a run which waits as well.
    third = await later(live.url, thread_id, LONG_S, multitask_strategy="interrupt")
    async with asyncio.timeout(DEADLINE_S):
        await client.runs.join(thread_id, second["run_id"])
    assert (await client.runs.get(thread_id, third["run_id"]))["status"] == "pending"
    await client.runs.cancel(thread_id, third["run_id"])
    assert (await client.threads.get(thread_id))["status"] == "idle"
    assert await client.runs.wait(thread_id, "counter", input=COUNT) is not None


async def dying_creator(doomed: Service, thread_id: str) -> None:
    """Create a run through an API that dies before it gives the run's time to the broker."""
    body = {"assistant_id": "counter", "input": COUNT, "after_seconds": SHORT_S, "if_not_exists": "create"}
    async with httpx.AsyncClient(base_url=doomed.url or "", timeout=30) as http:
        with pytest.raises(httpx.TransportError):
            await http.post(f"/threads/{thread_id}/runs", json=body)
    assert await doomed.ended() == -signal.SIGKILL


async def test_everything_dies_while_a_run_waits(own_stack: Stack, own_nats: NatsServer) -> None:
    doomed = own_stack.spawn_api(slipstream_crashpoint="created")
    await asyncio.to_thread(own_stack.start)
    await doomed.ready()
    forgotten, thread_id = new_thread(), new_thread()
    await dying_creator(doomed, forgotten)
    run = await later(own_stack.url, thread_id, SHORT_S)
    for service in own_stack.services:
        service.kill()
    # The broker is away when the time comes.
    own_nats.kill()
    await until(lambda: time.time() * 1000 > due_ms(run))
    own_nats.start()
    own_stack.settings = SWEEPING
    await asyncio.to_thread(own_stack.start)
    client = get_client(url=own_stack.url)

    async def are_over() -> bool:
        rows = [*await client.runs.list(thread_id), *await client.runs.list(forgotten)]
        return [row["status"] for row in rows] == ["success", "success"]

    await until(are_over, DEADLINE_S)
    assert await started_ms(own_stack.url, thread_id, run["run_id"]) >= due_ms(run)


@pytest.mark.parametrize("after_s", [-1, AFTER_SECONDS_MAX + 1, "soon", 1.5])
async def test_a_wait_out_of_range_is_refused(live: Stack, after_s: Any) -> None:
    async with httpx.AsyncClient(base_url=live.url, timeout=30) as http:
        body = {"assistant_id": "counter", "after_seconds": after_s, "if_not_exists": "create"}
        thread_id = new_thread()
        answer = await http.post(f"/threads/{thread_id}/runs", json=body)
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"][:2] == ["body", "after_seconds"]
        assert (await http.get(f"/threads/{thread_id}")).status_code == 404
