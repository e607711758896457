"""State and history of threads: the unmodified Python SDK, and what goes over HTTP."""

import asyncio
import itertools
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from testkit.client import Client, new_thread
from testkit.stack import Stack
from testkit.wait import until

COUNT: dict[str, Any] = {"steps": 3, "delay_s": 0.0}
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


async def counted(live: Stack) -> tuple[LangGraphClient, str]:
    """A client, and a thread whose run has counted to three."""
    sdk = get_client(url=live.url)
    thread_id = str((await sdk.threads.create())["thread_id"])
    await sdk.runs.wait(thread_id, "counter", input=COUNT)
    return sdk, thread_id


async def test_history_pages_backwards_to_the_input(live: Stack) -> None:
    sdk, thread_id = await counted(live)
    states: list[Any] = await sdk.threads.get_history(thread_id, limit=20)
    assert [state["metadata"]["step"] for state in states] == [3, 2, 1, 0, -1]
    assert states[0]["values"]["count"] == 3 and states[0]["next"] == []
    assert states[0]["parent_checkpoint"]["checkpoint_id"] == states[1]["checkpoint"]["checkpoint_id"]
    third = states[2]["checkpoint"]
    for before in (third["checkpoint_id"], third, {"configurable": third}):
        older: list[Any] = await sdk.threads.get_history(thread_id, limit=20, before=before)  # type: ignore[arg-type]
        assert [state["metadata"]["step"] for state in older] == [0, -1]
    inputs: list[Any] = await sdk.threads.get_history(thread_id, metadata={"source": "input"})
    assert [state["metadata"]["step"] for state in inputs] == [-1]
    picked: list[Any] = await sdk.threads.get_history(thread_id, limit=1, select=["values.count", "next"])
    assert picked == [{"next": [], "values": {"count": 3}}]


async def test_history_over_http_defaults_to_one_state(live: Stack) -> None:
    _, thread_id = await counted(live)
    async with Client(live.url) as client:
        path = f"/threads/{thread_id}/history"
        newest = (await client.http.post(path, json={})).json()
        assert [state["metadata"]["step"] for state in newest] == [3]
        assert (await client.http.get(path)).json() == newest
        assert len((await client.http.get(path, params={"limit": 4})).json()) == 4


async def test_a_long_history_is_put_together_from_pages(live: Stack) -> None:
    sdk = get_client(url=live.url)
    thread_id = str((await sdk.threads.create())["thread_id"])
    await sdk.runs.wait(thread_id, "counter", input={"steps": 60, "delay_s": 0.0}, config={"recursion_limit": 100})
    states: list[Any] = await sdk.threads.get_history(thread_id, limit=1000)
    assert [state["metadata"]["step"] for state in states] == list(range(60, -2, -1))
    assert len(await sdk.threads.get_history(thread_id, limit=55)) == 55


async def test_the_state_at_a_checkpoint(live: Stack) -> None:
    sdk, thread_id = await counted(live)
    states: list[Any] = await sdk.threads.get_history(thread_id, limit=20)
    second = states[1]["checkpoint"]
    by_id: Any = await sdk.threads.get_state(thread_id, checkpoint_id=second["checkpoint_id"])
    by_checkpoint: Any = await sdk.threads.get_state(thread_id, checkpoint=second)
    assert by_id == by_checkpoint
    assert by_id["values"]["count"] == 2 and by_id["next"] == ["step"]
    picked: Any = await sdk.threads.get_state(thread_id, select=["values.count"])
    assert picked == {"values": {"count": 3}}


async def test_the_state_of_subgraphs(live: Stack) -> None:
    sdk = get_client(url=live.url)
    thread_id = str((await sdk.threads.create())["thread_id"])
    await sdk.runs.wait(thread_id, "subgraphs", input=HELLO)
    states: list[Any] = await sdk.threads.get_history(thread_id, limit=20)
    (before_team,) = [state for state in states if state["next"] == ["team"]]
    namespace = before_team["tasks"][0]["checkpoint"]["checkpoint_ns"]
    assert namespace.startswith("team:")
    whole: Any = await sdk.threads.get_state(thread_id, checkpoint=before_team["checkpoint"], subgraphs=True)
    assert whole["tasks"][0]["state"]["checkpoint"]["checkpoint_ns"] == namespace
    below: Any = {"checkpoint_ns": namespace}
    inner: list[Any] = await sdk.threads.get_history(thread_id, limit=20, checkpoint=below)
    assert inner and all(state["checkpoint"]["checkpoint_ns"] == namespace for state in inner)
    state: Any = await sdk.threads.get_state(thread_id, checkpoint=inner[0]["checkpoint"])
    assert state["values"] == inner[0]["values"]


