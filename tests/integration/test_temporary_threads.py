"""Threads that go by themselves: of stateless runs, and those with a ttl."""

import httpx
import pytest
from langgraph_sdk import get_client

from slipstream_schemas.limits import TTL_MINUTES_MAX
from testkit.stack import Stack
from testkit.wait import until

RUN = {"assistant_id": "counter", "input": {"steps": 1, "delay_s": 0}}


async def test_threads_go_when_their_time_is_over(stack: Stack) -> None:
    stack.start(slipstream_stateless_kept_s="0")
    sdk = get_client(url=stack.url)
    async with httpx.AsyncClient(base_url=stack.url) as http:

        async def made(**body: str) -> str:
            return str((await http.post("/runs", json={**RUN, **body})).raise_for_status().json()["thread_id"])

        deleted, kept = [await made(), await made(on_completion="delete")], await made(on_completion="keep")
        waited = await http.post("/runs/wait", json=RUN)
        deleted.append(waited.headers["content-location"].split("/")[2])
        endless = await http.post("/runs", json={**RUN, "input": {"steps": 1000, "delay_s": 0.05}})
        short = (await sdk.threads.create(ttl={"ttl": 0.001}))["thread_id"]
        long = (await sdk.threads.create(ttl={"ttl": 60, "strategy": "delete"}))["thread_id"]
        late = (await sdk.threads.create())["thread_id"]
        await sdk.threads.update(late, metadata={"x": 1}, ttl={"ttl": 0.001})

        async def are_gone() -> bool:
            gone = [(await http.get(f"/threads/{each}")).status_code == 404 for each in (*deleted, short, late)]
            return all(gone)

        await until(are_gone, what="the threads whose time is over are deleted")
        left = {thread["thread_id"] for thread in await sdk.threads.search(limit=100)}
        assert left == {kept, long, endless.json()["thread_id"]}


async def test_a_ttl_may_take_the_older_checkpoints_alone(stack: Stack) -> None:
    sdk = get_client(url=stack.start().url)
    thread_id = (await sdk.threads.create(graph_id="counter"))["thread_id"]
    plain = (await sdk.threads.create(graph_id="counter"))["thread_id"]

    async def history(of: str) -> int:
        return len(await sdk.threads.get_history(of, limit=100))

    async def is_pruned() -> bool:
        return await history(thread_id) == 1

    for each in (thread_id, plain):
        await sdk.runs.wait(each, "counter", input={"steps": 3, "delay_s": 0})
    await sdk.http.patch(f"/threads/{thread_id}", json={"ttl": {"ttl": 0.001, "strategy": "keep_latest"}})
    # As often as the thread changes.
    for _ in range(2):
        await until(is_pruned, what="the older checkpoints are gone")
        before = (await sdk.threads.get_state(thread_id))["values"]
        assert before == (await sdk.threads.get(thread_id))["values"]
        await sdk.runs.wait(thread_id, "counter", input={"steps": 3, "delay_s": 0})
    await until(is_pruned, what="the older checkpoints are gone")
    assert await history(plain) > 1


@pytest.mark.parametrize("ttl", [0, -1, TTL_MINUTES_MAX + 1, {"ttl": 5, "strategy": "keep_all"}, "soon"])
def test_a_ttl_that_cannot_be_kept_is_refused(live: Stack, ttl: object) -> None:
    answer = httpx.post(f"{live.url}/threads", json={"ttl": ttl})
    assert answer.status_code == 422 and "ttl" in answer.text


def test_a_stateless_run_is_repeated_by_its_key(live: Stack) -> None:
    with httpx.Client(base_url=live.url, headers={"idempotency-key": "once-and-for-all"}) as http:
        first, second = (http.post("/runs", json=RUN).raise_for_status().json() for _ in range(2))
        assert first["run_id"] == second["run_id"]
        assert http.post("/runs", json={**RUN, "metadata": {"other": 1}}).status_code == 422
    answer = httpx.post(f"{live.url}/runs", json={**RUN, "on_completion": "forget"})
    assert answer.status_code == 422


@pytest.mark.parametrize("path", ["/runs", "/runs/stream", "/runs/wait", "/runs/batch", "/runs/crons"])
def test_there_is_nothing_to_resume_without_a_thread(live: Stack, path: str) -> None:
    body = {"assistant_id": "approval", "command": {"resume": "yes"}, "schedule": "0 0 1 1 *"}
    answer = httpx.post(live.url + path, json=[body] if path == "/runs/batch" else body)
    assert answer.status_code == 400 and "thread" in answer.json()["detail"]
