"""uvicorn's WebSocket, which knows who reads slowly."""

import logging
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from slipstream_api.peer import PEER, Peer, say_if_timed_out

log = logging.getLogger("slipstream.socket")


class BoundedSocket(WebSocketsSansIOProtocol):
    """uvicorn's protocol, whose scope names the peer."""

    def connection_made(self, transport: Any) -> None:
        """A client has asked for a socket."""
        super().connection_made(transport)
        writable = self.writable
        self._peer = Peer(transport, lambda: not writable.is_set())
        self._path = ""

    def handle_connect(self, event: Request) -> None:
        """Its request, whole."""
        super().handle_connect(event)
        if not self.close_sent:
            self._path = self.scope["path"]
            self.scope["extensions"] = {**(self.scope.get("extensions") or {}), PEER: {"peer": self._peer}}

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        say_if_timed_out(self._path, exc)
        super().connection_lost(exc)

    def keepalive_timeout(self) -> None:
        """No pong came. Who has not taken what was sent before the ping cannot have read it: that the sender judges."""
        if not (self.close_sent or self.transport.is_closing()):
            if self._peer.unsent_bytes():
                self.pong_timer = self.loop.call_later(self.ping_timeout or 0, self.keepalive_timeout)
                return
            log.warning("dropped a socket of %s that answered no ping for %.0f s", self._path, self.ping_timeout)
        super().keepalive_timeout()
