"""Assistants, driven by the unmodified Python SDK."""

import uuid
from typing import Any

import pytest
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError, UnprocessableEntityError

from slipstream_schemas.ids import system_assistant_id
from testkit.stack import Stack

COUNT: dict[str, Any] = {"steps": 1, "delay_s": 0.0}


@pytest.fixture
def sdk(live: Stack) -> LangGraphClient:
    """A client of the running stack."""
    return get_client(url=live.url)


@pytest.fixture
def mark() -> dict[str, str]:
    """Metadata that only this test's assistants have."""
    return {"mark": str(uuid.uuid4())}


async def test_an_assistant_is_created_read_and_deleted(sdk: LangGraphClient, mark: dict[str, str]) -> None:
    key = str(uuid.uuid4())
    made = await sdk.assistants.create(
        "chat", {"tags": ["t"], "configurable": {"model": "small"}}, assistant_id=key, metadata=mark, name="Support",
        description="Answers",
    )  # fmt: skip
    assert (made["assistant_id"], made["graph_id"], made["version"]) == (key, "chat", 1)
    assert (made["name"], made["description"], made["metadata"]) == ("Support", "Answers", mark)
    # What became the context is copied to it.
    assert made["config"] == {"tags": ["t"], "configurable": {"model": "small"}}
    assert made["context"] == {"model": "small"}
    assert await sdk.assistants.get(key) == made
    with pytest.raises(ConflictError):
        await sdk.assistants.create("chat", assistant_id=key)
    assert await sdk.assistants.create("counter", assistant_id=key, if_exists="do_nothing") == made
    unnamed = await sdk.assistants.create("chat", context={"model": "large"}, metadata=mark)
    assert unnamed["name"] == "Untitled"
    assert (unnamed["config"], unnamed["context"]) == ({"configurable": {"model": "large"}}, {"model": "large"})
    await sdk.assistants.delete(key)
    with pytest.raises(NotFoundError):
        await sdk.assistants.get(key)
    with pytest.raises(NotFoundError):
        await sdk.assistants.delete(key)
    assert await sdk.assistants.count(metadata=mark) == 1
    with pytest.raises(UnprocessableEntityError):
        await sdk.assistants.create("no-such-graph", metadata=mark)


async def test_each_patch_is_a_version_and_an_older_one_can_be_taken_up(
    sdk: LangGraphClient, mark: dict[str, str]
) -> None:
    made = await sdk.assistants.create("chat", context={"model": "small"}, metadata=mark, name="One")
    key = made["assistant_id"]
    second = await sdk.assistants.update(key, metadata={"stage": "test"}, context={"model": "large"})
    assert (second["version"], second["name"]) == (2, "One")
    assert second["metadata"] == {**mark, "stage": "test"}
    assert (second["config"], second["context"]) == ({"configurable": {"model": "large"}}, {"model": "large"})
    third = await sdk.assistants.update(key, graph_id="counter", name="Three", description="third")
    assert (third["version"], third["graph_id"], third["context"]) == (3, "counter", {"model": "large"})
    listed = await sdk.assistants.get_versions(key)
    assert [each["version"] for each in listed] == [3, 2, 1]
    assert (listed[2]["name"], listed[2]["context"], listed[2]["metadata"]) == ("One", {"model": "small"}, mark)
    assert [each["version"] for each in await sdk.assistants.get_versions(key, limit=1, offset=1)] == [2]
    staged = await sdk.assistants.get_versions(key, metadata={"stage": "test"})
    assert [each["version"] for each in staged] == [3, 2]
    back = await sdk.assistants.set_latest(key, 1)
    for field in ("graph_id", "name", "description", "config", "context", "metadata"):
        assert back[field] == made[field], field
    assert back["version"] == 1 and await sdk.assistants.get(key) == back
    # The next version counts on from the highest.
    assert (await sdk.assistants.update(key, name="Four"))["version"] == 4
    with pytest.raises(NotFoundError):
        await sdk.assistants.set_latest(key, 9)
    with pytest.raises(NotFoundError):
        await sdk.assistants.update(str(uuid.uuid4()), name="nobody")
    with pytest.raises(UnprocessableEntityError):
        await sdk.assistants.update(key, graph_id="no-such-graph")
    assert len(await sdk.assistants.get_versions(key)) == 4


