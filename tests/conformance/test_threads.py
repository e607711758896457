"""Making, changing, copying and thinning out threads: the unmodified Python SDK, and what goes over HTTP."""

import asyncio
import uuid
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client

from testkit.client import Client, new_thread
from testkit.stack import Stack
from testkit.wait import until

COUNT: dict[str, Any] = {"steps": 3, "delay_s": 0.0}
STEPS: list[dict[str, Any]] = [
    {"updates": [{"values": COUNT, "as_node": "__input__"}]},
    {"updates": [{"values": COUNT, "as_node": "__start__"}]},
    {"updates": [{"values": {"count": 1}, "as_node": "step"}]},
]


async def test_a_thread_is_made_with_a_state(live: Stack) -> None:
    sdk = get_client(url=live.url)
    thread: Any = await sdk.threads.create(graph_id="counter", supersteps=STEPS, metadata={"from": "elsewhere"})
    assert (thread["status"], thread["values"]["count"]) == ("interrupted", 1)
    assert thread["metadata"] == {"from": "elsewhere", "graph_id": "counter"}
    state: Any = await sdk.threads.get_state(thread["thread_id"])
    assert (state["values"]["count"], state["next"]) == (1, ["step"])
    assert len(await sdk.threads.get_history(thread["thread_id"])) == 3
    result: Any = await sdk.runs.wait(thread["thread_id"], "counter", input=None)
    assert result["count"] == 3


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"supersteps": [{"updates": [{"values": {"count": 1}, "as_node": "nobody"}]}]}, 400),
        ({"supersteps": [{"updates": [{"command": {"goto": {"no": "node"}}, "as_node": "step"}]}]}, 400),
        ({"supersteps": [{"updates": []}]}, 422),
        ({"supersteps": STEPS, "metadata": {}}, 422),
        ({"supersteps": STEPS, "metadata": {"graph_id": "nowhere"}}, 503),
        ({"supersteps": STEPS, "metadata": {"graph_id": "x" * 257}}, 400),
        ({"if_exists": "overwrite"}, 422),
        ({"ttl": 0}, 422),
        ({"ttl": {"ttl": 5, "strategy": "archive"}}, 422),
        ({"thread_id": "a.b"}, 422),
        ({"metadata": {f"k{n}": n for n in range(257)}}, 422),
    ],
)
async def test_a_refused_thread_is_not_there(live: Stack, change: dict[str, Any], status: int) -> None:
    thread_id = new_thread()
    body = {"thread_id": thread_id, "metadata": {"graph_id": "counter"}, **change}
    async with Client(live.url) as client:
        answer = await client.http.post("/threads", json=body)
        assert answer.status_code == status, answer.text
        assert (await client.http.get(f"/threads/{thread_id}")).status_code == 404
        again = await client.http.post("/threads", json={"thread_id": thread_id})
        assert again.status_code == 200, "the id is free"
        assert (await client.http.get(f"/threads/{thread_id}/state")).json()["values"] == {}


async def test_an_existing_thread_is_kept(live: Stack) -> None:
    sdk, thread_id = get_client(url=live.url), new_thread()
    await sdk.threads.create(thread_id=thread_id, metadata={"a": 1}, ttl=60)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await sdk.threads.create(thread_id=thread_id)
    assert refused.value.response.status_code == 409
    known: Any = await sdk.threads.create(
        thread_id=thread_id, metadata={"b": 2}, if_exists="do_nothing", graph_id="counter", supersteps=STEPS
    )
    assert (known["metadata"], known["values"]) == ({"a": 1}, None)


async def test_a_patch_merges_and_may_answer_nothing(live: Stack) -> None:
    sdk = get_client(url=live.url)
    thread_id = str((await sdk.threads.create(metadata={"a": 1, "b": {"c": 1}}))["thread_id"])
    changed: Any = await sdk.threads.update(thread_id, metadata={"b": 2, "d": 3}, ttl={"ttl": 5, "strategy": "delete"})
    assert changed["metadata"] == {"a": 1, "b": 2, "d": 3}
    minimal: Any = sdk.threads.update
    assert await minimal(thread_id, metadata={"a": None}, return_minimal=True) is None
    assert (await sdk.threads.get(thread_id))["metadata"] == {"a": None, "b": 2, "d": 3}
    async with Client(live.url) as client:
        for path in (f"/threads/{new_thread()}", f"/threads/{new_thread()}/copy"):
            method = "POST" if path.endswith("copy") else "PATCH"
            answer = await client.http.request(method, path, json={})
            assert (answer.status_code, answer.json()) == (404, {"detail": "Thread not found."})


