"""The unmodified Python SDK's store client against a running server, and the same store in graphs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.client import LangGraphClient

from testkit.client import new_thread
from testkit.servers import NatsServer, fresh_database
from testkit.stack import Stack

GRAPHS = '''
"""A graph that remembers in all the ways that LangGraph has, and an embedding of four words."""

from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.config import get_store
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import InjectedStore, ToolNode
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore

WORDS = ("apple", "bread", "cheese", "drum")


def embed(texts: list[str]) -> list[list[float]]:
    if any("poison" in text for text in texts):
        raise ValueError("secret of the embed function")
    return [[0.01, *(float(text.count(word)) for word in WORDS)] for text in texts]


class State(TypedDict, total=False):
    user: str
    messages: list[Any]
    found: list[Any]


@tool
def note(text: str, store: Annotated[BaseStore, InjectedStore()]) -> str:
    """Keep a note."""
    store.put(("notes", "by tool"), "n", {"text": text})
    return "kept"


async def by_runtime(state: State, runtime: Runtime[Any]) -> dict[str, Any]:
    assert runtime.store is not None
    await runtime.store.aput(("notes", state["user"]), "runtime", {"text": "an apple by runtime"})
    call = {"name": "note", "args": {"text": "a drum by tool"}, "id": "c1", "type": "tool_call"}
    return {"messages": [AIMessage("", tool_calls=[call])]}


def by_get_store(state: State) -> dict[str, Any]:
    get_store().put(("notes", state["user"]), "sync", {"text": "cheese in a sync node"})
    return {}


async def recall(state: State, store: BaseStore) -> dict[str, Any]:
    found = await store.asearch(("notes",), query="drum", limit=1)
    return {"found": [{"namespace": item.namespace, "text": item.value["text"]} for item in found]}


builder = StateGraph(State)
builder.add_node("by_runtime", by_runtime).add_node("tools", ToolNode([note]))
builder.add_node("by_get_store", by_get_store).add_node("recall", recall)
builder.add_edge(START, "by_runtime").add_edge("by_runtime", "tools").add_edge("tools", "by_get_store")
graph = builder.add_edge("by_get_store", "recall").add_edge("recall", END).compile()
'''
CONFIG: dict[str, Any] = {
    "graphs": {"remembers": "./agent.py:graph"},
    "store": {
        "index": {"dims": 5, "embed": "./agent.py:embed", "fields": ["text", "tags[*]"]},
        "ttl": {"default_ttl": 60, "refresh_on_read": True},
    },
}


@pytest.fixture(scope="module")
def shop(nats_server: NatsServer, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack whose langgraph.json configures semantic search and a time to live."""
    root: Path = tmp_path_factory.mktemp("store-stack")
    (root / "agent.py").write_text(GRAPHS)
    (root / "langgraph.json").write_text(json.dumps(CONFIG))
    with (
        fresh_database(postgres_dsn) as dsn,
        Stack(nats_server.url, dsn, "store-conformance", root, root / "langgraph.json") as opened,
    ):
        opened.prepare()
        yield opened.start()


def client(stack: Stack) -> LangGraphClient:
    """A client of the running stack."""
    return get_client(url=stack.url)


def keys(found: Any) -> list[str]:
    """The keys of a search's items, in order."""
    return [item["key"] for item in found["items"]]


async def test_an_item_is_put_read_replaced_and_deleted(live: Stack) -> None:
    store, home = client(live).store, ["users", "ann", "päckchen"]
    await store.put_item(home, "prefs", {"theme": "dark", "sizes": [1, 2.5, None]})
    first = await store.get_item(home, "prefs")
    assert first["value"] == {"theme": "dark", "sizes": [1, 2.5, None]}
    assert (first["namespace"], first["key"]) == (home, "prefs")
    assert first["created_at"] == first["updated_at"]
    await store.put_item(home, "prefs", {"theme": "light"})
    second = await store.get_item(home, "prefs")
    assert second["value"] == {"theme": "light"}
    assert second["created_at"] == first["created_at"] < second["updated_at"]
    assert await store.get_item(home[:2], "prefs") is None
    await store.delete_item(home, "prefs")
    assert await store.get_item(home, "prefs") is None
    await store.delete_item(home, "prefs")


