"""What the stock SDK can ask for beside the usual: fields, ttls, one checkpoint's history, and the way back to what it
has joined when the connection breaks.
"""

import asyncio
import functools
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client

from testkit.client import Client, new_thread
from testkit.proxy import Proxy
from testkit.sdk import DEADLINE_S
from testkit.stack import Stack
from testkit.wait import until

QUICK: dict[str, Any] = {"steps": 2, "delay_s": 0}
LONG: dict[str, Any] = {"steps": 60, "delay_s": 0.05}


async def thread_of(live: Stack, graph_input: dict[str, Any]) -> tuple[str, str]:
    """A thread and its run, which executes or has."""
    sdk = get_client(url=live.url)
    thread_id = str((await sdk.threads.create())["thread_id"])
    run = await sdk.runs.create(thread_id, "counter", input=graph_input, stream_mode=["values"])
    return thread_id, run["run_id"]


async def test_runs_are_listed_with_the_fields_that_were_asked_for(live: Stack) -> None:
    sdk = get_client(url=live.url)
    thread_id, run_id = await thread_of(live, QUICK)
    whole: Any = await sdk.runs.join(thread_id, run_id)
    assert whole["count"] == 2
    few: Any = await sdk.runs.list(thread_id, select=["run_id", "status", "cancel_reason"])
    assert few == [{"run_id": run_id, "status": "success"}]
    none: Any = await sdk.runs.list(thread_id, select=["cancel_reason"])
    assert none == [{}]
    unknown: Any = ["secrets"]
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await sdk.runs.list(thread_id, select=unknown)
    assert refused.value.response.json()["detail"][0]["loc"] == ["query", "select"]


async def test_a_thread_tells_its_ttl_to_who_asks(live: Stack) -> None:
    sdk = get_client(url=live.url)
    thread_id = str((await sdk.threads.create(ttl=90))["thread_id"])
    plain: Any = await sdk.threads.get(thread_id)
    shown: Any = await sdk.threads.get(thread_id, include=["ttl"])
    ttl = shown.pop("ttl")
    assert shown == plain
    assert (ttl["strategy"], ttl["ttl_minutes"]) == ("delete", 90)
    expires = datetime.fromisoformat(ttl["expires_at"])
    assert expires - datetime.fromisoformat(plain["updated_at"]) - timedelta(minutes=90) < timedelta(minutes=1)
    changed: Any = await sdk.threads.update(thread_id, metadata={}, ttl={"ttl": 2.5, "strategy": "keep_latest"})
    other: Any = await sdk.threads.get(thread_id, include=["ttl"])
    assert (other["ttl"]["strategy"], other["ttl"]["ttl_minutes"]) == ("keep_latest", 2.5)
    assert datetime.fromisoformat(other["ttl"]["expires_at"]) >= datetime.fromisoformat(changed["updated_at"])
    without: Any = await sdk.threads.get(str((await sdk.threads.create())["thread_id"]), include=["ttl"])
    assert without["ttl"] is None
    async with Client(live.url) as client:
        assert (await client.http.get(f"/threads/{thread_id}?include=secrets")).status_code == 422
        assert (await client.http.get(f"/threads/{new_thread()}?include=ttl")).status_code == 404


async def test_a_thread_does_not_inherit_the_ttl_of_a_deleted_namesake(live: Stack) -> None:
    sdk, thread_id = get_client(url=live.url), new_thread()
    await sdk.threads.create(thread_id=thread_id, ttl=60)
    await sdk.threads.delete(thread_id)

    async def is_free() -> bool:
        async with Client(live.url) as client:
            return (await client.http.post("/threads", json={"thread_id": thread_id})).status_code == 200

    await until(is_free)
    again: Any = await sdk.threads.get(thread_id, include=["ttl"])
    assert again["ttl"] is None


async def test_crons_are_found_by_their_graph_and_sorted_by_their_end(live: Stack) -> None:
    sdk, thread_id = get_client(url=live.url), new_thread()
    await sdk.threads.create(thread_id=thread_id)
    ends = [datetime(2099, month, 1) for month in (2, 3, 1)]  # noqa: DTZ001  as careless clients send it
    made: list[Any] = [
        await sdk.crons.create_for_thread(thread_id, "counter", schedule="0 0 1 1 *", input={}, end_time=end)
        for end in ends
    ]
    found: Any = await sdk.crons.search(
        thread_id=thread_id, sort_by="end_time", sort_order="asc", select=["cron_id", "now"]
    )
    assert found == [{"cron_id": made[number]["cron_id"]} for number in (2, 0, 1)]
    assert await sdk.crons.count(thread_id=thread_id, assistant_id="counter") == 3, "a graph's name will do"
    assert await sdk.crons.search(thread_id=thread_id, assistant_id="chat") == []
    for cron in made:
        await sdk.crons.delete(cron["cron_id"])


async def test_the_history_at_a_checkpoint_is_that_state(live: Stack) -> None:
    sdk = get_client(url=live.url)
    thread_id, run_id = await thread_of(live, QUICK)
    await sdk.runs.join(thread_id, run_id)
    states: Any = await sdk.threads.get_history(thread_id)
    one: Any = await sdk.threads.get_history(thread_id, checkpoint=states[1]["checkpoint"])
    assert one == [states[1]]
    at_root: Any = {"checkpoint_ns": ""}
    root: Any = await sdk.threads.get_history(thread_id, checkpoint=at_root)
    assert root == states


