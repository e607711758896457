"""The user's own ASGI application beside ours: whose a path is, lifespan, middleware, CORS, headers, switches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from websockets.sync.client import connect as connect_socket

from testkit.client import new_thread
from testkit.servers import NatsServer, fresh_database
from testkit.service import Service
from testkit.stack import REPOSITORY, Stack

CUSTOM: Final = REPOSITORY / "tests" / "testkit" / "custom"
PAGE: Final = {"origin": "https://app.example"}
FOREIGN: Final = {"origin": "https://elsewhere.example"}
HEADERS: Final = {
    "x-user-id": "ada", "x-acme-plan": "gold", "X-Acme-Seats": "5", "x-acme-secret": "s", "x-other": "no",
    "authorization": "Bearer t",
}  # fmt: skip


@pytest.fixture(scope="module")
def stack(nats_server: NatsServer, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An API, a runner and a projector on an application with custom routes, and a second API with switches."""
    root = tmp_path_factory.mktemp("custom")
    with (
        fresh_database(postgres_dsn) as dsn,
        Stack(nats_server.url, dsn, "custom", root, CUSTOM / "langgraph.json") as opened,
    ):
        opened.prepare()
        second = opened.spawn_api(slipstream_config=str(CUSTOM / "disabled.json"))
        third = opened.spawn_api(slipstream_config=str(CUSTOM / "failing.json"))
        opened.start()
        second.wait_ready()
        third.process.wait(60)
        yield opened


@pytest.fixture
def api(stack: Stack) -> Iterator[httpx.Client]:
    """A client of the first API, with custom routes."""
    with httpx.Client(base_url=_named(stack, "api-2").url or "", timeout=30) as client:
        yield client


@pytest.fixture
def switched(stack: Stack) -> Iterator[httpx.Client]:
    """A client of the API with switches."""
    with httpx.Client(base_url=_named(stack, "api-0").url or "", timeout=30) as client:
        yield client


def _named(stack: Stack, name: str) -> Service:
    return next(each for each in stack.services if each.name == name)


def test_paths_that_are_not_ours_are_the_users_untouched(api: httpx.Client) -> None:
    for path in ("/", "/hello/7", "/hello/7/", "/a%2Fb", "/threads/t/feedback", "/threads/t/runs/r/unknown"):
        answer = api.post(path, content=b"body")
        assert answer.status_code == 200, path
        seen = answer.json()
        assert (seen["mine"], seen["raw_path"], seen["body"], seen["pool"]) == (True, path, "body", "open")