async def test_search_below_a_namespace_newest_first_in_pages(live: Stack) -> None:
    store = client(live).store
    for number in range(5):
        await store.put_item(["paged", f"n{number % 2}"], f"k{number}", {"number": number})
    await store.put_item(["paged-not"], "other", {"number": 9})
    assert keys(await store.search_items(["paged"])) == ["k4", "k3", "k2", "k1", "k0"]
    assert keys(await store.search_items(["paged"], limit=2, offset=2)) == ["k2", "k1"]
    assert keys(await store.search_items(["paged", "n1"])) == ["k3", "k1"]
    assert keys(await store.search_items(["page_"])) == []
    (item,) = (await store.search_items(["paged", "n0"], limit=1))["items"]
    assert item["value"] == {"number": 4} and item["namespace"] == ["paged", "n0"]


async def test_filters_with_operators(live: Stack) -> None:
    store = client(live).store
    people: dict[str, dict[str, Any]] = {
        "ann": {"age": 9, "name": "Ann", "at": {"city": "Bern"}, "tags": ["a", "b"], "ok": True, "gone": None},
        "bob": {"age": 10, "name": "Bob", "at": {"city": "Rome"}, "tags": ["a"], "ok": False},
        "cem": {"age": 100.5, "name": "Cem"},
        "dot": {"age": "50", "name": "Dot"},
    }
    for key, value in people.items():
        await store.put_item(["people"], key, value)
    expected: list[tuple[dict[str, Any], list[str]]] = [
        ({"name": "Ann"}, ["ann"]),
        ({"ok": True}, ["ann"]),
        ({"gone": None}, ["ann"]),
        ({"tags": ["a", "b"]}, ["ann"]),
        ({"at": {"$eq": {"city": "Rome"}}}, ["bob"]),
        ({"name": {"$ne": "Ann"}}, ["bob", "cem", "dot"]),
        ({"age": {"$gt": 9}}, ["bob", "cem"]),
        ({"age": {"$gte": 9, "$lt": 100}}, ["ann", "bob"]),
        ({"age": {"$lte": 100.5}}, ["ann", "bob", "cem"]),
        ({"name": {"$gte": "Bob", "$lt": "D"}}, ["bob", "cem"]),
        ({"name": {"$gt": "Ann"}, "ok": False}, ["bob"]),
        ({"nobody": "x"}, []),
        ({}, ["ann", "bob", "cem", "dot"]),
    ]
    for wanted, names in expected:
        assert sorted(keys(await store.search_items(["people"], filter=wanted))) == names, wanted


async def test_namespaces_by_prefix_suffix_and_depth(live: Stack) -> None:
    store = client(live).store
    for path in (["tree", "a", "x"], ["tree", "a", "y"], ["tree", "b", "x", "deep"], ["tree", "b", "x"], ["tree2"]):
        await store.put_item(path, "k", {})

    async def listed(**asked: Any) -> list[list[str]]:
        return (await store.list_namespaces(prefix=["tree"], **asked))["namespaces"]

    everything = [["tree", "a", "x"], ["tree", "a", "y"], ["tree", "b", "x"], ["tree", "b", "x", "deep"]]
    assert await listed() == everything
    assert await listed(suffix=["x"]) == [["tree", "a", "x"], ["tree", "b", "x"]]
    assert await listed(max_depth=2) == [["tree", "a"], ["tree", "b"]]
    assert await listed(limit=2, offset=1) == everything[1:3]
    wild = await store.list_namespaces(prefix=["tree", "*", "x"])
    assert wild["namespaces"] == [["tree", "a", "x"], ["tree", "b", "x"], ["tree", "b", "x", "deep"]]
    assert ["tree2"] in (await store.list_namespaces(limit=1000))["namespaces"]


def test_the_sync_client(live: Stack) -> None:
    store = get_sync_client(url=live.url).store
    store.put_item(["sync"], "k", {"n": 1})
    assert store.get_item(["sync"], "k")["value"] == {"n": 1}
    assert keys(store.search_items(["sync"], filter={"n": 1})) == ["k"]
    assert store.list_namespaces(prefix=["sync"])["namespaces"] == [["sync"]]
    store.delete_item(["sync"], "k")
    assert store.get_item(["sync"], "k") is None


