"""What `http` in `langgraph.json` says: headers, groups of routes, and files that are refused."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from slipstream_api import custom_app
from slipstream_api.app import ROUTES
from slipstream_api.custom_app import lifespan_of, middleware_of
from slipstream_api.http_settings import HeaderPatterns, HttpSettings, load_http_settings
from slipstream_api.inbound import CREDENTIALS, HeaderChoice, with_headers
from slipstream_api.route_groups import enabled, groups_of, own_paths
from slipstream_runner.config_keys import unread_keys
from slipstream_runner.graphs import read_config
from slipstream_schemas.limits import CUSTOM_APP_START_S, CUSTOM_APP_STOP_S
from slipstream_schemas.user_code import BadConfig


def chosen(patterns: dict[str, list[str]], *headers: tuple[str, str]) -> dict[str, str]:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return HeaderChoice(HeaderPatterns(**patterns)).of(raw)


def test_headers_are_chosen_by_name_and_by_pattern() -> None:
    headers = [("x-user-id", "1"), ("X-A", "é"), ("x-a", "2"), ("x-b", "3"), ("other", "4"), ("xx-user-id", "5")]
    assert chosen({"includes": ["X-User-Id", "x-a"]}, *headers) == {"x-user-id": "1", "x-a": "é, 2"}
    assert chosen({"include": ["x-*"], "exclude": ["x-b"]}, *headers) == {"x-user-id": "1", "x-a": "é, 2"}
    assert chosen({"excludes": ["x-b"]}, *headers) == {}
    assert chosen({"includes": ["x.a", "[a-z]*"]}, *headers) == {}


def test_credentials_go_in_by_their_own_name_alone() -> None:
    headers = [(name, "secret") for name in CREDENTIALS]
    assert chosen({"includes": ["*", "a*", "x-*"]}, *headers) == {}
    assert chosen({"includes": ["Authorization"]}, *headers) == {"authorization": "secret"}
    assert chosen({"includes": ["authorization"], "excludes": ["auth*"]}, *headers) == {}


def test_without_headers_a_config_stays_what_it_is() -> None:
    config: dict[str, Any] = {"tags": ["a"]}
    assert with_headers(config) is config


@pytest.mark.parametrize(
    ("path", "groups"),
    [
        ("/assistants/{assistant_id:str}/graph", {"assistants"}),
        ("/threads/{thread_id:str}/state", {"threads"}),
        ("/threads/{thread_id:str}/runs/{run_id:str}/stream", {"runs"}),
        ("/threads/{thread_id:str}/stream/events", {"threads", "runs"}),
        ("/threads/{thread_id:str}/commands", {"threads", "runs"}),
        ("/runs/crons/search", {"runs"}),
        ("/store/items", {"store"}),
        ("/info", {"meta"}),
        ("/metrics", {"meta"}),
        ("/ok", {"ok"}),
    ],
)
def test_a_route_s_groups(path: str, groups: set[str]) -> None:
    assert groups_of(path) == groups


def test_every_route_is_in_a_group_that_can_be_left_out_but_health() -> None:
    left = enabled(ROUTES, {"assistants", "threads", "runs", "store", "meta", "mcp", "a2a"})
    assert {path for route in left for path in route.paths} == {"/ok", "/health", "/live", "/ready"}
    assert len(enabled(ROUTES, ())) == len(ROUTES)


def test_own_paths_are_told_from_the_users() -> None:
    own = own_paths(ROUTES)
    for path in ("/threads", "/threads/", "/threads/a b", "/threads/t/runs/r/join", "/store/items", "//ok"):
        assert own.fullmatch(path), path
    for path in ("/", "", "/threads/t/x", "/thread", "/threads/t/runs/r/join/x", "/okay", "/ok/x"):
        assert not own.fullmatch(path), path


def config_of(folder: Path, name: str = "langgraph.json", **http: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps({"graphs": {"g": "./g.py:graph"}, "http": http}))
    return path


@pytest.mark.parametrize(
    ("http", "says"),
    [
        ({"mount_prefix": "/api"}, "http.mount_prefix"),
        ({"middleware_order": "last"}, "middleware_order"),
        ({"disable_runs": "yes"}, "disable_runs"),
        ({"cors": {"allow_origins": "*"}}, "allow_origins"),
        ({"app": "routes"}, "must look like"),
        ({"app": "./routes.py:app"}, "does not exist"),
        ({"app": "json:nothing"}, "nothing"),
        ({"app": "json:__doc__"}, "not an ASGI application"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, http: dict[str, Any], says: str) -> None:
    with pytest.raises(BadConfig, match=re.escape(says)):
        load_http_settings(config_of(tmp_path, **http))


def test_own_routes_that_ask_for_auth_without_any_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "langgraph.json"
    http = {"app": "json:loads", "enable_custom_route_auth": True}
    path.write_text(json.dumps({"http": http, "auth": {"path": "./auth.py:auth"}}))
    assert load_http_settings(path).config.enable_custom_route_auth and not caplog.text
    path.write_text(json.dumps({"http": http}))
    assert load_http_settings(path).app is json.loads
    assert "enable_custom_route_auth has no effect without `auth`" in caplog.text


def test_an_aegra_file_stands_in_and_keeps_its_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_http_settings(tmp_path / "langgraph.json") == HttpSettings()
    cors = {"allow_origins": ["https://app.example"]}
    config_of(tmp_path, "aegra.json", cors=cors, app="json:loads")
    (tmp_path / ".env").write_text("AEGRA_SAYS=hello\n")
    monkeypatch.setenv("AEGRA_SAYS", "")
    monkeypatch.delenv("AEGRA_SAYS")
    found = load_http_settings(tmp_path / "langgraph.json")
    assert found.config.cors is not None and found.config.cors.allow_credentials
    assert read_config(tmp_path / "langgraph.json").env == ".env"
    config_of(tmp_path, "langgraph.json", cors=cors)
    other = load_http_settings(tmp_path / "langgraph.json")
    assert other.config.cors is not None and other.config.cors.allow_credentials is None


def test_unread_keys_are_those_without_effect() -> None:
    assert unread_keys({"graphs": {}, "http": {}, "ui": {}, "python_version": "3.12"}) == ["python_version", "ui"]


def test_middleware_of_another_form_is_refused() -> None:
    class App:
        user_middleware: tuple[Any, ...] = ((print, {}),)

    with pytest.raises(BadConfig, match=r"Starlette 0\.35"):
        middleware_of(App())
    assert middleware_of(object()) == []


async def live(app: Any) -> dict[str, Any]:
    async with lifespan_of(app) as state:
        return state


async def test_an_application_without_a_lifespan_is_served() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"

    assert await live(app) == {}


async def test_an_application_that_hangs_is_waited_for_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (CUSTOM_APP_START_S, CUSTOM_APP_STOP_S) == (60.0, 3.0)
    monkeypatch.setattr(custom_app, "CUSTOM_APP_START_S", 0.01)
    monkeypatch.setattr(custom_app, "CUSTOM_APP_STOP_S", 0.01)

    async def never_up(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    with pytest.raises(BadConfig, match="did not start"):
        await live(never_up)

    async def never_down(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["up"] = True
        await send({"type": "lifespan.startup.complete"})
        await asyncio.Event().wait()

    assert await live(never_down) == {"up": True}