async def test_a_key_names_one_thread_request(live: Stack) -> None:
    key, thread_id = {"Idempotency-Key": uuid.uuid4().hex}, new_thread()
    body = {"metadata": {"graph_id": "counter", "of": key["Idempotency-Key"]}, "supersteps": STEPS}
    async with Client(live.url) as client:

        async def create(change: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
            return await client.http.post("/threads", json={**body, **change}, headers=headers)

        first = await create({}, key)
        assert first.json()["values"]["count"] == 1
        assert (await create({}, key)).json() == first.json()
        for other in (
            {"metadata": {"graph_id": "counter"}},
            {"supersteps": None},
            {"thread_id": new_thread()},
            {"if_exists": "do_nothing"},
        ):
            refused = await create(other, key)
            assert refused.status_code == 422
            assert refused.json()["detail"][0]["type"] == "idempotency_key_reused"
        named = {"Idempotency-Key": uuid.uuid4().hex}
        made = await create({"thread_id": thread_id}, named)
        assert (await create({"thread_id": thread_id}, named)).json() == made.json()
        assert (await create({"thread_id": thread_id}, {"Idempotency-Key": "another"})).status_code == 409
        assert (await create({"thread_id": thread_id, "metadata": {"graph_id": "counter"}}, named)).status_code == 422
        assert (await create({"thread_id": thread_id}, {})).status_code == 409
        counted = await client.http.post("/threads/count", json={"metadata": {"of": key["Idempotency-Key"]}})
        assert counted.json() == 2


async def test_a_copy_has_the_state_and_goes_its_own_way(live: Stack) -> None:
    sdk = get_client(url=live.url)
    thread_id = str((await sdk.threads.create(metadata={"a": 1}))["thread_id"])
    await sdk.runs.wait(thread_id, "approval", input={"amount": 7})
    copy: Any = sdk.threads.copy
    copied = await copy(thread_id)
    other = copied["thread_id"]
    original: Any = await sdk.threads.get(thread_id)
    for name in ("metadata", "status", "values", "interrupts"):
        assert copied[name] == original[name], name
    assert other != thread_id and copied["interrupts"]
    assert await sdk.runs.list(other) == []
    ours, theirs = await sdk.threads.get_history(thread_id), await sdk.threads.get_history(other)
    assert [state["values"] for state in ours] == [state["values"] for state in theirs]
    assert all(state["metadata"]["thread_id"] == other for state in theirs)  # type: ignore[index]
    async with Client(live.url) as client:
        async with client.events(other) as stream:
            shown = [await anext(stream) for _ in range(2)]
        assert [frame.event for frame in shown] == ["checkpoints", "values"]
        (asked,) = next(iter(copied["interrupts"].values()))
        answer = await client.command(
            other, "input.respond", interrupt_id=asked["id"], namespace=[], response={"approved": True}
        )
        assert answer["type"] == "success"
        await until(lambda: has_ended(client, other))
        assert (await sdk.threads.get(thread_id)) == original
        assert (await client.http.get(f"/threads/{other}")).json()["values"] != original["values"]


async def has_ended(client: Client, thread_id: str) -> bool:
    """Whether nothing runs or waits on the thread."""
    return bool((await client.http.get(f"/threads/{thread_id}")).json()["status"] == "idle")


async def test_threads_without_a_state_are_copied_too(live: Stack) -> None:
    sdk = get_client(url=live.url)
    for metadata in ({"a": 1}, {"graph_id": "counter"}):
        thread: Any = await sdk.threads.create(metadata=metadata)
        copy: Any = sdk.threads.copy
        copied = await copy(thread["thread_id"])
        assert (copied["metadata"], copied["status"], copied["values"]) == (metadata, "idle", None)


async def test_pruning_keeps_the_latest_state(live: Stack) -> None:
    sdk = get_client(url=live.url)
    ids = [str((await sdk.threads.create())["thread_id"]) for _ in range(2)]
    for thread_id in ids:
        await sdk.runs.wait(thread_id, "counter", input=COUNT)
    busy = str((await sdk.threads.create())["thread_id"])
    run = await sdk.runs.create(busy, "counter", input={"steps": 1000, "delay_s": 0.05})
    before: Any = await sdk.threads.get_state(ids[0])
    named = [ids[0], ids[0], busy, new_thread()]
    assert await sdk.threads.prune(named, strategy="keep_latest") == {"pruned_count": 1}
    (kept,) = await sdk.threads.get_history(ids[0], limit=100)
    assert (kept["values"], kept["checkpoint"]) == (before["values"], before["checkpoint"])
    assert len(await sdk.threads.get_history(ids[1], limit=100)) == 5
    result: Any = await sdk.runs.wait(ids[0], "counter", input={"steps": 5})
    assert result["count"] == 5
    await sdk.runs.cancel(busy, run["run_id"], wait=True)
    assert await sdk.threads.prune([*ids, new_thread()]) == {"pruned_count": 2}
    for thread_id in ids:
        with pytest.raises(httpx.HTTPStatusError) as gone:
            await sdk.threads.get(thread_id)
        assert gone.value.response.status_code == 404


@pytest.mark.parametrize(
    "body", [{}, {"thread_ids": ["x"], "strategy": "most"}, {"thread_ids": ["a.b"]}, {"thread_ids": ["x"] * 1001}]
)
async def test_bad_prunes_are_named(live: Stack, body: dict[str, Any]) -> None:
    async with Client(live.url) as client:
        assert (await client.http.post("/threads/prune", json=body)).status_code == 422


async def test_concurrent_creations_of_one_thread_make_one(live: Stack) -> None:
    thread_id, key = new_thread(), {"Idempotency-Key": uuid.uuid4().hex}
    async with Client(live.url) as client:
        body = {"thread_id": thread_id}
        answers = await asyncio.gather(*(client.http.post("/threads", json=body) for _ in range(10)))
        assert sorted(answer.status_code for answer in answers) == [200, *[409] * 9]
        keyed = await asyncio.gather(*(client.http.post("/threads", json={}, headers=key) for _ in range(10)))
        assert len({answer.json()["thread_id"] for answer in keyed}) == 1
