"""A TCP proxy that stands between a service and a server, and does to the bytes what networks do.

It knows five evils. `latency_s` and `bytes_per_s` slow what passes. `cut()` closes every link and refuses new ones.
`reset()` ends every link with an RST. `swallow()` makes links half-open: bytes vanish in one or both directions, and
nobody is told; new links fare the same, unless only the links that exist are to be lost (`new_too=False`, a peer that
was replaced by another). `stall()` takes nothing from either side, as where packets are dropped. `heal()` lets bytes
pass again; a link that lost some never carries any again and is reset. `lose_answer_to` takes one answer of a NATS
server out of what passes, as when the leader of a stream dies behind an append; `hold_at` keeps one publish, and what
its link sends behind it, until `let_go()`, as where a service is slow just there.

One for each pair of a service and a server, so that one process can be cut off alone:

    async with Proxy(nats_url) as proxy:
        stack.spawn_runner(nats_url=proxy.url)
"""

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

CHUNK_BYTES: Final = 64 * 1024
HOST: Final = "127.0.0.1"
LINGER_NOT: Final = struct.pack("ii", 1, 0)
"""Closing a socket that lingers for no time sends an RST."""


class _Link:
    """One connection of a client, and ours to the server for it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client, self.server = client, server
        self.has_lost = False
        self.loses_to_server = self.loses_to_client = self.stalls = False
        self.pumps: list[asyncio.Task[None]] = []

    def end(self, *, reset: bool = False) -> None:
        """Close both sides, without what is still to be sent."""
        for pump in self.pumps:
            pump.cancel()
        for writer in (self.client, self.server):
            if reset:
                found = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            writer.transport.abort()


class Proxy:
    """A proxy for one address. Use it as an async context manager, on the loop that serves the test."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or HOST, parts.port or 0)
        self._parts = parts
        self._server: asyncio.Server | None = None
        self._port = 0
        self._links: set[_Link] = set()
        self._new_to_server = self._new_to_client = False
        self.latency_s = 0.0
        self.bytes_per_s = 0
        """Each link's rate in each direction, 0 for any."""
        self.lose_answer_to = b""
        """Words of a NATS publish; the answer to the next one that has them does not pass."""
        self._lost_reply = b""
        self.lost_answers = 0
        self.hold_at = b""
        """Words of a NATS publish; the next one that has them waits."""
        self.is_holding = False
        self._let_go = asyncio.Event()
        self.links_made = 0

    @property
    def url(self) -> str:
        """The target's address with our port in it."""
        user, at, _ = self._parts.netloc.rpartition("@")
        return self._parts._replace(netloc=f"{user}{at}{HOST}:{self._port}").geturl()

    @property
    def links(self) -> int:
        """How many connections pass now."""
        return len(self._links)

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        while self._links:
            await asyncio.sleep(0)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    # Evils

    def cut(self) -> None:
        """Close every link and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._end_all(reset=False)

    def reset(self) -> None:
        """End every link with an RST; new ones pass."""
        self._end_all(reset=True)

    def swallow(self, *, to_server: bool = True, to_client: bool = True, new_too: bool = True) -> None:
        """Lose what is sent in these directions, silently."""
        for link in self._links:
            link.loses_to_server, link.loses_to_client = to_server, to_client
            link.has_lost = True
        if new_too:
            self._new_to_server, self._new_to_client = to_server, to_client

    def stall(self) -> None:
        """Take nothing more from the links that exist: what is sent fills the kernel's buffers, then the sender's."""
        self.swallow(new_too=False)
        for link in self._links:
            link.stalls = True

    async def heal(self) -> None:
        """Let new links pass, at full speed, and end those that have lost something."""
        self.latency_s, self.bytes_per_s = 0.0, 0
        self._new_to_server = self._new_to_client = False
        for link in [link for link in self._links if link.has_lost]:
            link.end(reset=True)
        if self._server is None:
            await self._listen()

    def let_go(self) -> None:
        """Let pass what is held."""
        self._let_go.set()

    def _end_all(self, *, reset: bool) -> None:
        for link in list(self._links):
            link.end(reset=reset)

    # Passing bytes

    async def _accept(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            server_reader, server = await asyncio.open_connection(*self._target)
        except OSError:
            client.transport.abort()
            return
        link = _Link(client, server)
        link.loses_to_server, link.loses_to_client = self._new_to_server, self._new_to_client
        link.has_lost = self._new_to_server or self._new_to_client
        self._links.add(link)
        self.links_made += 1
        link.pumps = [
            asyncio.create_task(self._pump(link, client_reader, server, to_server=True)),
            asyncio.create_task(self._pump(link, server_reader, client, to_server=False)),
        ]
        try:
            # The end of one direction is the end of both: neither NATS nor Postgres closes half a connection.
            await asyncio.wait(link.pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            link.end()
            self._links.discard(link)

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_server: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                if link.stalls:
                    break
                if to_server and self.hold_at and self.hold_at in chunk:
                    self.hold_at, self.is_holding = b"", True
                    await self._let_go.wait()
                chunk = self._without_answer(chunk, to_server=to_server)
                if link.loses_to_server if to_server else link.loses_to_client:
                    continue
                pause_s = self.latency_s + (len(chunk) / self.bytes_per_s if self.bytes_per_s else 0)
                if pause_s:
                    await asyncio.sleep(pause_s)
                writer.write(chunk)
                await writer.drain()
        if link.loses_to_server or link.loses_to_client:
            # The other side is told nothing, the end of the connection included.
            await asyncio.Event().wait()

    def _without_answer(self, chunk: bytes, *, to_server: bool) -> bytes:
        if to_server and self.lose_answer_to and (words := chunk.find(self.lose_answer_to)) >= 0:
            _, _, reply, _ = chunk[chunk.rindex(b"HPUB ", 0, words + len(self.lose_answer_to)) :].split(b" ", 3)
            self.lose_answer_to, self._lost_reply = b"", b"MSG %b " % reply
        elif not to_server and self._lost_reply and (begin := chunk.find(self._lost_reply)) >= 0:
            head_end = chunk.index(b"\r\n", begin) + 2
            size = int(chunk[begin:head_end].split()[-1])
            self._lost_reply = b""
            self.lost_answers += 1
            return chunk[:begin] + chunk[head_end + size + 2 :]
        return chunk
