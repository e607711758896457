"""Event streams: an ASGI callable that joins frames, keeps the connection alive, and notices who is gone.

uvicorn never tells a sender that its peer is dead: `receive` is the only signal. Its `send` waits when a client does
not read, so a slow client slows its own stream alone; one that takes nothing for long is dropped.

A stream is two tasks. One forwards pieces and does nothing else, since a thread's event costs that for each of its
streams. The other attends: it wakes at each beat, sends a keepalive, and ends a forwarding that is stuck.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

from litestar.types import Receive, Scope, Send

from slipstream_api.heart import Heart, Pulse
from slipstream_api.peer import Patience
from slipstream_schemas.errors import SlipstreamError
from slipstream_schemas.limits import SSE_SEND_DEADLINE_S

log = logging.getLogger("slipstream.sse")

HEARTBEAT: Final = b": heartbeat\n\n"
NEWLINE: Final = b"\n"


class Stream:
    """Answers with what `pieces` yields, until it ends, the client goes, or the process stops.

    `keepalive` is sent at every beat, whatever else was: the JavaScript SDK takes a slower cadence than it has seen for
    a dead connection. `on_gone` is called when the client left before the end, `on_end` in any case.
    With `breaks` a body whose pieces did not come to their end is broken off: white space alone would be taken for the
    whole answer, where the stock clients come back to the `Location` of one that broke.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes],
        heart: Heart,
        headers: dict[str, str],
        *,
        keepalive: bytes = HEARTBEAT,
        opening: bytes = HEARTBEAT,
        on_gone: Callable[[], Awaitable[None]] | None = None,
        on_end: Callable[[], None] | None = None,
        breaks: bool = False,
    ) -> None:
        self._pieces, self._heart, self._keepalive, self._on_gone = pieces, heart, keepalive, on_gone
        self._on_end, self._opening, self._breaks = on_end, opening, breaks
        self._is_whole = False
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._pulse = Pulse()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        gone = asyncio.create_task(_gone(receive))
        gone.add_done_callback(self._notice)
        if (on_end := self._on_end) is not None:
            # At once: what is left to clean up takes round trips, and the client's next request may come first.
            gone.add_done_callback(lambda _: on_end())
        self._heart.join(self._pulse)
        patience, is_gone = Patience(scope), False
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            await _send(send, self._opening)
            is_gone = await self._attend(send, gone, patience)
        except TimeoutError:
            is_gone = True
            log.warning("dropped a client of %s that read nothing for %.0f s", scope.get("path"), SSE_SEND_DEADLINE_S)
            patience.give_up()
        except SlipstreamError as error:
            log.warning("the stream %s ended: %s", scope.get("path"), error.message)
        finally:
            is_broken = self._breaks and not self._is_whole and not is_gone
            if is_broken:
                patience.break_off()
            self._heart.leave(self._pulse)
            await _end(gone)
            await self._pieces.aclose()
            if is_gone and self._on_gone is not None:
                await self._on_gone()
        if not is_gone and not is_broken:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _attend(self, send: Send, gone: "asyncio.Task[None]", patience: Patience) -> bool:
        """Until the pieces or the client end; whether the client has gone. Raises: TimeoutError, SlipstreamError."""
        forwarding = asyncio.create_task(self._forward(send, patience))
        forwarding.add_done_callback(self._notice)
        pulse = self._pulse
        beats = pulse.beats
        try:
            while True:
                await pulse.wake.wait()
                pulse.wake.clear()
                if gone.done():
                    return True
                if forwarding.done():
                    forwarding.result()
                    return False
                if self._heart.is_closing:
                    return False
                if beats != pulse.beats:
                    beats = pulse.beats
                    if not patience.waits():
                        await _send(send, self._keepalive)
        finally:
            await _end(forwarding)

    async def _forward(self, send: Send, patience: Patience) -> None:
        async for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            patience.moved()
        self._is_whole = True

    def _notice(self, _: object) -> None:
        self._pulse.wake.set()


class Empty:
    """Answers with a status and no body."""

    def __init__(self, status: int) -> None:
        self._status = status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        await send({"type": "http.response.start", "status": self._status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


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
