"""What one event costs the API for each stream of a thread, beside a bare ASGI app that sends the same bytes.

CPU time of the serving process, divided by events and streams; the bare app sends the very
pieces that one client of the API received, with the same pause between them, to as many clients.

PYTHONPATH=tools:tests python -m bench.fanout [--streams 1 50 500]
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from bench.limits import cpu_s
from bench.site import site
from testkit.stack import Stack, free_port

GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"
ENDS = (b"lc||completed", b"\r\n0\r\n\r\n")
"""Behind the last event of a v2 stream; behind the body of the others."""
MARK_BYTES = 16
PAUSE_S_MIN = 0.005
PAUSE_PER_STREAM_S = 0.0002
"""A pause behind each event that leaves the API time to send it to every stream before the next."""
BARE_PAUSE_S = 0.001
OPENING_S = 2.0
OPENING_PER_STREAM_S = 0.02
"""How long the graph waits, so that all streams are open and quiet when its first event comes."""


class Reader(asyncio.Protocol):
    """A client that only notices the beginning and the end; `keep` makes it remember what it received."""

    def __init__(self, request: bytes, keep: bool) -> None:
        loop = asyncio.get_running_loop()
        self.begun, self.ended = loop.create_future(), loop.create_future()
        self.received: list[bytes] = []
        self._request, self._keep = request, keep
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Look for the end."""
        if not self.begun.done():
            assert data.startswith(b"HTTP/1.1 200"), data
            self.begun.set_result(None)
        if self._keep:
            self.received.append(data)
        seen = self._tail + data
        self._tail = data[-MARK_BYTES:]
        if not self.ended.done() and any(end in seen for end in ENDS):
            self.ended.set_result(None)


def pieces_of(raw: bytes) -> list[bytes]:
    """The body's chunks, which are what the server sent at a time; the first one is the opening heartbeat."""
    _, _, body = raw.partition(b"\r\n\r\n")
    pieces: list[bytes] = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if length and not rest.startswith(b":"):
            pieces.append(rest[:length])
        body = rest[length + 2 :]
    return pieces


