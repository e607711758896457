"""FastAPI's `Depends` in an `authenticate` handler, with a real FastAPI."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import Body, Cookie, Depends, Header, HTTPException, Request, Security
from fastapi.security import APIKeyQuery, HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from langgraph_sdk import Auth

from slipstream_api.auth.denied import Denied
from slipstream_api.auth.handlers import Handlers
from slipstream_api.auth.headers import Headers
from slipstream_schemas.errors import Rejected, Unavailable

SHORT_S = 0.05
CLOSED: list[str] = []


def connection() -> Iterator[str]:
    """A dependency that has something to close."""
    yield "open"
    CLOSED.append("closed")


def bearer(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    """A plain dependency that depends on another one."""
    return credentials.credentials


async def reader(request: Request, scopes: SecurityScopes) -> str:
    """One that looks at the request itself."""
    return f"{request.method} {request.url.path} {await request.body()!r} {scopes.scopes}"


def handlers_of(authenticate: Any, deadline_s: float = 5.0) -> Handlers:
    auth = Auth()
    auth.authenticate(authenticate)
    return Handlers(auth, deadline_s)


def arriving(kind: str = "http", query: bytes = b"", **headers: str) -> Any:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "method": "POST", "path": "/p", "query_string": query, "headers": raw, "server": ("h", 1)}
    if kind == "websocket":
        del scope["method"]

    async def receive() -> Any:
        assert kind == "http", "a handshake has no body"
        return {"type": "http.request", "body": b"x", "more_body": False}

    return {**scope, "scheme": "http", "root_path": "", "path_params": {}}, receive


async def by_annotation(path: str, token: Annotated[str, Depends(bearer)], open_: Annotated[str, Depends(connection)],
                        plan: Annotated[str | None, Cookie()] = None) -> Any:  # fmt: skip
    return {"identity": token, "seen": [path, open_, plan, len(CLOSED)]}


def by_default(token: str = Depends(bearer), x_team: str = Header("none")) -> Any:
    return {"identity": token, "seen": [x_team, threading.current_thread() is threading.main_thread()]}


async def test_what_dependencies_give_stands_beside_what_we_give() -> None:
    CLOSED.clear()
    handlers = handlers_of(by_annotation)
    assert handlers.arguments == ("path",)
    request = arriving(authorization="Bearer ann", cookie="plan=gold")
    caller = await handlers.authenticate({"path": "/p"}, request)
    assert caller.identity == "ann" and caller.user["seen"] == ["/p", "open", "gold", 0]
    assert CLOSED == ["closed"] and "fastapi_inner_astack" not in request[0]


async def test_dependencies_as_defaults_and_plain_handlers() -> None:
    handlers = handlers_of(by_default)
    assert handlers.arguments == ()
    caller = await handlers.authenticate({}, arriving(authorization="Bearer ann", x_team="red"))
    assert caller.user["seen"] == ["red", False]


@pytest.mark.parametrize(("kind", "said"), [("http", "POST /p b'x' ['s']"), ("websocket", "GET /p b'' ['s']")])
async def test_a_handshake_is_a_request_without_a_body(kind: str, said: str) -> None:
    async def asks(seen: Annotated[str, Security(reader, scopes=["s"])],
                   key: Annotated[str, Depends(APIKeyQuery(name="token"))]) -> Any:  # fmt: skip
        return {"identity": key, "seen": seen}

    caller = await handlers_of(asks).authenticate({}, arriving(kind, b"token=ann"))
    assert (caller.identity, caller.user["seen"]) == ("ann", said)


async def test_a_dependency_refuses_like_a_handler() -> None:
    with pytest.raises(Denied, match="Not authenticated") as denied:
        await handlers_of(by_annotation).authenticate({"path": "/p"}, arriving())
    assert denied.value.status == 401 and denied.value.headers

    def never() -> str:
        raise HTTPException(418, "tea")

    async def asks(token: Annotated[str, Depends(never)]) -> str:
        return token

    with pytest.raises(Denied, match="tea") as denied:
        await handlers_of(asks).authenticate({}, arriving())
    assert denied.value.status == 403


async def test_what_is_missing_is_a_403_that_the_log_explains(caplog: pytest.LogCaptureFixture) -> None:
    async def asks(x_key: Annotated[str, Header()]) -> str:
        return x_key

    with pytest.raises(Denied, match=r"^Forbidden$"):
        await handlers_of(asks).authenticate({}, arriving())
    assert "header.x-key" in caplog.text


async def test_a_dependency_that_blocks_a_thread_is_given_up() -> None:
    gate = threading.Event()

    async def asks(token: Annotated[None, Depends(gate.wait)]) -> str:
        return "ann"

    try:
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable):
                await handlers_of(asks, SHORT_S).authenticate({}, arriving())
    finally:
        gate.set()


def test_what_cannot_be_given_is_refused_at_the_start() -> None:
    async def body(item: Annotated[dict[str, Any], Body()]) -> str:
        return "ann"

    async def unknown(token: Annotated[str, Depends(bearer)], nothing: int) -> str:
        return "ann"

    for handler, text in ((body, "body"), (unknown, "asks for 'nothing'; it can have: request, .*Depends")):
        with pytest.raises(Rejected, match=text):
            handlers_of(handler)


@pytest.mark.parametrize("as_text", [True, False])
def test_headers_answer_in_both_forms(as_text: bool) -> None:
    headers = Headers([(b"authorization", b"Bearer \xe9"), (b"x-user", b"ann")], as_text=as_text)
    assert headers.get("Authorization") == headers["authorization"] == "Bearer \xe9"
    assert headers.get(b"authorization") == headers[b"authorization"] == b"Bearer \xe9"
    assert headers.get("x-none") is None and headers.get(b"x-none", b"d") == b"d" and headers.get(7) is None
    assert "X-User" in headers and b"x-user" in headers and "x-none" not in headers
    assert list(headers) == (["authorization", "x-user"] if as_text else [b"authorization", b"x-user"])
    with pytest.raises(KeyError):
        _ = headers["x-none"]
