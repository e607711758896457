"""The user's own routes behind the user's auth handlers, and pages of other origins at the sockets."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as connect_socket

from testkit.client import new_thread
from testkit.servers import NatsServer
from testkit.stack import REPOSITORY, Stack, fresh_stack

CUSTOM: Final = REPOSITORY / "tests" / "testkit" / "custom"
PAGE: Final = "https://app.example"
FOREIGN: Final = "https://evil.example"
ANN: Final = {"authorization": "Bearer ann"}
COOKIE: Final = {"cookie": "member=ann"}
HTTP: Final[dict[str, dict[str, Any]]] = {
    "middleware_first": {
        "enable_custom_route_auth": True,
        "cors": {"allow_origins": [PAGE], "allow_credentials": True},
    },
    "auth_first": {
        "enable_custom_route_auth": True, "middleware_order": "auth_first", "cors": {"allow_origins": [PAGE]}
    },
    "off": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def urls(nats_server: NatsServer, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """APIs of one application, by how its `http` is set. Runs are none of their concern."""
    root = tmp_path_factory.mktemp("members")
    with fresh_stack(nats_server.url, postgres_dsn, root) as opened:
        apis = {}
        for name, chosen in HTTP.items():
            path = config_of(root / f"{name}.json", chosen)
            apis[name] = opened.spawn_api(slipstream_config=str(path))
        yield {name: each.wait_ready().url or "" for name, each in apis.items()}


def config_of(path: Path, chosen: dict[str, Any]) -> Path:
    """A file with the application of `members.py`."""
    members = CUSTOM / "members.py"
    http = {"app": f"{members}:app", **chosen}
    path.write_text(json.dumps({"graphs": {}, "auth": {"path": f"{members}:auth"}, "http": http}))
    return path


@pytest.fixture(params=["middleware_first", "auth_first"])
def guarded(urls: dict[str, str], request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A client of an API whose custom routes are for members."""
    with httpx.Client(base_url=urls[request.param], timeout=30) as client:
        yield client


def test_routes_of_ones_own_know_who_asks(guarded: httpx.Client) -> None:
    assert guarded.get("/me", headers=ANN).json() == {
        "identity": "ann", "name": "ann", "known": True, "team": "red", "by_key": "red", "none": False,
        "scopes": ["paint"],
    }  # fmt: skip
    assert guarded.get("/paint", headers=ANN).text == '"painted"'
    assert guarded.get("/paint", headers={"authorization": "Bearer bob"}).status_code == 403
    assert guarded.post("/form", headers=ANN, data={"colour": "blue"}).json() == "ann: colour=blue"


@pytest.mark.parametrize("path", ["/me", "/open", "/paint", "/form", "/no-such-page", "/docs2", "/threads/t/feedback"])
def test_strangers_are_refused_as_on_our_routes(guarded: httpx.Client, path: str) -> None:
    for headers, status in (({}, 401), ({"authorization": "Bearer banned"}, 403)):
        theirs, ours = guarded.get(path, headers=headers), guarded.get("/runs/crons/x", headers=headers)
        assert (theirs.status_code, theirs.json()) == (status, ours.json()) and ours.status_code == status
        names = ("www-authenticate", "content-type")
        assert [theirs.headers.get(name) for name in names] == [ours.headers.get(name) for name in names]
    assert guarded.get(path, headers={"origin": PAGE}).headers["access-control-allow-origin"] == PAGE


def test_info_is_theirs_for_members_and_ours_for_all(guarded: httpx.Client) -> None:
    assert guarded.get("/info", headers=ANN).json() == {"club": "open"}
    assert guarded.get("/info").json()["flags"]


def test_middleware_stands_where_the_file_says(urls: dict[str, str]) -> None:
    proxied = {"x-proxy-user": "ann"}
    for path in ("/me", "/threads/search"):
        answers = {
            order: httpx.request("GET" if path == "/me" else "POST", urls[order] + path, headers=proxied, json={})
            for order in ("middleware_first", "auth_first")
        }
        assert answers["middleware_first"].status_code == 200 and answers["middleware_first"].headers["x-knew"]
        assert answers["auth_first"].status_code == 401
    assert httpx.get(f"{urls['auth_first']}/me", headers=ANN).headers["x-knew"] == "True"
    assert httpx.get(f"{urls['middleware_first']}/me", headers=ANN).headers["x-knew"] == "False"


