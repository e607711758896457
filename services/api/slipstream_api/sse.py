"""Event streams: an ASGI callable that joins frames, keeps the connection alive, and notices who is gone.

uvicorn never tells a sender that its peer is dead: `receive` is the only signal. Its `send` waits when a client does
not read, so a slow client slows its own stream alone; one that reads nothing for long is dropped.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

from litestar.types import Receive, Scope, Send

from slipstream_schemas.errors import SlipstreamError
from slipstream_schemas.limits import SSE_HEARTBEAT_S, SSE_SEND_DEADLINE_S

log = logging.getLogger("slipstream.sse")

HEARTBEAT: Final = b": heartbeat\n\n"
NEWLINE: Final = b"\n"


class Stream:
    """Answers with what `pieces` yields, until it ends, the client goes, or the process stops.

    `keepalive` is sent when nothing else was for a while. `on_gone` is called when the client left before the end.
    """

    def __init__(
        self, pieces: AsyncGenerator[bytes], closing: asyncio.Event, headers: dict[str, str], *,
        keepalive: bytes = HEARTBEAT, opening: bytes = HEARTBEAT, on_gone: Callable[[], Awaitable[None]] | None = None,
    ) -> None:  # fmt: skip
        self._pieces, self._closing, self._keepalive, self._on_gone = pieces, closing, keepalive, on_gone
        self._opening = opening
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        gone = asyncio.create_task(_gone(receive))
        closing = asyncio.create_task(self._closing.wait())
        reading: asyncio.Task[bytes] | None = None
        is_gone = False
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            await _send(send, self._opening)
            while True:
                reading = reading or asyncio.create_task(_next(self._pieces))
                await asyncio.wait(
                    {reading, gone, closing}, timeout=SSE_HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED
                )
                if gone.done():
                    is_gone = True
                    return
                if reading.done():
                    piece, reading = reading.result(), None
                    await _send(send, piece)
                elif closing.done():
                    break
                else:
                    await _send(send, self._keepalive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except _Ended:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            is_gone = True
            log.warning("dropped a client of %s that read nothing for %.0f s", scope.get("path"), SSE_SEND_DEADLINE_S)
        except SlipstreamError as error:
            log.warning("the stream %s ended: %s", scope.get("path"), error.message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await _end(reading, gone, closing)
            await self._pieces.aclose()
            if is_gone and self._on_gone is not None:
                await self._on_gone()


class Empty:
    """Answers with a status and no body."""

    def __init__(self, status: int) -> None:
        self._status = status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        await send({"type": "http.response.start", "status": self._status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _next(pieces: AsyncGenerator[bytes]) -> bytes:
    try:
        return await anext(pieces)
    except StopAsyncIteration:
        # A coroutine cannot raise StopAsyncIteration.
        raise _Ended from None


class _Ended(SlipstreamError):
    """The pieces are over."""

    def __init__(self) -> None:
        super().__init__("the end")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, piece: bytes) -> None:
    async with asyncio.timeout(SSE_SEND_DEADLINE_S):
        await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _end(*tasks: "asyncio.Task[Any] | None") -> None:
    live = [task for task in tasks if task is not None]
    for task in live:
        task.cancel()
    await asyncio.gather(*live, return_exceptions=True)
