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


@pytest.mark.parametrize("ttl", [0, -1, TTL_MINUTES_MAX + 1, {"ttl": 5, "strategy": "keep_latest"}, "soon"])
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