async def test_a_factory_builds_the_graph_of_a_state_as_it_built_that_of_the_run(live: Stack) -> None:
    """Its config is that of the thread's last run, also where that run has made the thread."""
    sdk = get_client(url=live.url)
    thread_id = new_thread()
    config: dict[str, Any] = {"plan": {"tasks": [{"acts": []}]}}
    given: Any = {"input": {"messages": []}, "config": {"configurable": config}, "if_not_exists": "create"}
    values: Any = await sdk.runs.wait(thread_id, "planned", **given)
    assert "done" not in values, "the plan without steps has no such channel"
    thread: Any = await sdk.threads.get(thread_id)
    assert thread["config"] == {"configurable": config} and thread["values"] == values
    state: Any = await sdk.threads.get_state(thread_id)
    assert state["values"] == values
    newest: Any = (await sdk.threads.get_history(thread_id))[0]
    assert newest["values"] == values


async def test_a_run_without_a_checkpoint_is_the_start_that_comes_next(live: Stack) -> None:
    """Who opens a page then must not take the thread for one at rest: the React hook goes by `next` alone."""
    sdk, thread_id = await counted(live)
    before: Any = await sdk.threads.get_state(thread_id)
    delayed = await sdk.runs.create(thread_id, "counter", input=COUNT, after_seconds=3600)
    assert await sdk.threads.get_state(thread_id) == before and before["next"] == []
    await sdk.runs.cancel(thread_id, delayed["run_id"], action="rollback")
    # With this durability nothing is stored before the run's end.
    endless: dict[str, Any] = {"steps": 1000, "delay_s": 0.05}
    run = await sdk.runs.create(thread_id, "counter", input=endless, durability="exit")
    assert await sdk.threads.get_state(thread_id) == before | {"next": ["__start__"]}
    picked: Any = await sdk.threads.get_state(thread_id, select=["next"])
    assert picked == {"next": ["__start__"]}
    newest: Any = before["checkpoint"]
    assert await sdk.threads.get_state(thread_id, checkpoint=newest) == before
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True, action="rollback")
    assert await sdk.threads.get_state(thread_id) == before


async def test_something_comes_next_until_a_run_has_stored_its_last_state(live: Stack) -> None:
    """At the end of a superstep all tasks have a result before there is another checkpoint."""
    sdk = get_client(url=live.url)
    thread_id = str((await sdk.threads.create())["thread_id"])
    steps = 150
    counting: dict[str, Any] = {"steps": steps, "delay_s": 0.002}
    await sdk.runs.create(thread_id, "counter", input=counting, config={"recursion_limit": steps + 10})
    seen: set[int] = set()
    while steps not in seen:
        state: Any = await sdk.threads.get_state(thread_id)
        count = state["values"].get("count", 0)
        assert state["next"] or (count == steps and not state["tasks"])
        seen.add(count)
    assert len(seen) > 1, "it was looked at on the way"


async def test_threads_without_runs_and_unknown_ones(live: Stack) -> None:
    async with Client(live.url) as client:
        thread_id = new_thread()
        assert (await client.http.post("/threads", json={"thread_id": thread_id})).status_code == 200
        state = (await client.http.get(f"/threads/{thread_id}/state")).json()
        assert (state["values"], state["next"], state["checkpoint"]) == ({}, [], None)
        assert (await client.http.post(f"/threads/{thread_id}/history", json={"limit": 20})).json() == []
        refused = await client.http.post(f"/threads/{thread_id}/state", json={"values": {"count": 1}})
        assert refused.status_code == 400 and "graph" in refused.json()["detail"]
        for answer in (
            await client.http.get(f"/threads/{new_thread()}/state"),
            await client.http.post(f"/threads/{new_thread()}/history", json={}),
            await client.http.post(f"/threads/{new_thread()}/state", json={"values": {}}),
        ):
            assert (answer.status_code, answer.json()) == (404, {"detail": "Thread not found."})


async def test_a_checkpoint_that_is_not_there_is_not_found(live: Stack) -> None:
    _, thread_id = await counted(live)
    async with Client(live.url) as client:
        path = f"/threads/{thread_id}/state"
        before = (await client.http.get(path)).json()
        missing = {"checkpoint_id": "1f0"}
        for answer in (
            await client.http.get(f"{path}/1f0"),
            await client.http.post(f"{path}/checkpoint", json={"checkpoint": missing}),
            await client.http.post(path, json={"values": {"count": 1}, "checkpoint": missing}),
        ):
            assert (answer.status_code, answer.json()) == (404, {"detail": "Checkpoint not found."})
        assert (await client.http.get(path)).json() == before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("history", {"limit": 0}),
        ("history", {"limit": 1001}),
        ("history", {"limit": "20"}),
        ("history", {"before": 5}),
        ("history", {"before": {"id": "x"}}),
        ("history", {"select": ["nothing"]}),
        ("state", {"values": 5}),
        ("state", {"checkpoint": "x"}),
        ("state/checkpoint", {}),
        ("state/checkpoint", {"checkpoint": {"checkpoint_id": 5}}),
    ],
)
async def test_bad_questions_are_named(live: Stack, path: str, body: dict[str, Any]) -> None:
    _, thread_id = await counted(live)
    async with Client(live.url) as client:
        answer = await client.http.post(f"/threads/{thread_id}/{path}", json=body)
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"][0]["loc"][0] == "body"


