"""Assistants where it is tight: several instances, graphs of every kind, no runner, new code, rebuilds, repetitions."""

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from slipstream_nats.connection import connect
from slipstream_postgres.pool import open_database
from slipstream_projector.rebuild import rebuild
from slipstream_schemas.ids import system_assistant_id
from slipstream_schemas.limits import ASSISTANT_BYTES_MAX, GRAPH_XRAY_MAX
from testkit.servers import NatsServer
from testkit.stack import Stack, fresh_stack

DEADLINE_S = 30
GRAPHS = """
import dataclasses
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from typing_extensions import TypedDict

@dataclasses.dataclass
class Choice:
    model: str
    depth: int = 1

class Asked(TypedDict, total=False):
    question: str

class Told(TypedDict, total=False):
    answer: dict

class Both(Asked, Told, total=False):
    pass

def tell(state, runtime: Runtime[Choice], config):
    chosen = runtime.context and dataclasses.asdict(runtime.context)
    shown = {k: v for k, v in config["configurable"].items() if k in ("model", "depth", "colour")}
    return {"answer": {"context": chosen, "configurable": shown, "created_by": config["metadata"]["created_by"]}}

chosen = StateGraph(Both, context_schema=Choice, input_schema=Asked, output_schema=Told)
chosen = chosen.add_node("tell", tell).add_edge(START, "tell").compile()

class Opaque:
    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        raise RuntimeError("this type cannot be described")

class Hidden(TypedDict, total=False):
    secret: Opaque

opaque = StateGraph(Hidden).add_node("one", lambda state: {}).add_edge(START, "one").compile()

def made(config):
    name = config["configurable"].get("node", "NODE")
    return StateGraph(Asked).add_node(name, lambda state: {}).add_edge(START, name)

def broken(config):
    raise ValueError("a secret of the factory")
"""
NAMES = ("chosen", "opaque", "made", "broken")


def write_graphs(folder: Path, text: str = GRAPHS) -> Path:
    """A `langgraph.json` with the graphs above."""
    (folder / "asked.py").write_text(text)
    config = folder / "langgraph.json"
    config.write_text(json.dumps({"graphs": {name: f"./asked.py:{name}" for name in NAMES}}))
    return config