def address_of(url: str) -> tuple[str, int]:
    """Host and port."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


def _same(reader: Reader) -> Reader:
    return reader


class Reading(contextlib.AsyncExitStack):
    """Many clients of one address."""

    def __init__(self, url: str, request: bytes, count: int) -> None:
        super().__init__()
        self._address, self._request, self._count = address_of(url), request, count
        self._readers: list[Reader] = []

    async def open(self) -> None:
        """Return once all of them have begun to receive."""
        loop = asyncio.get_running_loop()
        for number in range(self._count):
            reader = Reader(self._request, keep=number == 0)
            await loop.create_connection(partial(_same, reader), *self._address)
            self.callback(reader.transport.close)
            self._readers.append(reader)
        await asyncio.gather(*(reader.begun for reader in self._readers))

    async def finish(self) -> list[bytes]:
        """Wait until all have everything; the pieces that the first one received."""
        await asyncio.gather(*(reader.ended for reader in self._readers))
        return pieces_of(b"".join(self._readers[0].received))


def request_of(method: str, path: str, body: object = None) -> bytes:
    """A request, as bytes."""
    encoded = b"" if body is None else json.dumps(body).encode()
    lines = f"{method} {path} HTTP/1.1\r\nhost: bench\r\nuser-agent: bench\r\ncontent-type: application/json\r\n"
    return f"{lines}content-length: {len(encoded)}\r\n\r\n".encode() + encoded


def events_of(streams: int, pause_s: float) -> int:
    """Enough to be measured with a clock of ten milliseconds."""
    return min(200, 50_000 // streams) if pause_s else min(max(4000, 1_000_000 // streams), 20_000)


async def from_api(stack: Stack, protocol: str, streams: int, pause_s: float) -> tuple[list[bytes], float]:
    """The pieces of a run for one client, and the CPU seconds that all of them cost the API."""
    api, thread = stack.apis[0].pid, str(uuid.uuid4())
    wait_s = OPENING_S + OPENING_PER_STREAM_S * streams
    given = {"count": events_of(streams, pause_s), "wait_s": wait_s, "pause_s": pause_s}
    async with httpx.AsyncClient(base_url=stack.url, timeout=60) as c:
        await c.post("/threads", json={"thread_id": thread})
        run = (await c.post(f"/threads/{thread}/runs", json={"assistant_id": "tokens", "input": given})).json()
        if protocol == "v2":
            path, body = f"/threads/{thread}/stream/events", {"channels": ["messages", "lifecycle"]}
            request = request_of("POST", path, body)
        else:
            request = request_of("GET", f"/threads/{thread}/runs/{run['run_id']}/stream?stream_mode=messages-tuple")
        async with Reading(stack.url, request, streams) as reading:
            await reading.open()
            await asyncio.sleep(wait_s / 3)
            before = cpu_s(api)
            pieces = await reading.finish()
            return pieces, cpu_s(api) - before


@contextlib.contextmanager
def bare_server(pieces: list[bytes]) -> Iterator[tuple[str, int]]:
    """A bare app of its own for these pieces."""
    with tempfile.TemporaryDirectory() as folder:
        for number, piece in enumerate(pieces):
            (Path(folder) / f"{number:06}").write_bytes(piece)
        port = free_port()
        process = subprocess.Popen([sys.executable, "-m", "bench.bare_server", str(port), folder])
        try:
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.kill()
            process.wait()


async def from_bare(pieces: list[bytes], streams: int, pause_s: float) -> float:
    """The CPU seconds that sending the pieces to all costs a bare app."""
    with bare_server(pieces) as (url, pid):
        async with httpx.AsyncClient(base_url=url, timeout=60) as c, Reading(url, request_of("GET", "/"), streams) as r:
            await _serving(url)
            await r.open()
            before = cpu_s(pid)
            await c.post(f"/{pause_s}")
            await r.finish()
            return cpu_s(pid) - before


async def _serving(url: str) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(*address_of(url))
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return


async def compare(stack: Stack, protocol: str, streams: int, pause_s: float, trials: int) -> tuple[float, float]:
    """Median microseconds for each event and stream: of the API, of the bare app."""
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(trials):
        pieces, spent_s = await from_api(stack, protocol, streams, pause_s)
        events = sum(piece.count(b"\nid: ") + piece.startswith(b"id: ") for piece in pieces)
        assert events >= events_of(streams, pause_s), f"{events} events"
        ours.append(1e6 * spent_s / events / streams)
        bare.append(1e6 * await from_bare(pieces, streams, pause_s or BARE_PAUSE_S) / events / streams)
    return statistics.median(ours), statistics.median(bare)


def fanout(stack: Stack, streams: list[int], trials: int = 3) -> None:
    """Print a row for each number of streams, protocol and pace."""
    for protocol, aim in (("v2", 2), ("v1", 4)):
        for count in streams:
            for name, pause_s in (("one by one", max(PAUSE_S_MIN, count * PAUSE_PER_STREAM_S)), ("packed", 0.0)):
                ours, bare = asyncio.run(compare(stack, protocol, count, pause_s, trials))
                print(
                    f"{protocol} to {count} streams, events {name}: {ours:.1f} us of CPU for each event and stream,"
                    f" bare app {bare:.1f} us (ratio {ours / bare:.2f}, aim {aim} from 50 streams on)",
                    flush=True,
                )


def main() -> None:
    """Start servers of our own, measure, stop them."""
    arguments = argparse.ArgumentParser("bench.fanout", description=__doc__)
    arguments.add_argument("--streams", type=int, nargs="+", default=[1, 50, 500], help="(default: 1 50 500)")
    arguments.add_argument("--trials", type=int, default=3, help="the median counts (default: 3)")
    options = arguments.parse_args()
    with site(GRAPHS) as (stack, _, _):
        stack.start()
        fanout(stack, options.streams, options.trials)


if __name__ == "__main__":
    main()
