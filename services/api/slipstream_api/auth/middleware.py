"""Every request gets a context of its caller, before its route sees it.

A browser cannot set headers on a WebSocket: handlers find cookies in `headers` and what else the page says in
`query_params`.
"""

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import parse_qsl

from litestar import Request
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from slipstream_api.auth.caller import Caller
from slipstream_api.auth.denied import Denied
from slipstream_api.auth.handlers import Handlers
from slipstream_api.auth.headers import Headers
from slipstream_api.auth.injection import HANDSHAKE_METHOD, request_of
from slipstream_api.auth.refusals import refuse_socket
from slipstream_api.bodies import decode
from slipstream_api.context import Context
from slipstream_schemas.errors import SlipstreamError, TooLarge, TooMany, TooSlow
from slipstream_schemas.limits import BODY_BYTES_MAX, BODY_DEADLINE_S

log = logging.getLogger("slipstream.auth")

OPEN: Final = {"auth": "open"}
"""The `opt` of routes that answer everybody: health and descriptions."""


def authenticating(context: Context) -> Any:
    """The middleware of a process. `context` is the process's own; requests see one that acts for their caller."""

    def wrap(app: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            replayed = Replay(receive)
            try:
                seen = await _context_of(context, scope, replayed)
            except SlipstreamError as error:
                if scope["type"] == ScopeType.WEBSOCKET:
                    await refuse_socket(scope, send, error)
                    return
                raise
            scope["state"]["context"] = seen
            try:
                with _one_more(seen):
                    await app(scope, replayed.again(), send)
            except TooMany as error:
                if scope["type"] != ScopeType.WEBSOCKET:
                    raise
                await refuse_socket(scope, send, error)

        return middleware

    return wrap


@contextmanager
def _one_more(context: Context) -> Iterator[None]:
    """Count what the caller has open in this process; streams and sockets last as long as this. Raises: TooMany."""
    caller, open_now, most = context.caller.parts, context.open_requests, context.settings.caller_requests_max
    if not context.caller.identity:
        yield
        return
    if open_now[caller] >= most:
        raise TooMany(f"you have {most} requests and streams open here, which is the most")
    open_now[caller] += 1
    try:
        yield
    finally:
        open_now[caller] -= 1
        if not open_now[caller]:
            del open_now[caller]


async def _context_of(context: Context, scope: Scope, receive: "Replay") -> Context:
    if context.handlers is None or scope["route_handler"].opt.get("auth") == "open":
        return context.acting_for(Caller())
    return context.acting_for(await caller_of_request(context, scope, receive))


async def caller_of_request(context: Context, scope: Scope, receive: "Replay") -> Caller:
    """Who sends a request or a handshake. Raises: Denied, Unavailable, TooLarge, InvalidArgument."""
    assert context.handlers is not None, "without handlers there is nobody to ask"
    wanted = await _arguments(context.handlers, scope, receive)
    return await context.handlers.authenticate(wanted, (scope, receive))


async def _arguments(handlers: Handlers, scope: Scope, receive: "Replay") -> dict[str, object]:
    """What the handler asks for, in the form that the SDK documents. Raises: Denied, TooLarge, InvalidArgument."""
    headers = Headers(scope["headers"], as_text=handlers.reads_text)
    found: dict[str, object] = {}
    for name in handlers.arguments:
        match name:
            case "request" | "body":
                if scope["type"] != ScopeType.HTTP:
                    log.error("the authenticate handler asks for %r, which a WebSocket does not have", name)
                    raise Denied(403, "Forbidden")
                found[name] = _request(scope, receive) if name == "request" else await _body(receive)
            case "path":
                found[name] = scope["path"]
            case "method":
                found[name] = str(scope["method"]) if scope["type"] == ScopeType.HTTP else HANDSHAKE_METHOD
            case "path_params":
                found[name] = dict(scope.get("path_params") or {})
            case "query_params":
                text = scope["query_string"].decode("latin-1")
                found[name] = dict(parse_qsl(text, keep_blank_values=True))
            case "headers":
                found[name] = headers
            case "authorization":
                found[name] = headers.get("authorization")
            case _:
                found[name] = scope
    return found


def _request(scope: Scope, receive: Receive) -> object:
    """The request: Starlette's where the application has imported that, to which ours is much alike."""
    return request_of(scope, receive) if "starlette.requests" in sys.modules else Request[Any, Any, Any](scope, receive)


async def _body(receive: "Replay") -> object:
    return decode(await receive.body() or b"{}")


class Replay:
    """Receives for the handler, and remembers what the route has to receive again."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._known: list[Any] = []

    async def __call__(self) -> Any:
        message = await self._receive()
        self._known.append(message)
        return message

    async def body(self) -> bytes:
        """The whole body. Raises: TooLarge, TooSlow."""
        try:
            async with asyncio.timeout(BODY_DEADLINE_S):
                return await self._body()
        except TimeoutError as error:
            raise TooSlow(f"the body did not arrive within {BODY_DEADLINE_S:.0f} s") from error

    async def _body(self) -> bytes:
        parts, size, more = [message.get("body", b"") for message in self._known], 0, True
        more = not self._known or bool(self._known[-1].get("more_body"))
        while more:
            message = await self()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > BODY_BYTES_MAX:
                raise TooLarge(f"the body is larger than {BODY_BYTES_MAX} bytes")
            more = message["type"] == "http.request" and bool(message.get("more_body"))
        return b"".join(parts)

    def again(self) -> Receive:
        """What the route receives."""
        if not self._known:
            return self._receive
        known = iter(self._known)

        async def receive() -> Any:
            message = next(known, None)
            return await self._receive() if message is None else message

        return receive
