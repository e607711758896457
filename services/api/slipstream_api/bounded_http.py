"""Bounds on connections and on a request's head, which uvicorn has none of: a header without end would fill the memory
before any auth.

The parser keeps what is unfinished to itself, so bytes are counted where they arrive, and the parts where they are
known. Who is too slow is cut off: an open connection that asks nothing costs a file.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from slipstream_api.open_files import Room
from slipstream_api.peer import PEER, Peer, say_if_timed_out
from slipstream_schemas.codec import dumps
from slipstream_schemas.limits import HEAD_BYTES_MAX, HEAD_DEADLINE_S, HEADERS_MAX, RETRY_AFTER_S, URL_BYTES_MAX

REASONS: Final = {
    414: (b"URI Too Long", f"the URL is longer than {URL_BYTES_MAX} bytes"),
    431: (
        b"Request Header Fields Too Large",
        f"the request has more than {HEADERS_MAX} headers, or more than {HEAD_BYTES_MAX} bytes of them",
    ),
    408: (b"Request Timeout", f"no request came within {HEAD_DEADLINE_S:.0f} s"),
    503: (b"Service Unavailable", "this server has as many connections as it may open"),
}


class _Refused(Exception):
    """The head is over a bound; the parser stops at it."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds."""

    room = Room()
    _head_bytes = 0
    _counted = 0
    _is_in_head = True
    _refusal = 0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """The client has to ask something soon."""
        super().connection_made(transport)
        # Not by way of ourselves: scopes know their peer and we our scope, and a ring waits for the garbage collector.
        flow = self.flow
        self._peer = Peer(transport, lambda: flow.write_paused)
        if self.room.is_over(len(self.connections)):
            self._refuse(503)
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is late any more."""
        self._head_is_whole()
        if self.cycle and not self.cycle.response_complete:
            say_if_timed_out(self.scope["path"], exc)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, unless the request is refused already."""
        if self._refusal:
            return
        super().data_received(data)
        if self._is_in_head and not self._refusal:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX + URL_BYTES_MAX:
                self._refuse(414 if not self.headers and len(self.url) == 0 else 431)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["extensions"] = {PEER: {"peer": self._peer}}
        self._head_bytes = self._counted = 0
        self._expect_head()

    def on_url(self, url: bytes) -> None:
        """A piece of the URL. Raises: _Refused."""
        super().on_url(url)
        if len(self.url) > URL_BYTES_MAX:
            self._stop_at(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header. Raises: _Refused."""
        super().on_header(name, value)
        self._counted += len(name) + len(value)
        if len(self.headers) > HEADERS_MAX or self._counted > HEAD_BYTES_MAX:
            self._stop_at(431)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head_is_whole()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What the parser stopped at: a bound of ours, or nonsense."""
        if not self._refusal:
            self._head_is_whole()
            super().send_400_response(msg)

    def _expect_head(self) -> None:
        self._head_is_whole()
        self._is_in_head = True
        self._late = self.loop.call_later(HEAD_DEADLINE_S, self._refuse, 408)

    def _head_is_whole(self) -> None:
        self._is_in_head = False
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _stop_at(self, status: int) -> None:
        self._refuse(status)
        raise _Refused

    def _refuse(self, status: int) -> None:
        self._refusal = status
        self._head_is_whole()
        reason, text = REASONS[status]
        body = dumps({"detail": text})
        later = b"retry-after: %d\r\n" % RETRY_AFTER_S if status == 503 else b""
        head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n%s\r\n"
        if not self.transport.is_closing():
            self.transport.write(head % (status, reason, len(body), later) + body)
            self.transport.close()


def bounded(room: Room) -> type[BoundedProtocol]:
    """The protocol of a process that has this much room."""
    return type("Bounded", (BoundedProtocol,), {"room": room})
