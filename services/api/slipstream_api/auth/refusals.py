"""What a request or a handshake is refused with before any route has it."""

from typing import Any

from litestar import Request
from litestar.types import Scope, Send

from slipstream_api import problems
from slipstream_api.auth.denied import Denied
from slipstream_schemas.codec import dumps
from slipstream_schemas.errors import SlipstreamError, TooMany, Unavailable


async def refuse_request(scope: Scope, send: Send, error: SlipstreamError) -> None:
    """Answer as our own routes do."""
    answer = problems.on_slipstream_error(Request(scope), error)
    headers = {"content-type": "application/json", **answer.headers}
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    start: Any = {"type": "http.response.start", "status": answer.status_code, "headers": raw}
    body: Any = {"type": "http.response.body", "body": answer.content}
    await send(start)
    await send(body)


async def refuse_socket(scope: Scope, send: Send, error: SlipstreamError) -> None:
    """Refuse a handshake as a request would be."""
    status = 503 if isinstance(error, Unavailable) else error.status if isinstance(error, Denied) else 403
    status = 429 if isinstance(error, TooMany) else status
    headers = [(b"content-type", b"application/json")]
    extensions: Any = scope.get("extensions") or {}
    if "websocket.http.response" not in extensions:
        close: Any = {"type": "websocket.close", "code": 4000 + status, "reason": error.shown[:100]}
        await send(close)
        return
    start: Any = {"type": "websocket.http.response.start", "status": status, "headers": headers}
    body: Any = {"type": "websocket.http.response.body", "body": dumps({"detail": error.shown})}
    await send(start)
    await send(body)
