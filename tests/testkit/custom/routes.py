"""A plain ASGI application with a lifespan and middleware, in the form that Starlette keeps it."""

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Marking:
    """Middleware that counts a request and marks its answer."""

    def __init__(self, app: Any, mark: str) -> None:
        self.app, self.mark = app, mark

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve."""

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-marked", self.mark.encode())]
            await send(message)

        await self.app(scope, receive, marked)


class App:
    """Answers everything but what it says it does not know."""

    def __init__(self) -> None:
        self.user_middleware = [(Marking, (), {"mark": "outer"}), (Marking, (), {"mark": "inner"})]
        self._stack = Marking(Marking(self._routes, "inner"), "outer")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self._stack(scope, receive, send)

    async def _live(self, scope: Message, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["pool"] = "open"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        Path(os.environ.get("CUSTOM_APP_STOPPED", os.devnull)).write_text("stopped")
        await send({"type": "lifespan.shutdown.complete"})

    async def _routes(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        status = 404 if scope["path"] == "/info" and scope["query_string"] != b"mine" else 200
        seen = {
            "mine": True,
            "path": scope["path"],
            "raw_path": scope["raw_path"].decode(),
            "method": scope["method"],
            "body": body.decode(),
            "pool": scope["state"]["pool"],
        }
        headers = [(b"content-type", b"application/json"), (b"x-mine", b"1")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(seen).encode()})

    async def _socket(self, scope: Message, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        message = await receive()
        await send({"type": "websocket.send", "text": f"{scope['path']}: {message['text']}"})
        await send({"type": "websocket.close", "code": 1000})


async def failing(scope: Message, receive: Receive, send: Send) -> None:
    """An application that cannot start."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "the pool is empty"})


app = App()
