"""Clients that do not read, that hardly read, and that come back all at once: nobody else's stream suffers."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from urllib.parse import urlsplit

import httpx
import psutil

from testkit.client import ALL_CHANNELS, Client, Frame, frame_of, new_thread
from testkit.service import Service
from testkit.stack import Stack
from testkit.wait import until

SMALL_BUFFER = 4096
BULK = {"count": 30_000}
"""Far more than the buffers of both ends hold."""
TAIL = 1 << 17
OTHERS = 5
STORM = 200
LITTLE = {"steps": 3, "delay_s": 0.01}


def hasty(stack: Stack) -> Service:
    """An API that waits seconds, not a minute, for a client to read."""
    return stack.spawn_api("testkit.hasty_api")


@contextmanager
def opened(url: str, thread_id: str) -> Iterator[socket.socket]:
    """A stream of all of a thread, over a socket with a small buffer that reads nothing by itself."""
    parts = urlsplit(url)
    body = json.dumps({"channels": ALL_CHANNELS}).encode()
    path = f"/threads/{thread_id}/stream/events"
    head = f"POST {path} HTTP/1.0\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        client.connect((parts.hostname or "", parts.port or 0))
        client.sendall(head.encode() + body)
        yield client


def is_held(api: Service, client: socket.socket) -> bool:
    """Whether the API still has its end of this connection."""
    port = client.getsockname()[1]
    found = psutil.Process(api.pid).net_connections("tcp")
    return any(each.raddr and each.raddr.port == port for each in found)


async def whole(client: Client, thread_id: str) -> list[Frame]:
    """A short run and its stream, which must be the log's replay."""
    await client.start(thread_id, "counter", LITTLE)
    seen = await client.run_events(thread_id)
    assert seen == await client.run_events(thread_id)
    return seen


async def test_a_client_that_never_reads_is_dropped_and_slows_nobody(stack: Stack) -> None:
    """It costs one log line; its socket is given up at once, not when the client cares to read what is left."""
    await asyncio.to_thread(stack.start)
    api = await hasty(stack).ready()
    async with Client(api.url or "") as client:
        thread_id = new_thread()
        await client.start(thread_id, "firehose", BULK)
        await client.run_events(thread_id)
        with opened(api.url or "", thread_id) as deaf:
            await until(lambda: is_held(api, deaf))
            while "that read nothing" not in api.log_text():
                await asyncio.gather(*(whole(client, new_thread()) for _ in range(OTHERS)))
            await until(lambda: not is_held(api, deaf), what="the socket is given up")
        lines = [line for line in api.log_text().splitlines() if thread_id in line or "ERROR" in line]
        assert len(lines) == 1, lines


async def test_a_client_with_a_small_window_gets_everything_in_order(stack: Stack) -> None:
    """Slow is not gone: megabytes through a window of 4 KiB, which the API has to wait for again and again."""
    await asyncio.to_thread(stack.start)
    api = await hasty(stack).ready()
    async with Client(api.url or "") as client:
        thread_id = new_thread()
        await client.start(thread_id, "firehose", BULK)
        expected = await client.run_events(thread_id)
        with opened(api.url or "", thread_id) as slow:
            raw = bytearray()
            end = f"id: {expected[-1].id}\n".encode()
            while end not in raw[-TAIL:]:
                piece = await asyncio.to_thread(slow.recv, 1 << 16)
                assert piece, "dropped"
                raw += piece
    blocks = bytes(raw).partition(b"\r\n\r\n")[2].split(b"\n\n")
    seen = [frame_of(block.decode()) for block in blocks if block and b"\nevent: " in b"\n" + block]
    # The last one may be cut off behind its id.
    assert len(seen) >= len(expected) - 1
    assert seen[: len(expected) - 1] == expected[:-1]


async def test_a_storm_of_reconnects_is_served_whole(stack: Stack) -> None:
    """Idle streams stand, all clients of many threads come back at once with their cursors: each gets what it lacks."""
    await asyncio.to_thread(stack.start)
    async with AsyncExitStack() as streams, Client(stack.url) as client:
        client.http = httpx.AsyncClient(base_url=stack.url, timeout=60, limits=httpx.Limits(), verify=False)
        threads = [new_thread() for _ in range(10)]
        replays = await asyncio.gather(*(whole(client, each) for each in threads))
        quiet = new_thread()
        idle = [await streams.enter_async_context(client.events(quiet)) for _ in range(STORM)]

        async def resumed(number: int) -> None:
            replay, thread_id = replays[number % len(threads)], threads[number % len(threads)]
            cut = number % (len(replay) - 1)
            assert await client.run_events(thread_id, since=replay[cut].seq) == replay[cut + 1 :]

        await asyncio.gather(*(resumed(number) for number in range(STORM)))
        expected = await whole(client, quiet)
        for stream in idle:
            assert [await anext(stream) for _ in expected] == expected
