"""A load balancer without sessions: each request goes to any of several APIs, each WebSocket as a whole.

Run as a process, with the APIs' addresses in `BALANCER_TARGETS` (separated by spaces).
"""

import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable
from typing import Any, Final

import httpx
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

HOP_BY_HOP: Final = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
HANDSHAKE: Final = HOP_BY_HOP | {
    b"host", b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions", b"user-agent"
}  # fmt: skip
Headers = list[tuple[bytes, bytes]]


async def _until_first(*ways: Awaitable[object]) -> None:
    """Until one of them has ended; the others are ended with it."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Balancer:
    """An ASGI app before the targets."""

    def __init__(self, targets: list[str]) -> None:
        self._targets = targets
        # Turns in a row would give each request of a flow the same instance every time.
        self._chance = random.Random(1)
        self._http = httpx.AsyncClient(timeout=None, limits=httpx.Limits())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass one request, or one socket."""
        target = self._chance.choice(self._targets)
        path = scope["raw_path"].decode() + (f"?{scope['query_string'].decode()}" if scope["query_string"] else "")
        if scope["type"] == "http":
            await self._pass(scope, receive, send, target + path)
        elif scope["type"] == "websocket":
            await _tunnel(scope, receive, send, target.replace("http", "ws", 1) + path)

    async def _pass(self, scope: Any, receive: Any, send: Any, url: str) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body"):
                break
        headers: Headers = [(name, value) for name, value in scope["headers"] if name not in HOP_BY_HOP]
        request = httpx.Request(scope["method"], url, headers=headers, content=body)

        async def answer() -> None:
            response = await self._http.send(request, stream=True)
            try:
                kept = [(name.lower(), value) for name, value in response.headers.raw if name.lower() not in HOP_BY_HOP]
                await send({"type": "http.response.start", "status": response.status_code, "headers": kept})
                async for piece in response.aiter_raw():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            finally:
                await response.aclose()

        # What an API breaks off ends here without its last piece, as the client is to see it.
        await _until_first(answer(), receive())


async def _tunnel(scope: Any, receive: Any, send: Any, url: str) -> None:
    assert (await receive())["type"] == "websocket.connect"
    given = {name.decode(): value.decode() for name, value in scope["headers"] if name not in HANDSHAKE}
    agent = dict(scope["headers"]).get(b"user-agent", b"").decode() or None
    try:
        server = await connect(url, additional_headers=given, user_agent_header=agent, max_size=None, compression=None)
    except (InvalidStatus, OSError):
        await send({"type": "websocket.close"})
        return

    async def to_server() -> None:
        while (message := await receive())["type"] == "websocket.receive":
            await server.send(message.get("text") or message["bytes"])
        await server.close(message.get("code") or 1000, message.get("reason") or "")

    await send({"type": "websocket.accept"})
    await _until_first(to_server(), _to_client(server, send))


async def _to_client(server: ClientConnection, send: Any) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in server:
            await send({"type": "websocket.send", "text": message})
    await send({"type": "websocket.close", "code": server.close_code or 1000, "reason": server.close_reason or ""})


if __name__ == "__main__":
    # Like uvicorn itself, it says "ready" nowhere: whoever waits asks for /ready, which an API answers.
    uvicorn.run(
        Balancer(os.environ["BALANCER_TARGETS"].split()), host=os.environ["SLIPSTREAM_HOST"],
        port=int(os.environ["SLIPSTREAM_PORT"]), lifespan="off", log_level="warning", server_header=False,
        date_header=False,
    )  # fmt: skip
