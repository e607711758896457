"""Clients of which thousands fit into one process: the least that speaks HTTP, reads frames, and comes back.

`python -m testkit.crowd <url> <count>` opens that many idle streams, each on a thread of its own, says how long
it took as JSON, and holds them until its standard input ends.
"""

import asyncio
import hashlib
import json
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from testkit.client import ALL_CHANNELS, frame_of, new_thread

OPENING_MAX: Final = 500
"""Connections in the making at a time, of those that are opened at leisure."""
RETRY_S: Final = 0.5
SMALL_BUFFER_BYTES: Final = 4096
CAUGHT_UP: Final = b": caught-up "


def address_of(url: str) -> tuple[str, int]:
    """Host and port."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


def request_of(thread_id: str, since: int | None = None) -> bytes:
    """The request for the v2 stream of all of a thread, as bytes."""
    body = json.dumps({"channels": ALL_CHANNELS} | ({} if since is None else {"since": since})).encode()
    head = f"POST /threads/{thread_id}/stream/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def raise_files(wanted: int) -> None:
    """Let this process open so many files. Raises: SystemExit when it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit(f"this needs {wanted} open files, and the hard limit is {hard}: raise it (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Seen(NamedTuple):
    """An event as a client remembers it."""

    seq: int
    digest: bytes


class Follower(asyncio.Protocol):
    """One connection of a stream. `caught_up` tells when it had all that the log held, or that it ended before."""

    def __init__(self, request: bytes, seen: list[Seen], is_kept: bool) -> None:
        loop = asyncio.get_running_loop()
        self.caught_up: asyncio.Future[bool] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.status = 0
        self._request, self._seen, self._is_kept = request, seen, is_kept
        self._raw, self._body = b"", b""

    def connection_made(self, transport: Any) -> None:
        """Ask."""
        self.transport: asyncio.Transport = transport
        transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        if not self.caught_up.done():
            self.caught_up.set_result(False)
        self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Take the frames of whole chunks."""
        if not self._is_kept and self.caught_up.done():
            return
        self._raw += data
        if not self.status:
            head, end, self._raw = self._raw.partition(b"\r\n\r\n")
            if not end:
                self._raw = head
                return
            self.status = int(head.split(b" ", 2)[1])
        if self.status != 200:
            self.transport.close()
            return
        while True:
            size, end, rest = self._raw.partition(b"\r\n")
            if not end or len(rest) < (length := int(size, 16)) + 2:
                break
            self._body, self._raw = self._body + rest[:length], rest[length + 2 :]
        *blocks, self._body = self._body.split(b"\n\n")
        for block in blocks:
            self._take(block)

    def _take(self, block: bytes) -> None:
        if block.startswith(CAUGHT_UP) and not self.caught_up.done():
            self.caught_up.set_result(True)
        elif not block.startswith(b":"):
            frame = frame_of(block.decode())
            self._seen.append(Seen(frame.seq, hashlib.blake2b(frame.data.encode(), digest_size=8).digest()))


class Faithful:
    """A client that comes back behind the last event that it has seen, until it has caught up."""

    def __init__(self, url: str, thread_id: str, *, is_kept: bool = True) -> None:
        self.thread_id, self.seen = thread_id, list[Seen]()
        self.refused = self.broken = self.answered_503 = 0
        self._address, self._is_kept = address_of(url), is_kept
        self._link: Follower | None = None

    async def follow(self) -> None:
        """Connect, as often as it takes, and return once it has caught up."""
        while True:
            since = self.seen[-1].seq if self.seen else None
            link = Follower(request_of(self.thread_id, since), self.seen, self._is_kept)
            try:
                await asyncio.get_running_loop().create_connection(partial(_same, link), *self._address)
            except OSError:
                self.refused += 1
            else:
                if await link.caught_up:
                    self._link = link
                    return
                if link.status == 503:
                    self.answered_503 += 1
                else:
                    assert link.status in (0, 200), link.status
                    self.broken += 1
            await asyncio.sleep(RETRY_S)

    async def is_lost(self) -> None:
        """Wait until the connection has ended: nothing more comes of it."""
        if self._link is not None:
            await self._link.lost

    def leave(self) -> None:
        """Close the connection."""
        if self._link is not None:
            self._link.transport.abort()


def _same(link: Follower) -> Follower:
    return link


def differs(seen: list[Seen], replay: list[Seen]) -> str:
    """What is wrong with what a client has seen; nothing is."""
    if seen == replay:
        return ""
    seqs, whole = [each.seq for each in seen], {each.seq for each in replay}
    doubled, missing = len(seqs) - len(set(seqs)), len(whole - set(seqs))
    return f"{len(seqs)} of {len(replay)} events, {doubled} twice, {missing} missing"


@contextmanager
def slow_socket(url: str, thread_id: str, buffer_bytes: int = SMALL_BUFFER_BYTES) -> Iterator[socket.socket]:
    """A stream of all of a thread, whose client has a small buffer and reads by hand."""
    with socket.socket() as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        opened.connect(address_of(url))
        opened.sendall(request_of(thread_id))
        opened.setblocking(False)
        yield opened


def is_gone(opened: socket.socket) -> bool:
    """Read one byte; whether the connection has ended."""
    try:
        return not opened.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True


async def hold(url: str, count: int) -> None:
    """Open idle streams and keep them."""
    clients = [Faithful(url, new_thread(), is_kept=False) for _ in range(count)]
    free, begun = asyncio.Semaphore(OPENING_MAX), time.perf_counter()

    async def one(client: Faithful) -> None:
        async with free:
            await client.follow()

    await asyncio.gather(*(one(client) for client in clients))
    retries = sum(client.refused + client.broken + client.answered_503 for client in clients)
    print(json.dumps({"opened_s": time.perf_counter() - begun, "retries": retries}), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    raise_files(int(sys.argv[2]) + 100)
    asyncio.run(hold(sys.argv[1], int(sys.argv[2])))