def test_without_the_switch_routes_of_ones_own_are_open(urls: dict[str, str]) -> None:
    assert httpx.get(f"{urls['off']}/open").json() is True
    assert httpx.get(f"{urls['off']}/info").json() == {"club": "open"}
    assert httpx.post(f"{urls['off']}/threads/search", json={}).status_code == 401


def opened(url: str, path: str, origin: str | None, headers: dict[str, str]) -> int:
    """The status that a handshake is answered with."""
    address = f"{url.replace('http', 'ws', 1)}{path}"
    try:
        with connect_socket(address, origin=origin, additional_headers=headers):  # type: ignore[arg-type]
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


@pytest.mark.parametrize("order", ["middleware_first", "auth_first"])
def test_sockets_of_ones_own_know_who_comes(urls: dict[str, str], order: str) -> None:
    address = f"{urls[order].replace('http', 'ws', 1)}/room"
    with connect_socket(address, additional_headers=ANN) as socket:
        assert socket.recv(timeout=30) == "ann"
    assert opened(urls[order], "/room", None, {}) == 401
    assert opened(urls[order], "/room", None, {"authorization": "Bearer banned"}) == 403
    assert opened(urls[order], "/room", FOREIGN, ANN) == 403


@pytest.mark.parametrize(
    ("settings", "origin", "headers", "status"),
    [
        # Named with credentials: these pages alone, and with their cookies.
        ("middleware_first", PAGE, COOKIE, 101),
        ("middleware_first", PAGE, ANN, 101),
        ("middleware_first", FOREIGN, COOKIE, 403),
        ("middleware_first", FOREIGN, ANN, 403),
        ("middleware_first", "null", ANN, 403),
        ("middleware_first", "http://own", COOKIE, 101),
        ("middleware_first", None, COOKIE, 101),
        # Named without credentials: with a token.
        ("auth_first", PAGE, COOKIE, 401),
        ("auth_first", PAGE, ANN, 101),
        ("auth_first", PAGE, {"authorization": "Basic YW5uOg=="}, 401),
        ("auth_first", FOREIGN, ANN, 403),
        # Nothing named: any page, with a token; with a cookie this host's pages alone.
        ("off", FOREIGN, ANN, 101),
        ("off", "null", ANN, 101),
        ("off", FOREIGN, COOKIE, 401),
        ("off", "https://own.evil.example", COOKIE, 401),
        ("off", "https://own", COOKIE, 101),
        ("off", None, COOKIE, 101),
    ],
)
def test_a_socket_is_opened_by_pages_that_may(
    urls: dict[str, str], settings: str, origin: str | None, headers: dict[str, str], status: int
) -> None:
    url = urls[settings]
    own = httpx.URL(url).netloc.decode()
    named = None if origin is None else origin.replace("://own", f"://{own}", 1)
    for path in (f"/threads/{new_thread()}/stream/events", f"/threads/{new_thread()}/stream"):
        assert opened(url, path, named, headers) == status


@pytest.mark.parametrize(
    ("settings", "origin", "site", "status"),
    [
        ("off", FOREIGN, "cross-site", 401),
        ("off", None, "cross-site", 401),
        ("off", FOREIGN, "same-origin", 200),
        ("off", None, None, 200),
        ("middleware_first", PAGE, "cross-site", 200),
        ("middleware_first", FOREIGN, "cross-site", 401),
        ("auth_first", PAGE, "cross-site", 401),
    ],
)
def test_a_cookie_counts_for_no_change_that_another_site_asks_for(
    urls: dict[str, str], settings: str, origin: str | None, site: str | None, status: int
) -> None:
    said = {name: value for name, value in (("origin", origin), ("sec-fetch-site", site)) if value is not None}
    simple = {**said, "content-type": "text/plain"}
    for path in ("/threads/search", *(["/form"] if settings != "off" else [])):
        for who, expected in ((COOKIE, status), (ANN, 200)):
            answer = httpx.post(urls[settings] + path, content=b"{}", headers={**simple, **who})
            assert answer.status_code == expected


def test_a_token_in_the_query_opens_from_any_page(urls: dict[str, str]) -> None:
    assert opened(urls["off"], f"/threads/{new_thread()}/stream?token=ann", FOREIGN, {}) == 101


def test_a_front_end_elsewhere_opens_sockets_of_a_server_without_auth(live: Stack) -> None:
    for origin in ("http://localhost:3000", FOREIGN):
        assert opened(live.url, f"/threads/{new_thread()}/stream/events", origin, {}) == 101