async def test_an_update_reaches_state_row_and_stream(live: Stack) -> None:
    sdk, thread_id = await counted(live)
    async with Client(live.url) as client:
        seen = await client.run_events(thread_id)
        placed: Any = await sdk.threads.update_state(thread_id, {"count": 1}, as_node="step")
        assert placed["checkpoint"]["checkpoint_id"] == placed["checkpoint_id"]
        thread: Any = await sdk.threads.get(thread_id)
        assert (thread["status"], thread["values"]["count"]) == ("interrupted", 1)
        state: Any = await sdk.threads.get_state(thread_id)
        assert (state["values"]["count"], state["next"]) == (1, ["step"])
        assert state["checkpoint_id"] == placed["checkpoint_id"]
        async with client.events(thread_id, seen[-1].seq) as stream:
            checkpoint, values = await anext(stream), await anext(stream)
        assert checkpoint.body["params"]["data"]["id"] == placed["checkpoint_id"]
        assert (values.event, values.body["params"]["data"]["count"]) == ("values", 1)
        assert seen[-1].seq < checkpoint.seq < values.seq
    result: Any = await sdk.runs.wait(thread_id, "counter", input=None)
    assert result["count"] == 3
    assert (await sdk.threads.get(thread_id))["status"] == "idle"


async def test_an_update_answers_for_a_node_that_waits(live: Stack) -> None:
    sdk = get_client(url=live.url)
    thread_id = str((await sdk.threads.create())["thread_id"])
    await sdk.runs.wait(thread_id, "approval", input={"amount": 7})
    await sdk.threads.update_state(thread_id, {"approved": True}, as_node="ask")
    thread: Any = await sdk.threads.get(thread_id)
    assert (thread["status"], thread["interrupts"]) == ("interrupted", {})
    result: Any = await sdk.runs.wait(thread_id, "approval", input=None)
    assert result["result"] == "refunded"


async def test_an_older_checkpoint_is_forked(live: Stack) -> None:
    sdk, thread_id = await counted(live)
    states: list[Any] = await sdk.threads.get_history(thread_id, limit=20)
    placed: Any = await sdk.threads.update_state(
        thread_id, None, as_node="__copy__", checkpoint=states[1]["checkpoint"]
    )
    state: Any = await sdk.threads.get_state(thread_id)
    assert (state["checkpoint_id"], state["values"]["count"]) == (placed["checkpoint_id"], 2)
    assert (state["next"], state["metadata"]["source"]) == (["step"], "fork")


async def test_a_thread_that_runs_is_not_updated(live: Stack) -> None:
    sdk = get_client(url=live.url)
    thread_id = str((await sdk.threads.create())["thread_id"])
    run = await sdk.runs.create(thread_id, "counter", input={"steps": 1000, "delay_s": 0.05})

    async def has_begun() -> bool:
        return (await sdk.runs.get(thread_id, run["run_id"]))["status"] == "running"

    await until(has_begun)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await sdk.threads.update_state(thread_id, {"count": 1}, as_node="step")
    assert refused.value.response.status_code == 409
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True)
    assert (await sdk.runs.get(thread_id, run["run_id"]))["status"] == "interrupted"
    await sdk.threads.update_state(thread_id, {"count": 1000}, as_node="step")


async def test_what_the_graph_refuses_changes_nothing(live: Stack) -> None:
    sdk, thread_id = await counted(live)
    before: list[Any] = await sdk.threads.get_history(thread_id, limit=20)
    thread: Any = await sdk.threads.get(thread_id)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await sdk.threads.update_state(thread_id, {"count": 1}, as_node="nobody")
    assert refused.value.response.status_code == 400
    assert "nobody" in refused.value.response.json()["detail"]
    assert await sdk.threads.get_history(thread_id, limit=20) == before
    assert await sdk.threads.get(thread_id) == thread


async def test_updates_and_runs_that_race_leave_a_chain(live: Stack) -> None:
    """Whoever is first wins or both take effect in order; no run loses its attempt, no refused update is seen."""
    sdk, thread_id = await counted(live)

    async def update(client: Client, number: int) -> int:
        body = {"values": {"count": 100 + number}, "as_node": "step"}
        answer = await client.http.post(f"/threads/{thread_id}/state", json=body)
        assert answer.status_code in (200, 409), answer.text
        return 100 + number if answer.status_code == 200 else 0

    async def run() -> None:
        await sdk.runs.wait(thread_id, "counter", input={"steps": 1})

    async with Client(live.url) as client:
        accepted: list[Any] = await asyncio.gather(*(update(client, n) for n in range(6)), *(run() for _ in range(2)))
    history: list[Any] = await sdk.threads.get_history(thread_id, limit=100)
    written = {state["values"]["count"] for state in history if state["metadata"]["source"] == "update"}
    assert written == {number for number in accepted if number}
    for state, older in itertools.pairwise(history):
        assert state["parent_checkpoint"]["checkpoint_id"] == older["checkpoint"]["checkpoint_id"]
    runs: list[Any] = await sdk.runs.list(thread_id)
    assert {each["status"] for each in runs} == {"success"}
    thread: Any = await sdk.threads.get(thread_id)
    assert thread["values"] == history[0]["values"]
