"""Who is at the other end of a connection, and how long we wait for them to take what they asked for.

A send that waits says nothing by itself: megabytes through a narrow link take minutes, and a client that was dropped
for that would come back for the same megabytes. What counts is whether the client's kernel has taken any of it since
the last beat.
"""

import fcntl
import logging
import sys
import termios
from asyncio import Transport
from collections.abc import Callable
from typing import Any, Final

from litestar.types import Scope

from slipstream_schemas.limits import SSE_HEARTBEAT_S, SSE_SEND_DEADLINE_S

log = logging.getLogger("slipstream.api")

PEER: Final = "slipstream.peer"
"""A scope's extension; its `peer` is the `Peer`."""


class Peer:
    """The client of a connection, as the server knows it."""

    def __init__(self, transport: Transport, is_full: Callable[[], bool]) -> None:
        self._transport = transport
        self.is_full = is_full
        """Whether a send would wait for the client to read."""

    def unsent_bytes(self) -> int:
        """What the client has not taken yet, in our buffer and the kernel's."""
        return self._transport.get_write_buffer_size() + _in_kernel(self._transport)

    def abort(self) -> None:
        """Give the connection up with all that is unsent. One that is merely closed stays until the client has read."""
        self._transport.abort()

    def close(self) -> None:
        """End the connection once all is sent."""
        self._transport.close()


def _in_kernel(transport: Transport) -> int:
    try:
        found = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):
        return 0
    return int.from_bytes(found, sys.byteorder)


def say_if_timed_out(path: str, lost: Exception | None) -> None:
    """Log that the kernel gave a client up, which it does by itself where too little is sent to fill our buffer."""
    if isinstance(lost, TimeoutError):
        log.info("dropped a client of %s that took nothing for too long, or is gone", path)


class Patience:
    """How long a client has been taking nothing of what waits for it."""

    def __init__(self, scope: Scope) -> None:
        extensions: Any = scope.get("extensions") or {}
        self._peer: Peer | None = extensions.get(PEER, {}).get("peer")
        self._unsent_bytes: int | None = None
        self._stuck_beats = 0

    def moved(self) -> None:
        """Something was sent, for which the client must have taken what was sent before."""
        self._unsent_bytes = None

    def waits(self) -> bool:
        """Ask at each beat: whether a send would wait. Raises: TimeoutError when nothing was taken for too long."""
        if self._peer is None or not self._peer.is_full():
            self._unsent_bytes = None
            return False
        before, self._unsent_bytes = self._unsent_bytes, self._peer.unsent_bytes()
        is_stuck = before is not None and self._unsent_bytes >= before
        self._stuck_beats = self._stuck_beats + 1 if is_stuck else 0
        if self._stuck_beats * SSE_HEARTBEAT_S >= SSE_SEND_DEADLINE_S:
            raise TimeoutError
        return True

    def give_up(self) -> None:
        """End the connection now."""
        if self._peer is not None:
            self._peer.abort()

    def break_off(self) -> None:
        """End the connection in the middle of its answer, once what was said of it is sent."""
        if self._peer is not None:
            self._peer.close()
