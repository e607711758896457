"""Bad requests: each gets its documented status and changes nothing in the log."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from slipstream_schemas.limits import BODY_BYTES_MAX
from testkit.stack import Stack

THREAD = "malformed-thread"
EVENTS = f"/threads/{THREAD}/stream/events"
COMMANDS = f"/threads/{THREAD}/commands"
RUNS = f"/threads/{THREAD}/runs"
LIFE = {"channels": ["lifecycle"]}
START = {"assistant_id": "counter", "input": {}}


def command(method: str, params: Any = None, command_id: Any = 1) -> dict[str, Any]:
    """A command envelope."""
    return {"id": command_id, "method": method, "params": {} if params is None else params}


Case = tuple[str, str, Any, int]
CASES: list[Case] = [
    # Bodies that are no JSON, no UTF-8, no object, too deep, too large
    ("POST", EVENTS, b"{", 422),
    ("POST", EVENTS, b"\xff\xfe{}", 422),
    ("POST", EVENTS, b'{"channels":["values"],}', 422),
    ("POST", EVENTS, b"[]", 422),
    ("POST", EVENTS, b"null", 422),
    ("POST", EVENTS, b'"values"', 422),
    ("POST", EVENTS, b"", 422),
    ("POST", EVENTS, b'{"channels":["\\ud800"]}', 422),
    ("POST", EVENTS, b'{"channels":' + b"[" * 200 + b"]" * 200 + b"}", 422),
    ("POST", EVENTS, b'{"channels":["' + b"x" * (BODY_BYTES_MAX + 1) + b'"]}', 413),
    # Channels
    ("POST", EVENTS, {}, 422),
    ("POST", EVENTS, {"channels": []}, 400),
    ("POST", EVENTS, {"channels": ["bogus"]}, 400),
    ("POST", EVENTS, {"channels": ["values", "debug"]}, 400),
    ("POST", EVENTS, {"channels": ["custom:"]}, 400),
    ("POST", EVENTS, {"channels": ["values"] * 65}, 400),
    ("POST", EVENTS, {"channels": "values"}, 422),
    ("POST", EVENTS, {"channels": [1]}, 422),
    ("POST", EVENTS, {"channels": None}, 422),
    ("POST", EVENTS, {"channels": {"values": True}}, 422),
    # Namespaces, depth
    ("POST", EVENTS, {**LIFE, "namespaces": ["a"]}, 422),
    ("POST", EVENTS, {**LIFE, "namespaces": [[1]]}, 422),
    ("POST", EVENTS, {**LIFE, "namespaces": "a"}, 422),
    ("POST", EVENTS, {**LIFE, "namespaces": [["a"]] * 65}, 400),
    ("POST", EVENTS, {**LIFE, "namespaces": [["a"] * 33]}, 400),
    ("POST", EVENTS, {**LIFE, "depth": -1}, 422),
    ("POST", EVENTS, {**LIFE, "depth": "1"}, 422),
    ("POST", EVENTS, {**LIFE, "depth": 1.5}, 422),
    # Cursors
    ("POST", EVENTS, {**LIFE, "since": -1}, 422),
    ("POST", EVENTS, {**LIFE, "since": "5"}, 422),
    ("POST", EVENTS, {**LIFE, "since": 2.5}, 422),
    ("POST", EVENTS, {**LIFE, "since": True}, 422),
    ("POST", EVENTS, {**LIFE, "since": 2**53}, 422),
    ("POST", EVENTS, {**LIFE, "since": 2**40}, 422),
    # Ids with characters that mean something in a subject
    ("POST", "/threads/a.b/stream/events", LIFE, 422),
    ("POST", "/threads/a*/stream/events", LIFE, 422),
    ("POST", "/threads/%3E/stream/events", LIFE, 422),
    ("POST", "/threads/a%20b/stream/events", LIFE, 422),
    ("POST", "/threads/%C3%A4/stream/events", LIFE, 422),
    ("POST", f"/threads/{'x' * 129}/stream/events", LIFE, 422),
    ("POST", "/threads/a.b/commands", command("run.start", START), 422),
    ("POST", "/threads/a.b/runs", START, 422),
    ("GET", "/threads/a.b", None, 422),
    ("DELETE", "/threads/a.b", None, 422),
    # Command envelopes
    ("POST", COMMANDS, b"{", 400),
    ("POST", COMMANDS, b"\xff", 400),
    ("POST", COMMANDS, b"[]", 400),
    ("POST", COMMANDS, {}, 400),
    ("POST", COMMANDS, {"id": 1}, 400),
    ("POST", COMMANDS, {"method": "run.start"}, 400),
    ("POST", COMMANDS, command("run.start", START, "1"), 400),
    ("POST", COMMANDS, command("run.start", START, -1), 400),
    ("POST", COMMANDS, command("run.start", [1]), 400),
    ("POST", COMMANDS, {"id": 1, "method": 5}, 400),
    # Threads
    ("POST", "/threads", {"thread_id": "a.b"}, 422),
    ("POST", "/threads", {"thread_id": 5}, 422),
    ("POST", "/threads", {"thread_id": ""}, 422),
    ("POST", "/threads", {"metadata": []}, 422),
    ("POST", "/threads", {"metadata": {str(n): n for n in range(257)}}, 422),
    ("POST", "/threads", {"if_exists": "maybe"}, 422),
    ("POST", "/threads", {"thread_id": THREAD}, 409),
    ("POST", "/threads/search", {"limit": 0}, 422),
    ("POST", "/threads/search", {"limit": 1001}, 422),
    ("POST", "/threads/search", {"offset": -1}, 422),
    ("POST", "/threads/search", {"sort_by": "values; drop table threads"}, 422),
    ("POST", "/threads/search", {"status": "asleep"}, 422),
    ("GET", "/threads/unknown-thread", None, 404),
    ("DELETE", "/threads/unknown-thread", None, 404),
    ("GET", "/threads/unknown-thread/state", None, 404),
    # Runs
    ("POST", RUNS, {}, 422),
    ("POST", RUNS, {"assistant_id": 1}, 422),
    ("POST", RUNS, {"assistant_id": "unknown"}, 422),
    ("POST", RUNS, {"assistant_id": "\x00"}, 422),
    ("POST", RUNS, {"assistant_id": "78797f7d-6bc9-4501-8e90-82e4b91075fc"}, 404),
    ("POST", RUNS, {**START, "stream_mode": "bogus"}, 422),
    ("POST", RUNS, {**START, "stream_mode": ["values", "tools"]}, 422),
    ("POST", RUNS, {**START, "multitask_strategy": "bogus"}, 422),
    ("POST", RUNS, {**START, "durability": "never"}, 422),
    ("POST", RUNS, {**START, "on_disconnect": "maybe"}, 422),
    ("POST", RUNS, {**START, "if_not_exists": "maybe"}, 422),
    ("POST", RUNS, {**START, "config": []}, 422),
    ("POST", RUNS, {**START, "config": {"configurable": {"a": 1}}, "context": {"a": 1}}, 400),
    ("POST", "/threads/unknown-thread/runs", START, 404),
    ("GET", f"{RUNS}?limit=x", None, 422),
    ("GET", f"{RUNS}?status=asleep", None, 422),
    ("GET", f"{RUNS}/unknown-run", None, 404),
    ("GET", f"{RUNS}/a.b", None, 422),
    ("GET", f"{RUNS}/unknown-run/stream", None, 404),
    ("GET", f"{RUNS}/unknown-run/stream?stream_mode=[bad", None, 422),
    ("GET", f"{RUNS}/unknown-run/stream?stream_mode=[1]", None, 422),
    ("POST", f"{RUNS}/unknown-run/cancel", {}, 404),
    ("POST", f"{RUNS}/unknown-run/cancel?action=bogus", {}, 422),
    ("GET", "/assistants/unknown", None, 404),
    ("GET", "/nowhere", None, 404),
    ("PUT", "/threads", {}, 405),
]
ENVELOPES: list[tuple[dict[str, Any], str]] = [
    (command("nonsense"), "unknown_command"),
    (command("run.start", {}), "invalid_argument"),
    (command("run.start", {"assistantId": "counter"}), "invalid_argument"),
    (command("run.start", {"assistant_id": "unknown"}), "no_such_run"),
    (command("run.start", {**START, "multitaskStrategy": "bogus"}), "invalid_argument"),
    (command("run.start", {**START, "config": 5}), "invalid_argument"),
    (command("input.respond", {}), "invalid_argument"),
    (command("input.respond", {"interrupt_id": "i"}), "invalid_argument"),
    (command("input.respond", {"interrupt_id": "i", "response": 1}), "no_such_interrupt"),
    (command("input.respond", {"responses": []}), "invalid_argument"),
    (command("input.respond", {"responses": [{"response": 1}]}), "invalid_argument"),
    (command("input.respond", {"interrupt_id": "i", "response": 1, "namespace": "x"}), "invalid_argument"),
]


@pytest.fixture(scope="module")
def client(session_stack: Stack) -> Iterator[httpx.Client]:
    """A plain client, with the thread that the cases name."""
    with httpx.Client(base_url=session_stack.url, timeout=20) as opened:
        opened.post("/threads", json={"thread_id": THREAD, "if_exists": "do_nothing"}).raise_for_status()
        yield opened


def records(client: httpx.Client) -> tuple[Any, Any, Any]:
    """What would show if anything had been accepted."""
    thread = client.get(f"/threads/{THREAD}").json()
    return thread, client.get(RUNS).json(), client.post("/threads/count", json={}).json()


@pytest.mark.parametrize(("method", "path", "body", "status"), CASES)
def test_a_malformed_request_is_refused_and_changes_nothing(
    client: httpx.Client, live: Stack, method: str, path: str, body: Any, status: int
) -> None:
    before = records(client)
    content = body if isinstance(body, bytes) else None if body is None else json.dumps(body)
    answer = client.request(method, path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text[:300]
    if status == 422:
        for detail in answer.json()["detail"]:
            assert {"loc", "msg", "type"} <= set(detail)
    elif answer.headers["content-type"].startswith("application/json"):
        assert answer.json()
    assert records(client) == before


@pytest.mark.parametrize(("envelope", "code"), ENVELOPES)
def test_a_well_formed_command_that_is_wrong_gets_an_error_envelope(
    client: httpx.Client, live: Stack, envelope: dict[str, Any], code: str
) -> None:
    before = records(client)
    answer = client.post(COMMANDS, json=envelope)
    assert answer.status_code == 200
    assert (answer.json()["type"], answer.json()["error"], answer.json()["id"]) == ("error", code, envelope["id"])
    assert records(client) == before


def test_there_are_enough_cases() -> None:
    assert len(CASES) + len(ENVELOPES) >= 60
