"""A client's streams of one thread are answered in the order in which it asked for them.

The stock Python SDK opens a wider stream for each iterator that is started, and closes the one before as soon as the
wider one is answered. If that one's own answer is still to come then, the SDK waits for it for ever. Inside of us
answers keep their order by themselves; what an application does before, its `authenticate` above all, may take longer
for one request than for the next.
"""

import asyncio
import logging
import re
from typing import Any, Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from slipstream_schemas.limits import STREAM_ORDER_WAIT_S

log = logging.getLogger("slipstream.api")

STREAM: Final = re.compile(r"/threads/[^/]+/stream(/events)?")
"""Not the streams of runs, whose clients open one for each run: a backend's users would wait for each other."""
ANSWERS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.close"})
TOLD_APART_BY: Final = (b"user-agent", b"authorization", b"x-api-key")
Key = tuple[object, ...]


class InOrder:
    """An application whose answers to streams, and to sockets, wait for those that the same client asked for before."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._last: dict[Key, asyncio.Event] = {}
        """Set once the newest request of a client on a thread is answered; gone then, too."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if not _asks_for_stream(scope):
            await self._app(scope, receive, send)
            return
        key = _key_of(scope)
        before, answered = self._last.get(key), asyncio.Event()
        self._last[key] = answered

        def is_answered() -> None:
            answered.set()
            if self._last.get(key) is answered:
                del self._last[key]

        async def send_in_order(message: Any) -> None:
            if message["type"] in ANSWERS:
                if before is not None:
                    await _wait(before, scope["path"])
                await send(message)
                is_answered()
            else:
                await send(message)

        try:
            await self._app(scope, receive, send_in_order)
        finally:
            is_answered()


async def _wait(before: asyncio.Event, path: str) -> None:
    try:
        async with asyncio.timeout(STREAM_ORDER_WAIT_S):
            await before.wait()
    except TimeoutError:
        log.info("the answer to %s goes before that to an earlier request: it takes over %.0f s", path,
                 STREAM_ORDER_WAIT_S)  # fmt: skip


def _asks_for_stream(scope: Scope) -> bool:
    if scope["type"] == ScopeType.HTTP and scope["method"] != "POST":
        return False
    return STREAM.fullmatch(scope["path"]) is not None


def _key_of(scope: Scope) -> Key:
    client = scope.get("client")
    told = tuple(value for name, value in scope["headers"] if name in TOLD_APART_BY)
    return scope["path"], client[0] if client else "", *told