@pytest.mark.parametrize("path", ["/ok", "/docs", "/openapi.json", "/metrics", "/ready", "/live", "/health", "/docs/"])
def test_our_paths_cannot_be_shadowed(api: httpx.Client, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code == 200 and "x-mine" not in answer.headers
    assert api.put(path).status_code == 405


def test_the_apis_own_paths_are_ours_whatever_the_method(api: httpx.Client) -> None:
    for method, path in (("POST", "/threads/search"), ("GET", "/threads/t"), ("PUT", "/threads"), ("GET", "/runs")):
        assert "x-mine" not in api.request(method, path, json={}).headers


def test_info_is_the_users_if_they_have_one(api: httpx.Client) -> None:
    assert api.get("/info?mine").json()["mine"]
    ours = api.get("/info")
    assert ours.status_code == 200 and ours.json()["flags"] and "x-mine" not in ours.headers


def test_sockets_that_are_not_ours_are_the_users(api: httpx.Client) -> None:
    with connect_socket(f"ws://{api.base_url.netloc.decode()}/chat/room") as socket:
        socket.send("hello")
        assert socket.recv() == "/chat/room: hello"


def test_a_thread_s_socket_stays_ours(api: httpx.Client) -> None:
    with connect_socket(f"ws://{api.base_url.netloc.decode()}/threads/{new_thread()}/stream/events") as socket:
        socket.send('{"id": 1, "method": "subscription.subscribe", "params": {"channels": ["lifecycle"]}}')
        assert '"success"' in str(socket.recv(timeout=30))


@pytest.mark.parametrize("fixture", ["api", "switched"])
def test_a_request_passes_the_users_middleware_once(fixture: str, request: pytest.FixtureRequest) -> None:
    client: httpx.Client = request.getfixturevalue(fixture)
    for path in ("/hello", "/ok", "/threads/search"):
        answer = client.post(path, json={}) if "search" in path else client.get(path)
        assert answer.headers.get_list("x-marked") == ["inner", "outer"], path


def test_the_chosen_headers_are_in_the_config_above_the_body(api: httpx.Client) -> None:
    body = {"assistant_id": "echo", "input": {}, "config": {"configurable": {"x-user-id": "mallory", "x-own": "1"}}}
    seen = api.post("/runs/wait", json=body, headers=HEADERS).json()["seen"]
    assert seen == {"x-user-id": "ada", "x-acme-plan": "gold", "x-acme-seats": "5", "x-own": "1"}
    assert api.post("/runs/wait", json={"assistant_id": "echo", "input": {}}).json()["seen"] == {}
    with_context: dict[str, Any] = {"assistant_id": "echo", "input": {}, "context": {"a": 1}}
    assert api.post("/runs/wait", json=with_context, headers=HEADERS).json()["seen"]["x-user-id"] == "ada"


def test_the_chosen_headers_are_there_for_commands_too(api: httpx.Client) -> None:
    thread = new_thread()
    command = {"id": 1, "method": "run.start", "params": {"assistant_id": "echo", "input": {}}}
    run_id = api.post(f"/threads/{thread}/commands", json=command, headers=HEADERS).json()["result"]["run_id"]
    assert api.get(f"/threads/{thread}/runs/{run_id}/join").json()["seen"]["x-acme-plan"] == "gold"


def test_the_chosen_origins_alone_may_call_ours_and_theirs(api: httpx.Client) -> None:
    asked = {"access-control-request-method": "POST"}
    for path in ("/hello", "/threads/search"):
        assert api.options(path, headers={**PAGE, **asked}).status_code == 204
        assert api.options(path, headers={**FOREIGN, **asked}).status_code == 400
        answer = api.post(path, json={}, headers=PAGE)
        assert answer.headers.get_list("access-control-allow-origin") == [PAGE["origin"]]
        assert answer.headers["access-control-allow-credentials"] == "true"
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"x-mine", "location"} <= set(exposed)
        assert "access-control-allow-origin" not in api.post(path, json={}, headers=FOREIGN).headers


def test_switched_off_routes_are_the_users(switched: httpx.Client) -> None:
    for path in ("/runs", "/runs/wait", "/threads/t/runs", "/threads/t/commands", "/store/items", "/openapi.json"):
        assert switched.post(path, json={}).json()["mine"], path
    for path in ("/ok", "/ready", "/assistants/echo/graph"):
        assert "x-mine" not in switched.get(path).headers
    assert isinstance(switched.post("/threads/search", json={}).json(), list)


def test_keys_without_effect_are_named_once(stack: Stack) -> None:
    text = _named(stack, "api-2").log_text()
    assert text.count("no effect here: http.logging_headers") == 1


def test_an_application_that_cannot_start_ends_the_api(stack: Stack) -> None:
    failed = _named(stack, "api-1")
    assert failed.process.returncode == 1
    assert "slipstream api: http.app cannot start: the pool is empty" in failed.log_text()


def test_the_application_is_stopped_with_the_api(stack: Stack, tmp_path: Path) -> None:
    told = tmp_path / "stopped"
    api = stack.spawn_api(custom_app_stopped=str(told)).wait_ready()
    api.terminate()
    assert api.process.wait(60) == 0
    assert told.read_text() == "stopped"