async def test_search_filters_sorts_pages_and_selects(sdk: LangGraphClient, mark: dict[str, str]) -> None:
    names = ["delta 100%", "Alpha", "bravo", "charlie"]
    keys: dict[str, str] = {}
    for number, name in enumerate(names):
        metadata = {**mark, "odd": number % 2 == 1, "nested": {"number": number}}
        made = await sdk.assistants.create("counter" if number else "chat", metadata=metadata, name=name)
        keys[name] = made["assistant_id"]

    async def found(**query: Any) -> list[str]:
        filters = {**mark, **query.pop("metadata", {})}
        return [each["name"] for each in await sdk.assistants.search(metadata=filters, **query)]

    assert await found() == names[::-1]
    assert await found(metadata={"odd": True}) == ["charlie", "Alpha"]
    assert await found(metadata={"nested": {"number": 2}}) == ["bravo"]
    assert await found(graph_id="chat") == ["delta 100%"]
    assert await found(name="ALPH") == ["Alpha"] and await found(name="100%") == ["delta 100%"]
    assert await found(name="a_p") == []
    assert await found(sort_by="name", sort_order="asc") == ["Alpha", "bravo", "charlie", "delta 100%"]
    assert await found(sort_by="created_at", sort_order="asc") == names
    await sdk.assistants.update(keys["Alpha"], description="touched")
    assert (await found(sort_by="updated_at"))[0] == "Alpha"
    by_id = [each["assistant_id"] for each in await sdk.assistants.search(metadata=mark, sort_by="assistant_id")]
    assert by_id == sorted(keys.values(), reverse=True)
    page = await sdk.assistants.search(metadata=mark, limit=3, response_format="object")
    assert len(page["assistants"]) == 3 and page["next"] == "3"
    last = await sdk.assistants.search(metadata=mark, limit=3, offset=3, response_format="object")
    assert [each["name"] for each in last["assistants"]] == ["delta 100%"] and last["next"] is None
    chosen: list[Any] = await sdk.assistants.search(metadata=mark, name="bravo", select=["assistant_id", "name"])
    assert chosen == [{"assistant_id": keys["bravo"], "name": "bravo"}]
    assert await sdk.assistants.count(metadata=mark) == 4
    assert await sdk.assistants.count(metadata=mark, graph_id="counter", name="A") == 3


async def test_a_graph_has_an_assistant_of_its_own(sdk: LangGraphClient) -> None:
    own = await sdk.assistants.get("chat")
    assert own["assistant_id"] == system_assistant_id("chat") and own["graph_id"] == own["name"] == "chat"
    assert own["metadata"]["created_by"] == "system"  # type: ignore[index]
    assert await sdk.assistants.get(own["assistant_id"]) == own
    assert [each["version"] for each in await sdk.assistants.get_versions("chat")][-1] == 1
    for key in ("chat", own["assistant_id"]):
        with pytest.raises(ConflictError):
            await sdk.assistants.delete(key)
        with pytest.raises(ConflictError):
            await sdk.assistants.create("counter", assistant_id=key)
        assert (await sdk.assistants.create("counter", assistant_id=key, if_exists="do_nothing")) == own


async def test_a_graph_is_drawn(sdk: LangGraphClient) -> None:
    drawn: Any = await sdk.assistants.get_graph("subgraphs")
    assert {node["id"] for node in drawn["nodes"]} == {"__start__", "team", "review", "__end__"}
    assert {"source": "team", "target": "review"} in drawn["edges"]
    one: Any = await sdk.assistants.get_graph(system_assistant_id("subgraphs"), xray=1)
    assert {"team:researcher", "review"} <= {node["id"] for node in one["nodes"]}
    whole: Any = await sdk.assistants.get_graph("subgraphs", xray=True)
    assert "team:researcher:research" in {node["id"] for node in whole["nodes"]}
    made = await sdk.assistants.create("subgraphs")
    assert await sdk.assistants.get_graph(made["assistant_id"]) == drawn


async def test_schemas_and_subgraphs(sdk: LangGraphClient) -> None:
    schemas: Any = await sdk.assistants.get_schemas("counter")
    assert schemas["graph_id"] == "counter"
    assert set(schemas["input_schema"]["properties"]) == {"count", "steps", "delay_s"}
    assert set(schemas["state_schema"]["properties"]) == {"count", "steps", "delay_s"}
    assert {"output_schema", "config_schema", "context_schema"} <= set(schemas)
    assert set(await sdk.assistants.get_subgraphs("subgraphs")) == {"team"}
    assert set(await sdk.assistants.get_subgraphs("subgraphs", recurse=True)) == {"team", "team|researcher"}
    nested: Any = await sdk.assistants.get_subgraphs("subgraphs", namespace="team|researcher", recurse=True)
    assert set(nested) == {"team|researcher"}
    assert "messages" in nested["team|researcher"]["state_schema"]["properties"]
    assert await sdk.assistants.get_subgraphs("subgraphs", namespace="nobody") == {}
    assert await sdk.assistants.get_subgraphs("counter") == {}


