"""Around the application: every request is counted, timed, and given its place in the caller's trace.

A request is over for the figures when its answer begins: streams last as long as their clients like.
"""

import time
from typing import Any, Final

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from slipstream_api.context import Context
from slipstream_schemas.log_lines import about
from slipstream_schemas.traceparent import carried, parse_traceparent
from slipstream_telemetry.tracing import Span

UNMATCHED: Final = "unmatched"
SWITCHED: Final = 101
REFUSED: Final = 403
GONE: Final = 499
"""The client went before there was an answer. Source: nginx."""
FAILED: Final = 500
TEXT_EVENT_STREAM: Final = b"text/event-stream"


class Observed:
    """The application, observed."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app, self._context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a socket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        method = str(scope.get("method", "WEBSOCKET"))
        span = self._context.tracing.start(method, _inbound(scope), kind="server")
        carried.set(span.traceparent)
        about.set(lambda: scope.get("path_params", {}))
        request = _Request(self._context, scope, method, span)

        async def watched(message: Message) -> None:
            request.sees(message)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except BaseException:
            request.answered(FAILED)
            raise
        finally:
            request.closed()


class _Request:
    """One request on its way."""

    def __init__(self, context: Context, scope: Scope, method: str, span: Span) -> None:
        self._context, self._scope, self._method, self._span = context, scope, method, span
        self._begun = time.perf_counter()
        self._status = 0
        self._stream: Any = None

    def sees(self, message: Message) -> None:
        """Learn from what the application says to the server."""
        if self._status:
            return
        kind = message["type"]
        if message["type"] == "http.response.start":
            self.answered(message["status"])
            if any(
                name == b"content-type" and value.startswith(TEXT_EVENT_STREAM) for name, value in message["headers"]
            ):
                self._open("sse")
        elif kind == "websocket.accept":
            self.answered(SWITCHED)
            self._open("websocket")
        elif kind == "websocket.http.response.start":
            self.answered(int(str(message.get("status", REFUSED))))
        elif kind == "websocket.close":
            self.answered(REFUSED)

    def answered(self, status: int) -> None:
        """The status is known; a later one changes nothing."""
        if self._status:
            return
        self._status = status
        # The router has found it by now; what it did not find has no template.
        route = str(self._scope.get("path_template") or UNMATCHED)
        self._context.metrics.answered(route, self._method, status, time.perf_counter() - self._begun)
        self._span.name(
            f"{self._method} {route}",
            {"http.request.method": self._method, "http.route": route, "http.response.status_code": status},
        )
        self._span.end(f"status {status}" if status >= FAILED else "")

    def _open(self, transport: str) -> None:
        self._stream = self._context.metrics.streams[transport]
        self._stream.inc()

    def closed(self) -> None:
        """Nothing more will be said."""
        self.answered(GONE)
        if self._stream is not None:
            self._stream.dec()


def _inbound(scope: Scope) -> str:
    found = [value for name, value in scope["headers"] if name == b"traceparent"]
    # More than one is none. Source: W3C Trace Context, section 3.2.1.
    return parse_traceparent(found[0].decode("latin-1")) if len(found) == 1 else ""
