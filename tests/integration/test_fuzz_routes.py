"""Every operation of the OpenAPI description, asked with almost anything: documented statuses alone, never a 5xx."""

import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from slipstream_api.openapi import DOCUMENT
from testkit.client import new_thread
from testkit.servers import NatsServer, fresh_database
from testkit.stack import Stack

OPERATIONS: Final = [(method, path) for path, found in DOCUMENT["paths"].items() for method in found]
FUZZ: Final = settings(
    max_examples=10, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
KNOWN: Final = new_thread()
"""A thread that has a run. It is not deleted, so that operations on it find something."""
THE_RUN: Final = "the-run"
"""Stands for that run, whose id is not known before."""
TEXTS: Final = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.sampled_from(["", "\x00", "..", "a b", "é" * 200, "x" * 300, "-1", "2147483648", "9" * 30, "true", "[", "*"]),
)
IDS: Final = st.sampled_from([KNOWN, THE_RUN, new_thread(), "counter", "a b", "é", "x" * 300, "..", "null", "-1"])
ARGUMENTS: Final = st.one_of(TEXTS, st.sampled_from(["1", "true", KNOWN, "values", "interrupt"]))
JSON: Final = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS,
              st.sampled_from([2**70, -1, 0, 1e300, "\ud800"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=5,
)  # fmt: skip
RUN: Final[dict[str, Any]] = {"assistant_id": "counter", "input": {"steps": 1, "delay_s": 0}}
CRON: Final[dict[str, Any]] = {**RUN, "schedule": "0 0 1 1 *"}
ITEM: Final[dict[str, Any]] = {"namespace": ["a"], "key": "k", "value": {"v": 1}}
VALID: Final[dict[str, dict[str, Any]]] = {
    "/threads": {"thread_id": KNOWN, "if_exists": "do_nothing"},
    "/threads/prune": {"thread_ids": [new_thread()], "strategy": "keep_latest"},
    "/threads/{thread_id}/stream/events": {"channels": ["lifecycle"]},
    "/threads/{thread_id}/stream": {"channels": ["values"]},
    "/threads/{thread_id}/commands": {"id": 1, "method": "run.start", "params": RUN},
    "/threads/{thread_id}/state": {"values": {"count": 1}, "as_node": "step"},
    "/threads/{thread_id}/state/checkpoint": {"checkpoint": {"checkpoint_id": new_thread()}},
    "/threads/{thread_id}/history": {"limit": 2},
    "/threads/{thread_id}/runs": RUN,
    "/threads/{thread_id}/runs/stream": RUN,
    "/threads/{thread_id}/runs/wait": RUN,
    "/runs": RUN,
    "/runs/stream": RUN,
    "/runs/wait": RUN,
    "/runs/cancel": {"thread_id": KNOWN, "run_ids": [new_thread()]},
    "/runs/crons": CRON,
    "/threads/{thread_id}/runs/crons": CRON,
    "/assistants": {"graph_id": "counter"},
    "/assistants/{assistant_id}/latest": {"version": 1},
    "/store/items": ITEM,
    "/store/items/search": {"namespace_prefix": ["a"]},
}
NAMES: Final = sorted(
    {name for body in VALID.values() for name in body}
    | {
        "metadata", "config", "context", "command", "checkpoint", "checkpoint_id", "stream_mode", "multitask_strategy",
        "if_not_exists", "on_disconnect", "on_completion", "interrupt_before", "durability", "limit", "offset",
        "status",
        "select", "extract", "sort_by", "sort_order", "ids", "ttl", "supersteps", "before", "name", "description",
        "timezone", "end_time", "enabled", "filter", "query", "prefix", "suffix", "max_depth", "since", "namespaces",
        "depth", "subgraphs", "webhook", "after_seconds",
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def walk(
    nats_server: NatsServer, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, str]]:
    """A client of a stack of its own, since the walk deletes what it finds; and the known run."""
    root = tmp_path_factory.mktemp("walk")
    with fresh_database(postgres_dsn) as dsn, Stack(nats_server.url, dsn, "walk", root) as stack:
        stack.prepare()
        stack.start()
        with httpx.Client(base_url=stack.url, timeout=30) as opened:
            opened.post("/threads", json={"thread_id": KNOWN})
            run_id = opened.post(f"/threads/{KNOWN}/runs", json=RUN).json()["run_id"]
            opened.get(f"/threads/{KNOWN}/runs/{run_id}/join").raise_for_status()
            yield opened, run_id


@st.composite
def bodies(draw: st.DrawFn, path: str) -> bytes:
    """What is valid with a few fields of anything; now and then no object, or no JSON."""
    kind = draw(st.sampled_from(["object"] * 6 + ["json", "bytes"]))
    if kind == "bytes":
        return draw(st.binary(max_size=20))
    made: Any = draw(JSON)
    if kind == "object":
        made = {**VALID.get(path, {}), **draw(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3))}
        if path == "/runs/batch":
            made = [made]
    return json.dumps(made).encode()


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda value: value)
@FUZZ
@given(data=st.data())
def test_an_operation_answers_as_described(
    data: st.DataObject, walk: tuple[httpx.Client, str], method: str, path: str
) -> None:
    client, run_id = walk
    operation: dict[str, Any] = DOCUMENT["paths"][path][method]
    target, query = path, {}
    for parameter in operation.get("parameters", []):
        name = parameter["name"]
        if parameter["in"] == "path":
            chosen = data.draw(IDS, name)
            chosen = run_id if chosen == THE_RUN or (name == "run_id" and chosen == KNOWN) else chosen
            target = target.replace(f"{{{name}}}", quote(chosen, safe="."))
        elif data.draw(st.booleans()):
            query[name] = data.draw(
                st.one_of(TEXTS, st.sampled_from(["1", "true", KNOWN, "values", "interrupt"])), name
            )
    if method == "delete":
        target = target.replace(KNOWN, new_thread())
    content = data.draw(bodies(path), "body") if "requestBody" in operation else None
    with client.stream(method.upper(), target, params=query, content=content) as answer:
        event(str(answer.status_code))
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            return
        text = "" if "/wait" in path and answer.status_code == 200 else answer.read().decode()
    # A path of dots is another path to the client.
    if ".." in target:
        return
    assert str(answer.status_code) in operation["responses"], text
    assert answer.status_code < 500 or answer.headers.get("retry-after"), text
    if answer.status_code >= 400:
        assert "detail" in answer.json() or answer.json()["type"] == "error"