async def test_a_run_takes_the_newest_version(sdk: LangGraphClient, mark: dict[str, str]) -> None:
    made = await sdk.assistants.create("counter", context={"model": "small", "depth": 1}, metadata=mark)
    key = made["assistant_id"]
    thread_id = (await sdk.threads.create())["thread_id"]
    run = await sdk.runs.create(thread_id, key, input=COUNT, metadata={"mine": True})
    assert (run["assistant_id"], run["metadata"]) == (key, {**mark, "mine": True})
    await sdk.runs.join(thread_id, run["run_id"])
    thread: Any = await sdk.threads.get(thread_id)
    assert thread["config"]["configurable"] == {"model": "small", "depth": 1}
    assert thread["metadata"]["assistant_id"] == key and thread["metadata"]["graph_id"] == "counter"
    await sdk.assistants.update(key, context={"model": "large"}, metadata={"mine": False})
    await sdk.runs.wait(thread_id, key, input=COUNT, context={"depth": 7})
    thread = await sdk.threads.get(thread_id)
    assert thread["config"]["configurable"] == {"model": "large", "depth": 7}
    newest = (await sdk.runs.list(thread_id))[0]
    assert newest["metadata"] == {**mark, "mine": False}
    state: Any = await sdk.threads.get_state(thread_id)
    assert state["metadata"]["mark"] == mark["mark"] and state["metadata"]["assistant_id"] == key
    await sdk.assistants.set_latest(key, 1)
    await sdk.runs.wait(thread_id, key, input=COUNT)
    thread = await sdk.threads.get(thread_id)
    assert thread["config"]["configurable"] == {"model": "small", "depth": 1}


async def test_a_waiting_run_keeps_the_version_that_it_was_accepted_with(sdk: LangGraphClient) -> None:
    key = (await sdk.assistants.create("counter", metadata={"stage": "one"}))["assistant_id"]
    thread_id = (await sdk.threads.create())["thread_id"]
    slow = await sdk.runs.create(thread_id, "counter", input={"steps": 1000, "delay_s": 0.05})
    waiting = await sdk.runs.create(thread_id, key, input={"count": 0, **COUNT})
    await sdk.assistants.update(key, metadata={"stage": "two"})
    await sdk.assistants.delete(key)
    await sdk.runs.cancel(thread_id, slow["run_id"], wait=True)
    await sdk.runs.join(thread_id, waiting["run_id"])
    assert (await sdk.runs.get(thread_id, waiting["run_id"]))["status"] == "success"
    state: Any = await sdk.threads.get_state(thread_id)
    assert (state["metadata"]["run_id"], state["metadata"]["stage"]) == (waiting["run_id"], "one")


async def test_a_run_of_an_unknown_assistant_is_refused(sdk: LangGraphClient) -> None:
    thread_id = (await sdk.threads.create())["thread_id"]
    with pytest.raises(NotFoundError):
        await sdk.runs.create(thread_id, str(uuid.uuid4()), input=COUNT)
    with pytest.raises(UnprocessableEntityError) as refused:
        await sdk.runs.create(thread_id, "no-such-graph", input=COUNT)
    assert "counter" in refused.value.response.text
    assert await sdk.runs.list(thread_id) == []


async def test_delete_takes_the_threads_along_when_asked(sdk: LangGraphClient) -> None:
    doomed = (await sdk.assistants.create("counter"))["assistant_id"]
    kept = (await sdk.assistants.create("counter"))["assistant_id"]
    threads: list[str] = []
    for key in (doomed, doomed, kept):
        thread_id = (await sdk.threads.create())["thread_id"]
        await sdk.runs.wait(thread_id, key, input=COUNT)
        threads.append(thread_id)
    await sdk.assistants.delete(kept)
    assert (await sdk.threads.get(threads[2]))["status"] == "idle"
    await sdk.assistants.delete(doomed, delete_threads=True)
    for thread_id in threads[:2]:
        with pytest.raises(NotFoundError):
            await sdk.threads.get(thread_id)
    assert await sdk.threads.search(metadata={"assistant_id": doomed}) == []
    assert len(await sdk.threads.search(metadata={"assistant_id": kept})) == 1


def test_the_synchronous_client(live: Stack, mark: dict[str, str]) -> None:
    sdk = get_sync_client(url=live.url)
    key = sdk.assistants.create("counter", metadata=mark)["assistant_id"]
    assert sdk.assistants.update(key, name="Sync")["version"] == 2
    assert [each["assistant_id"] for each in sdk.assistants.search(metadata=mark)] == [key]
    assert sdk.assistants.get_graph(key)["nodes"]
    sdk.assistants.delete(key)
    assert sdk.assistants.count(metadata=mark) == 0