async def test_the_metadata_of_a_config_reach_the_graph(live: Stack) -> None:
    sdk = get_client(url=live.url)
    thread_id = str((await sdk.threads.create())["thread_id"])
    config: Any = {"metadata": {"from": "config", "both": 1, "run_id": "not mine"}, "tags": ["x"]}
    await sdk.runs.wait(thread_id, "counter", input=QUICK, config=config, metadata={"both": 2})
    (run,) = await sdk.runs.list(thread_id)
    state: Any = await sdk.threads.get_state(thread_id)
    assert {"from": "config", "both": 2, "run_id": run["run_id"]}.items() <= state["metadata"].items()
    config["metadata"] = "text"
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await sdk.runs.wait(thread_id, "counter", config=config)
    assert refused.value.response.status_code == 422


async def test_a_thread_says_how_its_last_run_was_stopped(live: Stack) -> None:
    sdk = get_client(url=live.url)
    ends: list[tuple[Any, str, str]] = [
        ("interrupt", "interrupted", "UserInterrupt"), ("rollback", "idle", "UserRollback")
    ]  # fmt: skip
    for action, status, error in ends:
        thread_id, run_id = await thread_of(live, LONG)
        await until(functools.partial(is_running, live, thread_id, run_id))
        await sdk.runs.cancel(thread_id, run_id, wait=True, action=action)
        thread: Any = await sdk.threads.get(thread_id)
        assert (thread["status"], thread["error"]["error"]) == (status, error)
        await sdk.runs.wait(thread_id, "counter", input=QUICK)
        again: Any = await sdk.threads.get(thread_id)
        assert (again["status"], again["error"]) == ("idle", None)


async def is_running(live: Stack, thread_id: str, run_id: str) -> bool:
    """Whether a runner has begun the run."""
    return (await get_client(url=live.url).runs.get(thread_id, run_id))["status"] == "running"


async def test_a_run_that_ends_without_values_answers_an_object(live: Stack) -> None:
    sdk = get_client(url=live.url)
    thread_id, run_id = await thread_of(live, LONG)
    waiting = await sdk.runs.create(thread_id, "counter", input=QUICK)
    await sdk.runs.cancel(thread_id, waiting["run_id"])
    assert await sdk.runs.join(thread_id, waiting["run_id"]) == {}
    await sdk.runs.cancel(thread_id, run_id, wait=True)


async def test_a_failed_task_names_its_exception_once(live: Stack) -> None:
    sdk = get_client(url=live.url)
    thread_id = str((await sdk.threads.create())["thread_id"])
    await sdk.runs.wait(thread_id, "boom", input={"messages": []}, raise_error=False)
    state: Any = await sdk.threads.get_state(thread_id)
    assert [task["error"] for task in state["tasks"]] == ["ValueError('boom: the stove is on fire')"]


async def test_what_is_joined_names_the_way_back(live: Stack) -> None:
    thread_id, run_id = await thread_of(live, LONG)
    path = f"/threads/{thread_id}/runs/{run_id}"
    query = "?stream_mode=values&cancel_on_disconnect=0"
    async with Client(live.url) as client:
        async with client.http.stream("GET", f"{path}/stream{query}") as stream:
            assert (stream.headers["location"], stream.headers["content-location"]) == (f"{path}/stream{query}", path)
        async with client.http.stream("GET", f"/threads/{thread_id}/stream?stream_mode=lifecycle") as stream:
            assert stream.headers["location"] == f"/threads/{thread_id}/stream?stream_mode=lifecycle"
        stopped = await client.http.post(f"{path}/cancel?wait=1")
        assert (stopped.headers["location"], stopped.headers["content-location"]) == (f"{path}/join", path)
        joined = await client.http.get(stopped.headers["location"])
        assert (joined.headers["location"], joined.headers["content-location"]) == (f"{path}/join", path)
        assert joined.json() == stopped.json()
        over = await client.http.get(f"{path}/stream")
        assert (over.headers["location"], over.text.replace(": heartbeat\n\n", "")) == (f"{path}/stream", "")


@pytest.mark.filterwarnings("ignore:Request failed, attempting reconnect")
async def test_what_is_joined_outlives_its_connection(live: Stack) -> None:
    thread_id, run_id = await thread_of(live, LONG)
    async with Proxy(live.url) as network, asyncio.timeout(DEADLINE_S):
        sdk = get_client(url=network.url)
        waiting = asyncio.create_task(sdk.runs.join(thread_id, run_id))
        counts: list[int] = []
        async for part in sdk.runs.join_stream(thread_id, run_id, stream_mode="values", last_event_id="-1"):
            if part.event == "values":
                counts.append(part.data.get("count", 0))
                if len(counts) == 7:
                    network.reset()
            else:
                assert part.event == "metadata"
        assert counts == list(range(LONG["steps"] + 1))
        assert (await waiting)["count"] == LONG["steps"]


async def test_a_followed_thread_outlives_its_connection(live: Stack) -> None:
    thread_id, run_id = await thread_of(live, LONG)
    async with Proxy(live.url) as network, asyncio.timeout(DEADLINE_S):
        sdk = get_client(url=network.url)
        counts: list[int] = []
        async for part in await sdk.threads.join_stream(thread_id, last_event_id="-1"):
            if part.event == "values":
                counts.append(part.data.get("count", 0))
                if len(counts) == 7:
                    network.reset()
            elif part.data.get("status") == "run_done":
                assert part.data["run_id"] == run_id
                break
        assert counts == list(range(LONG["steps"] + 1))


async def test_the_server_says_that_it_has_crons(live: Stack) -> None:
    async with Client(live.url) as client:
        assert (await client.http.get("/info")).json()["flags"]["crons"] is True
