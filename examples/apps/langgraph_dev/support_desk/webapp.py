"""The desk's own routes: a lifespan that opens what they need, and a page that counts its visits."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Serve `/visits`, from what the lifespan has opened."""
    if scope["type"] == "lifespan":
        await live(scope, receive, send)
        return
    if scope["path"] != "/visits":
        await reply(send, 404, {"error": "no such page"})
        return
    scope["state"]["visits"].append(1)
    await reply(send, 200, {"visits": len(scope["state"]["visits"])})


async def live(scope: Message, receive: Receive, send: Send) -> None:
    """Open before the first request, close behind the last."""
    await receive()
    scope["state"]["visits"] = []
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def reply(send: Send, status: int, body: Message) -> None:
    """Answer with JSON."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
