"""Runs without a thread, several at once, and runs that are stopped and taken off the list, with the stock SDK."""

from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError, UnprocessableEntityError

from slipstream_schemas.limits import BATCH_RUNS_MAX
from testkit.stack import Stack
from testkit.wait import until

QUICK = {"steps": 2, "delay_s": 0}
ENDLESS = {"steps": 1000, "delay_s": 0.05}


@pytest.fixture
def sdk(live: Stack) -> LangGraphClient:
    return get_client(url=live.url)


async def status_of(sdk: LangGraphClient, run: Any) -> str:
    return str((await sdk.runs.get(run["thread_id"], run["run_id"]))["status"])


async def test_a_run_in_the_background_without_a_thread(sdk: LangGraphClient) -> None:
    run = await sdk.runs.create(None, "counter", input=QUICK)
    values: Any = await sdk.runs.join(run["thread_id"], run["run_id"])
    assert values["count"] == 2
    assert await status_of(sdk, run) == "success"


async def test_a_batch_is_created_whole_or_not_at_all(sdk: LangGraphClient, live: Stack) -> None:
    batch: list[Any] = [{"assistant_id": "counter", "input": {**QUICK, "steps": steps}} for steps in (1, 2, 3)]
    created = await sdk.runs.create_batch(batch)
    assert len({run["thread_id"] for run in created}) == 3
    values: list[Any] = [await sdk.runs.join(run["thread_id"], run["run_id"]) for run in created]
    assert [each["count"] for each in values] == [1, 2, 3]
    before = await sdk.threads.count()
    wrong: Any = {"assistant_id": "nobody"}
    with pytest.raises(UnprocessableEntityError):
        await sdk.runs.create_batch([*batch, wrong])
    bodies: tuple[Any, ...] = ([], [{"assistant_id": "counter"}] * (BATCH_RUNS_MAX + 1), {}, [1])
    for body in bodies:
        assert httpx.post(f"{live.url}/runs/batch", json=body).status_code == 422
    assert await sdk.threads.count() == before


async def test_runs_are_stopped_by_id_and_by_status(sdk: LangGraphClient) -> None:
    thread = (await sdk.threads.create())["thread_id"]
    runs = [await sdk.runs.create(thread, "counter", input=ENDLESS) for _ in range(3)]
    await sdk.runs.cancel_many(thread_id=thread, run_ids=[runs[0]["run_id"], runs[2]["run_id"]])

    async def only_the_second() -> bool:
        return [await status_of(sdk, run) for run in runs] == ["interrupted", "running", "interrupted"]

    await until(only_the_second, what="the first and the third have stopped")
    await sdk.runs.cancel_many(status="all", action="rollback")

    async def is_gone() -> bool:
        return [run["run_id"] for run in await sdk.runs.list(thread)] == [runs[2]["run_id"], runs[0]["run_id"]]

    await until(is_gone, what="the second is rolled back")
    with pytest.raises(NotFoundError):
        await sdk.runs.cancel_many(thread_id=thread, run_ids=[runs[0]["run_id"]])


async def test_what_to_cancel_is_said_clearly(live: Stack) -> None:
    for body in (
        {},
        {"status": "done"},
        {"status": "all", "run_ids": []},
        {"run_ids": ["x"]},
        {"thread_id": "a.b", "run_ids": []},
    ):
        assert httpx.post(f"{live.url}/runs/cancel", json=body).status_code == 422, body
    answer = httpx.post(f"{live.url}/runs/cancel?action=stop", json={"status": "pending"})
    assert answer.status_code == 422


async def test_a_run_that_is_over_is_taken_off_the_list(sdk: LangGraphClient) -> None:
    thread = (await sdk.threads.create())["thread_id"]
    endless = await sdk.runs.create(thread, "counter", input=ENDLESS)
    with pytest.raises(ConflictError):
        await sdk.runs.delete(thread, endless["run_id"])

    async def has_counted() -> bool:
        state: Any = await sdk.threads.get_state(thread)
        return bool(state["values"].get("count", 0))

    await until(has_counted, what="the run has written a step")
    await sdk.runs.cancel(thread, endless["run_id"], wait=True)
    await sdk.runs.delete(thread, endless["run_id"])
    assert await sdk.runs.list(thread) == []
    with pytest.raises(NotFoundError):
        await sdk.runs.delete(thread, endless["run_id"])
    # What it wrote stays.
    state: Any = await sdk.threads.get_state(thread)
    assert state["values"]["steps"] == ENDLESS["steps"]
