"""Event streams: an ASGI callable that joins frames, keeps the connection alive, and notices who is gone.

uvicorn never tells a sender that its peer is dead: `receive` is the only signal. Its `send` waits when a client does
not read, so a slow client slows its own stream alone; one that reads nothing for long is dropped.

A stream is two tasks. One forwards pieces and does nothing else, since a thread's event costs that for each of its
streams. The other attends: it wakes at each beat, sends a keepalive, and ends a forwarding that is stuck.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

from litestar.types import Receive, Scope, Send

from slipstream_api.bounded_http import CONNECTION
from slipstream_schemas.errors import SlipstreamError
from slipstream_schemas.limits import SSE_HEARTBEAT_S, SSE_SEND_DEADLINE_S

log = logging.getLogger("slipstream.sse")

HEARTBEAT: Final = b": heartbeat\n\n"
NEWLINE: Final = b"\n"


class Heart:
    """The one timer of all open streams, and the word that ends them.

    A thousand idle streams with timers of their own cost the API several times what this does.
    """

    def __init__(self) -> None:
        self.beats = 0
        self.is_closing = False
        self._streams: set[asyncio.Event] = set()

    def join(self, wake: asyncio.Event) -> None:
        """Wake a stream at each beat from now on."""
        self._streams.add(wake)
        if self.is_closing:
            # A request that came in while the process begins to stop would wait for a beat, and the process for it.
            wake.set()

    def leave(self, wake: asyncio.Event) -> None:
        """The stream is over."""
        self._streams.discard(wake)

    def close(self) -> None:
        """End every stream."""
        self.is_closing = True
        self._wake()

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            await asyncio.sleep(SSE_HEARTBEAT_S)
            self.beat()

    def beat(self) -> None:
        """Wake every stream: `SSE_HEARTBEAT_S` have passed."""
        self.beats += 1
        self._wake()

    def _wake(self) -> None:
        for wake in self._streams:
            wake.set()


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
        self._wake = asyncio.Event()
        self._sending_since_beat: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        gone = asyncio.create_task(_gone(receive))
        gone.add_done_callback(self._notice)
        if (on_end := self._on_end) is not None:
            # At once: what is left to clean up takes round trips, and the client's next request may come first.
            gone.add_done_callback(lambda _: on_end())
        self._heart.join(self._wake)
        is_gone = False
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            await _send(send, self._opening)
            is_gone = await self._attend(send, gone)
        except TimeoutError:
            is_gone = True
            log.warning("dropped a client of %s that read nothing for %.0f s", scope.get("path"), SSE_SEND_DEADLINE_S)
            # A connection that is merely closed stays, with its buffers, until the client has read the rest.
            _give_up(scope, "abort")
        except SlipstreamError as error:
            log.warning("the stream %s ended: %s", scope.get("path"), error.message)
        finally:
            is_broken = self._breaks and not self._is_whole and not is_gone
            if is_broken:
                _give_up(scope, "close")
            self._heart.leave(self._wake)
            await _end(gone)
            await self._pieces.aclose()
            if is_gone and self._on_gone is not None:
                await self._on_gone()
        if not is_gone and not is_broken:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _attend(self, send: Send, gone: "asyncio.Task[None]") -> bool:
        """Until the pieces or the client end; whether the client has gone. Raises: TimeoutError, SlipstreamError."""
        forwarding = asyncio.create_task(self._forward(send))
        forwarding.add_done_callback(self._notice)
        beats = self._heart.beats
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if gone.done():
                    return True
                if forwarding.done():
                    forwarding.result()
                    return False
                if self._heart.is_closing:
                    return False
                if beats != self._heart.beats:
                    beats = self._heart.beats
                    await self._beat(send)
        finally:
            await _end(forwarding)

    async def _forward(self, send: Send) -> None:
        async for piece in self._pieces:
            self._sending_since_beat = self._heart.beats
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            self._sending_since_beat = None
        self._is_whole = True

    async def _beat(self, send: Send) -> None:
        if self._sending_since_beat is not None:
            if (self._heart.beats - self._sending_since_beat) * SSE_HEARTBEAT_S > SSE_SEND_DEADLINE_S:
                raise TimeoutError
        else:
            await _send(send, self._keepalive)

    def _notice(self, _: object) -> None:
        self._wake.set()


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


def _give_up(scope: Scope, how: str) -> None:
    """End a connection in the middle of its answer: `abort` with what is unsent, `close` once that was sent."""
    extensions: Any = scope.get("extensions") or {}
    if CONNECTION in extensions:
        extensions[CONNECTION][how]()


async def _send(send: Send, piece: bytes) -> None:
    async with asyncio.timeout(SSE_SEND_DEADLINE_S):
        await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _end(*tasks: "asyncio.Task[Any] | None") -> None:
    live = [task for task in tasks if task is not None]
    for task in live:
        task.cancel()
    await asyncio.gather(*live, return_exceptions=True)