async def test_semantic_search_finds_the_closest_first(shop: Stack) -> None:
    store, home = client(shop).store, ["food"]
    await store.put_item(home, "a", {"text": "an apple", "kind": "fruit"})
    await store.put_item(home, "ab", {"text": "apple on bread", "kind": "meal"})
    await store.put_item(home, "b", {"text": "bread", "kind": "meal"})
    await store.put_item(home, "tagged", {"text": "nothing", "tags": ["drum", "cheese"]})
    await store.put_item(home, "hidden", {"text": "apple apple"}, index=False)
    await store.put_item(home, "titled", {"text": "drum", "title": "cheese"}, index=["title"])
    found = await store.search_items(home, query="apple")
    assert keys(found)[:2] == ["a", "ab"] and "hidden" not in keys(found)
    scores: list[Any] = [item.get("score") for item in found["items"]]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0.99
    assert set(keys(await store.search_items(home, query="cheese", limit=2))) == {"tagged", "titled"}
    assert keys(await store.search_items(home, query="apple", filter={"kind": "meal"})) == ["ab", "b"]
    paged = [keys(await store.search_items(home, query="apple", limit=1, offset=each)) for each in range(6)]
    assert [key for page in paged for key in page] == keys(found)


async def test_an_item_is_not_found_by_what_it_held_before(shop: Stack) -> None:
    store = client(shop).store
    await store.put_item(["changed"], "k", {"text": "bread", "tags": ["drum", "cheese"]})
    await store.put_item(["changed"], "k", {"text": "bread", "tags": []})
    (item,) = (await store.search_items(["changed"], query="drum"))["items"]
    assert (item.get("score") or 0) < 0.1
    await store.put_item(["changed"], "k", {"text": "bread"}, index=False)
    assert keys(await store.search_items(["changed"], query="bread")) == []


async def test_graphs_have_the_same_store(shop: Stack) -> None:
    sdk = client(shop)
    await sdk.store.put_item(["notes", "by api"], "n", {"text": "bread by api"})
    for thread_id in (new_thread(), None):
        if thread_id is not None:
            await sdk.threads.create(thread_id=thread_id)
        done: Any = await sdk.runs.wait(thread_id, "remembers", input={"user": "ann"})
        assert done["found"] == [{"namespace": ["notes", "by tool"], "text": "a drum by tool"}]
    found = await sdk.store.search_items(["notes", "ann"])
    assert {item["key"]: item["value"]["text"] for item in found["items"]} == {
        "runtime": "an apple by runtime", "sync": "cheese in a sync node",
    }  # fmt: skip
    listed = await sdk.store.list_namespaces(prefix=["notes"])
    assert listed["namespaces"] == [["notes", "ann"], ["notes", "by api"], ["notes", "by tool"]]


def seconds_left(stack: Stack, key: str) -> float | None:
    """How long an item of `ttl` still lives; None for one that lives for ever."""
    with psycopg.connect(stack.dsn) as connection:
        query = "SELECT extract(epoch FROM expires_at - now()) FROM store WHERE prefix = 'default.ttl' AND key = %s"
        row = connection.execute(query, (key,)).fetchone()
    assert row is not None
    return None if row[0] is None else float(row[0])


def age(stack: Stack, key: str, seconds: float) -> None:
    """Let that much time of an item's life be over."""
    with psycopg.connect(stack.dsn) as connection:
        change = "UPDATE store SET expires_at = expires_at - make_interval(secs => %s) WHERE key = %s"
        connection.execute(change, (seconds, key))


async def test_time_to_live(shop: Stack) -> None:
    store, home = client(shop).store, ["ttl"]
    await store.put_item(home, "default", {"n": 1})
    await store.put_item(home, "own", {"n": 1}, ttl=2)
    left, own = seconds_left(shop, "default"), seconds_left(shop, "own")
    assert left and own and 3000 < left <= 3600 and 60 < own <= 120
    age(shop, "own", 100)
    await store.get_item(home, "own", refresh_ttl=False)
    await store.search_items(home, refresh_ttl=False)
    assert (seconds_left(shop, "own") or 0) <= 20, "a read that does not refresh leaves the time alone"
    await store.get_item(home, "own")
    assert (seconds_left(shop, "own") or 0) > 60, "refresh_on_read begins it anew"
    age(shop, "own", 100)
    await store.search_items(home, refresh_ttl=True)
    assert (seconds_left(shop, "own") or 0) > 60
    age(shop, "own", 121)
    assert await store.get_item(home, "own") is None, "what has expired is gone, swept or not"
    assert keys(await store.search_items(home)) == ["default"]
    await store.put_item(home, "own", {"n": 2}, ttl=2)
    assert (await store.get_item(home, "own"))["value"] == {"n": 2}
