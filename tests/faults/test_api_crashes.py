"""An API that is killed between what it decided and what it does about it: the decision stands, a runner pays."""

import asyncio
import signal

import httpx
import pytest

from testkit.client import Client, new_thread
from testkit.stack import Stack

SWEEPING = {"slipstream_ack_wait_s": "0.5", "slipstream_sweep_s": "0.5"}
COUNT = {"assistant_id": "counter", "input": {"steps": 2, "delay_s": 0.01}}


async def crash(stack: Stack, point: str, method: str, path: str, **request: object) -> None:
    """Send a request to an API of its own that is killed at `point`."""
    doomed = await stack.spawn_api(slipstream_crashpoint=point).ready()
    async with Client(doomed.url or "") as client:
        with pytest.raises(httpx.TransportError):
            await client.http.request(method, path, **request)  # type: ignore[arg-type]
    assert await doomed.ended() == -signal.SIGKILL


async def without_runner(stack: Stack) -> None:
    """A stack whose graphs are known and whose runner has gone home."""
    await asyncio.to_thread(stack.start)
    runner = stack.runners[0]
    runner.terminate()
    assert await runner.ended() == 0


async def test_a_run_that_was_created_but_not_queued_executes_once(stack: Stack) -> None:
    await without_runner(stack)
    thread_id, key = new_thread(), {"Idempotency-Key": "once"}
    body = {**COUNT, "if_not_exists": "create"}
    await crash(stack, "created", "POST", f"/threads/{thread_id}/runs", json=body, headers=key)
    async with Client(stack.url) as client:
        (run,) = (await client.http.get(f"/threads/{thread_id}/runs")).json()
        assert run["status"] == "pending"
        again = await client.http.post(f"/threads/{thread_id}/runs", json=body, headers=key)
        assert again.json()["run_id"] == run["run_id"]
        await stack.spawn_runner(**SWEEPING).ready()
        seen = await client.run_events(thread_id)
        assert [f.body["params"]["data"]["event"] for f in seen if f.event == "lifecycle"] == ["running", "completed"]
        assert len((await client.http.get(f"/threads/{thread_id}/runs")).json()) == 1


async def test_a_pending_run_whose_canceller_died_still_gets_its_terminal_event(stack: Stack) -> None:
    await without_runner(stack)
    thread_id = new_thread()
    async with Client(stack.url) as client:
        run_id = await client.start(thread_id, "counter", COUNT["input"])
        path = f"/threads/{thread_id}/runs/{run_id}"
        await crash(stack, "pending_cancelled", "POST", f"{path}/cancel")
        assert (await client.http.get(path)).json()["status"] == "interrupted"
        await stack.spawn_runner(**SWEEPING).ready()
        seen = await client.run_events(thread_id)
        assert [f.body["params"]["data"]["event"] for f in seen] == ["running", "interrupted"]
