"""Processes that stand still for a while: what was accepted is answered, and nobody is taken for blocked."""

import asyncio
from typing import Any

from testkit.client import Client, new_thread
from testkit.stack import Stack
from testkit.wait import until

COUNT: dict[str, Any] = {"assistant_id": "counter", "input": {"steps": 2, "delay_s": 0.01}, "if_not_exists": "create"}


async def test_an_accepted_run_is_answered_while_the_rows_lag_and_its_repeat_makes_no_other(stack: Stack) -> None:
    await asyncio.to_thread(stack.start)
    (projector,) = (service for service in stack.services if service.name.startswith("projector"))
    path, keyed = f"/threads/{new_thread()}/runs", {"idempotency-key": "once"}
    body = {**COUNT, "metadata": {"a": 1}, "multitask_strategy": "reject"}
    async with Client(stack.url) as client:
        projector.pause()
        told = (await client.http.post(path, json=body, headers=keyed)).raise_for_status().json()
        assert told["status"] == "pending"
        # It is not refused for the sake of the very run that it asks for.
        assert (await client.http.post(path, json=body, headers=keyed)).status_code in (200, 503)
        projector.resume()

        async def ended() -> dict[str, Any]:
            row: dict[str, Any] = (await client.http.get(f"{path}/{told['run_id']}")).json()
            return row if row.get("status") == "success" else {}

        assert await until(ended) | {"status": "pending", "updated_at": told["updated_at"]} == told
        again = (await client.http.post(path, json=body, headers=keyed)).raise_for_status().json()
        assert again["run_id"] == told["run_id"]
        assert len((await client.http.get(path)).json()) == 1


async def test_a_thread_that_was_made_is_answered_while_the_rows_lag(stack: Stack) -> None:
    await asyncio.to_thread(stack.start)
    (projector,) = (service for service in stack.services if service.name.startswith("projector"))
    async with Client(stack.url) as client:
        projector.pause()
        made = await client.http.post("/threads", json={"metadata": {"a": 1}})
        projector.resume()
        assert (made.status_code, made.json()["metadata"]) == (200, {"a": 1})


async def test_a_runner_that_stood_still_goes_on_with_its_runs(stack: Stack) -> None:
    await asyncio.to_thread(lambda: stack.start(slipstream_stall_limit_s="1"))
    (runner,) = stack.runners
    thread_id = new_thread()
    async with Client(stack.url) as client:
        await client.start(thread_id, "counter", {"steps": 20, "delay_s": 0.1})
        async with client.events(thread_id) as stream:
            async for frame in stream:
                if frame.event == "values":
                    break
        runner.pause()
        begun = asyncio.get_running_loop().time()
        await until(lambda: asyncio.get_running_loop().time() - begun > 3, what="three times the stall limit")
        runner.resume()
        seen = await client.run_events(thread_id)
    assert [f.body["params"]["data"]["event"] for f in seen if f.event == "lifecycle"] == ["running", "completed"]
    assert runner.is_alive