@pytest.fixture(scope="module")
def two(nats_server: NatsServer, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two APIs on the graphs above."""
    root = tmp_path_factory.mktemp("assistants")
    with fresh_stack(nats_server.url, postgres_dsn, root, write_graphs(root)) as opened:
        yield opened.start(apis=2)


@pytest.fixture
def http(two: Stack) -> Iterator[httpx.Client]:
    """A plain client of the first API."""
    with httpx.Client(base_url=two.url, timeout=DEADLINE_S) as opened:
        yield opened


def create(http: httpx.Client, **body: Any) -> dict[str, Any]:
    """A new assistant of the graph `chosen`."""
    answer = http.post("/assistants", json={"graph_id": "chosen", **body}).raise_for_status()
    made: dict[str, Any] = answer.json()
    return made


def told(http: httpx.Client, assistant_id: str, **body: Any) -> dict[str, Any]:
    """What the graph saw of config and context."""
    run = {"assistant_id": assistant_id, "input": {"question": "?"}, **body}
    answer: dict[str, Any] = http.post("/runs/wait", json=run).raise_for_status().json()["answer"]
    return answer


def test_a_graph_sees_the_assistant_below_the_request(http: httpx.Client) -> None:
    key = create(http, context={"model": "small", "depth": 2}, metadata={"created_by": "alice"})["assistant_id"]
    seen = told(http, key)
    assert seen["context"] == seen["configurable"] == {"model": "small", "depth": 2}
    assert seen["created_by"] == "alice"
    assert told(http, key, context={"depth": 3})["context"] == {"model": "small", "depth": 3}
    # What is given in the old place reaches the new one, but for keys that the graph's context does not have.
    seen = told(http, key, config={"configurable": {"model": "large", "colour": "red"}})
    assert seen["context"] == {"model": "large", "depth": 2}
    assert seen["configurable"] == {"model": "large", "depth": 2, "colour": "red"}
    assert told(http, "chosen")["context"] is None
    assert told(http, "chosen")["created_by"] == "system"
    both = {"config": {"configurable": {"model": "a"}}, "context": {"model": "b"}}
    for path in ("/assistants", "/runs/wait"):
        answer = http.post(path, json={"graph_id": "chosen", "assistant_id": key, "if_exists": "do_nothing", **both})
        assert answer.status_code == 400 and "configurable and context" in answer.json()["detail"]


def test_a_patch_on_one_instance_rules_the_next_run_on_another(two: Stack, http: httpx.Client) -> None:
    key = create(http, context={"model": "0"})["assistant_id"]
    with httpx.Client(base_url=two.apis[1].url or "", timeout=DEADLINE_S) as other:
        for number in range(1, 4):
            assert told(other, key)["context"]["model"] == str(number - 1)
            http.patch(f"/assistants/{key}", json={"context": {"model": str(number)}}).raise_for_status()
            assert other.get(f"/assistants/{key}").json()["version"] == number + 1
        assert told(other, key)["context"]["model"] == "3"
        http.delete(f"/assistants/{key}").raise_for_status()
        assert other.post("/runs/wait", json={"assistant_id": key, "input": {}}).status_code == 404


async def test_concurrent_patches_each_make_a_version(two: Stack) -> None:
    async with httpx.AsyncClient(base_url=two.url, timeout=DEADLINE_S) as http:
        body = {"graph_id": "chosen", "assistant_id": str(uuid.uuid4())}
        created = await asyncio.gather(*(http.post("/assistants", json=body) for _ in range(8)))
        assert sorted(answer.status_code for answer in created) == [200] + [409] * 7
        path = f"/assistants/{body['assistant_id']}"
        patches = [http.patch(path, json={"metadata": {str(n): n}}) for n in range(16)]
        answers = [answer.raise_for_status().json() for answer in await asyncio.gather(*patches)]
        assert sorted(answer["version"] for answer in answers) == list(range(2, 18))
        assert (await http.get(path)).json()["metadata"] == {str(n): n for n in range(16)}
        versions = (await http.post(f"{path}/versions", json={"limit": 100})).json()
        assert [len(each["metadata"]) for each in versions] == list(range(16, -1, -1))


def test_a_repeated_creation_makes_one_assistant(http: httpx.Client) -> None:
    headers, body = {"idempotency-key": str(uuid.uuid4())}, {"graph_id": "chosen", "context": {"model": "m"}}
    first = http.post("/assistants", json=body, headers=headers).json()
    assert http.post("/assistants", json=body, headers=headers).json() == first
    patched = http.patch(f"/assistants/{first['assistant_id']}", json={"name": "later"}).json()
    assert http.post("/assistants", json=body, headers=headers).json() == patched
    other = http.post("/assistants", json={**body, "name": "other"}, headers=headers)
    assert (other.status_code, other.json()["detail"][0]["type"]) == (422, "idempotency_key_reused")
    named = {**body, "assistant_id": first["assistant_id"], "name": "other"}
    assert http.post("/assistants", json=named, headers=headers).status_code == 409


def test_an_assistant_has_a_size(http: httpx.Client) -> None:
    large = "x" * (ASSISTANT_BYTES_MAX // 2)
    made = create(http, metadata={"one": large})
    path = f"/assistants/{made['assistant_id']}"
    # Metadata is merged, so that what is small enough by itself may be too much together.
    refused = http.patch(path, json={"metadata": {"two": large}})
    assert refused.status_code == 413 and str(ASSISTANT_BYTES_MAX) in refused.json()["detail"]
    assert http.get(path).json() == made
    assert len(http.post(f"{path}/versions", json={}).json()) == 1
    total = http.post("/assistants/count", json={}).json()
    body = {"graph_id": "chosen", "context": {"prompt": large}, "config": {"tags": [large]}}
    assert http.post("/assistants", json=body).status_code == 413
    assert http.post("/assistants/count", json={}).json() == total


def test_search_says_the_true_total(http: httpx.Client) -> None:
    mark = {"mark": str(uuid.uuid4())}
    for _ in range(3):
        create(http, metadata=mark)
    page = http.post("/assistants/search", json={"metadata": mark, "limit": 1})
    assert (page.headers["x-pagination-total"], page.headers["x-pagination-next"]) == ("3", "1")
    past = http.post("/assistants/search", json={"metadata": mark, "limit": 1, "offset": 5})
    assert (past.json(), past.headers["x-pagination-total"]) == ([], "3")
    assert "x-pagination-next" not in past.headers


def test_threads_are_deleted_only_when_all_of_them_are_known(two: Stack, http: httpx.Client) -> None:
    key = create(http)["assistant_id"]
    (projector,) = (service for service in two.services if service.name.startswith("projector"))
    projector.pause()
    try:
        thread_id = http.post("/threads", json={"metadata": {"assistant_id": key}}).json()["thread_id"]
        refused = http.delete(f"/assistants/{key}?delete_threads=true")
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
    finally:
        projector.resume()
    assert http.get(f"/threads/{thread_id}").status_code == 200
    assert http.delete(f"/assistants/{key}?delete_threads=true").status_code == 204
    assert http.get(f"/threads/{thread_id}").status_code == 404


def test_schemas_are_those_of_input_output_state_and_context(http: httpx.Client) -> None:
    shown = http.get("/assistants/chosen/schemas").json()
    assert shown["graph_id"] == "chosen"
    assert set(shown["input_schema"]["properties"]) == {"question"}
    assert set(shown["output_schema"]["properties"]) == {"answer"}
    assert set(shown["state_schema"]["properties"]) == {"question", "answer"}
    assert shown["config_schema"] == shown["context_schema"]
    assert set(shown["context_schema"]["properties"]) == {"model", "depth"}
    opaque = http.get("/assistants/opaque/schemas").json()
    assert opaque["graph_id"] == "opaque" and opaque["input_schema"] is opaque["state_schema"] is None


def test_a_factory_is_asked_with_the_assistants_config(http: httpx.Client) -> None:
    plain = {node["id"] for node in http.get("/assistants/made/graph").json()["nodes"]}
    assert plain == {"__start__", "NODE", "__end__"}
    key = create(http, graph_id="made", config={"configurable": {"node": "mine"}})["assistant_id"]
    assert "mine" in {node["id"] for node in http.get(f"/assistants/{key}/graph").json()["nodes"]}
    assert "mine" not in {node["id"] for node in http.get("/assistants/made/graph").json()["nodes"]}
    for question in ("graph", "schemas", "subgraphs"):
        answer = http.get(f"/assistants/broken/{question}")
        assert answer.status_code == 422 and "ValueError" in answer.text and "secret" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/assistants", {}, 422),
        ("POST", "/assistants", {"graph_id": 5}, 422),
        ("POST", "/assistants", {"graph_id": "nobody"}, 422),
        ("POST", "/assistants", {"graph_id": "chosen", "assistant_id": "a.b"}, 422),
        ("POST", "/assistants", {"graph_id": "chosen", "assistant_id": ""}, 422),
        ("POST", "/assistants", {"graph_id": "chosen", "assistant_id": "chosen"}, 409),
        ("POST", "/assistants", {"graph_id": "chosen", "if_exists": "maybe"}, 422),
        ("POST", "/assistants", {"graph_id": "chosen", "config": []}, 422),
        ("POST", "/assistants", {"graph_id": "chosen", "config": {"configurable": []}}, 422),
        ("POST", "/assistants", {"graph_id": "chosen", "config": {"recursion_limit": "x"}}, 422),
        ("POST", "/assistants", {"graph_id": "chosen", "metadata": {str(n): n for n in range(257)}}, 422),
        ("POST", "/assistants/search", {"limit": 0}, 422),
        ("POST", "/assistants/search", {"limit": 1001}, 422),
        ("POST", "/assistants/search", {"offset": -1}, 422),
        ("POST", "/assistants/search", {"sort_by": "name; drop table assistants"}, 422),
        ("POST", "/assistants/search", {"sort_order": "up"}, 422),
        ("POST", "/assistants/search", {"select": ["secret"]}, 422),
        ("POST", "/assistants/count", {"metadata": []}, 422),
        ("GET", "/assistants/nobody", None, 404),
        ("GET", "/assistants/%00", None, 404),
        ("PATCH", "/assistants/nobody", {"name": "x"}, 404),
        ("PATCH", "/assistants/chosen", {"graph_id": "nobody"}, 422),
        ("PATCH", "/assistants/chosen", {"config": {"configurable": {"a": 1}}, "context": {"a": 1}}, 400),
        ("DELETE", "/assistants/nobody", None, 404),
        ("DELETE", "/assistants/chosen", None, 409),
        ("DELETE", "/assistants/chosen?delete_threads=true", None, 409),
        ("POST", "/assistants/nobody/versions", {}, 404),
        ("POST", "/assistants/chosen/versions", {"limit": 0}, 422),
        ("POST", "/assistants/chosen/latest", {}, 422),
        ("POST", "/assistants/chosen/latest", {"version": 0}, 422),
        ("POST", "/assistants/chosen/latest", {"version": 2**31}, 422),
        ("POST", "/assistants/chosen/latest", {"version": 2}, 404),
        ("GET", "/assistants/nobody/graph", None, 404),
        ("GET", "/assistants/chosen/graph?xray=0", None, 422),
        ("GET", "/assistants/chosen/graph?xray=deep", None, 422),
        ("GET", f"/assistants/chosen/graph?xray={GRAPH_XRAY_MAX + 1}", None, 422),
        ("GET", f"/assistants/chosen/graph?xray={GRAPH_XRAY_MAX}", None, 200),
        ("GET", "/assistants/nobody/schemas", None, 404),
        ("GET", "/assistants/nobody/subgraphs", None, 404),
    ],
)
def test_bad_requests_are_refused_and_change_nothing(
    http: httpx.Client, method: str, path: str, body: Any, status: int
) -> None:
    def rows() -> Any:
        return http.post("/assistants/search", json={"limit": 1000}).json()

    before = rows()
    answer = http.request(method, path, json=body)
    assert answer.status_code == status, answer.text[:300]
    assert rows() == before


async def _answers(http: httpx.AsyncClient, path: str) -> set[str]:
    return {node["id"] for node in (await http.get(path)).raise_for_status().json()["nodes"]}


async def test_answers_are_kept_for_the_version_of_the_code(stack: Stack, tmp_path: Path) -> None:
    stack.config = write_graphs(tmp_path)
    await asyncio.to_thread(stack.start)
    async with httpx.AsyncClient(base_url=stack.url, timeout=DEADLINE_S) as http:
        assert "NODE" in await _answers(http, "/assistants/made/graph")
        stack.runners[0].kill()
        # What was asked before is remembered; the rest needs a runner. Assistants themselves do not.
        assert "NODE" in await _answers(http, "/assistants/made/graph")
        refused = await http.get("/assistants/made/schemas")
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
        assert "no runner" in refused.json()["detail"]
        made = (await http.post("/assistants", json={"graph_id": "made"})).raise_for_status().json()
        assert (await http.patch(f"/assistants/{made['assistant_id']}", json={"name": "x"})).status_code == 200
        write_graphs(tmp_path, GRAPHS.replace("NODE", "OTHER"))
        await stack.spawn_runner().ready()
        assert "OTHER" in await _answers(http, "/assistants/made/graph")
        assert "OTHER" in await _answers(http, f"/assistants/{made['assistant_id']}/graph")
        assert (await http.get("/assistants/made/schemas")).status_code == 200


async def test_a_rebuild_keeps_the_assistants(stack: Stack, tmp_path: Path) -> None:
    stack.config = write_graphs(tmp_path)
    await asyncio.to_thread(stack.start)
    async with httpx.AsyncClient(base_url=stack.url, timeout=DEADLINE_S) as http:
        made = (await http.post("/assistants", json={"graph_id": "chosen", "context": {"model": "m"}})).json()
        await http.patch(f"/assistants/{made['assistant_id']}", json={"name": "second"})
        await http.patch("/assistants/chosen", json={"description": "patched"})
        await http.post("/runs/wait", json={"assistant_id": made["assistant_id"], "input": {}})

        async def rows() -> Any:
            path = f"/assistants/{made['assistant_id']}/versions"
            return (await http.post("/assistants/search", json={})).json(), (await http.post(path, json={})).json()

        before = await rows()
        assert len(before[0]) == len(NAMES) + 1 and len(before[1]) == 2
        for service in stack.services:
            if not service.name.startswith("api"):
                service.kill()
        connection, database = await connect(stack.nats_url, "test"), await open_database(stack.dsn)
        try:
            assert await rebuild(connection, database, stack.region, lambda done, total: None) >= 3
        finally:
            await database.close()
            await connection.close()
        assert await rows() == before
        # A runner that starts again registers its graphs and leaves what somebody has patched.
        await stack.spawn_runner().ready()
        assert await rows() == before
        own = (await http.get(f"/assistants/{system_assistant_id('chosen')}")).json()
        assert (own["version"], own["description"]) == (2, "patched")
