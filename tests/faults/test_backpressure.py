"""Clients that do not read, that hardly read, and that come back all at once: nobody else's stream suffers."""

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

import httpx
import psutil

from slipstream_schemas.limits import OPEN_FILES_KEPT
from testkit.client import ALL_CHANNELS, Client, Frame, frame_of, new_thread
from testkit.crowd import Faithful, address_of, differs, is_gone, raise_files, slow_socket
from testkit.hasty_api import SEND_DEADLINE_S
from testkit.poor_api import FILES
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
CROWD_STREAMS = int(os.environ.get("CROWD_STREAMS", "300"))
CROWD_STORM = int(os.environ.get("CROWD_STORM", "200"))
SLOW_BYTES_MAX = 64 * 1024 * 1024
LARGE = 1_500_000
NARROW = 32 * 1024
NARROW_PAUSE_S = 0.1
TRIES = 10
END_DEADLINE_S = 20.0
HANDSHAKE = (
    b"GET /threads/%s/stream/events HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


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


@contextmanager
def opened_socket(url: str, thread_id: str, *frames: str) -> Iterator[socket.socket]:
    """A WebSocket of a thread that says these frames, and then neither reads nor answers pings."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        client.connect(address_of(url))
        client.sendall(HANDSHAKE % thread_id.encode())
        assert client.recv(1024).startswith(b"HTTP/1.1 101")
        for frame in frames:
            payload = frame.encode()
            client.sendall(b"\x81\xfe" + len(payload).to_bytes(2) + bytes(4) + payload)
        yield client


async def test_clients_that_read_nothing_or_a_byte_at_a_time_are_dropped_and_slow_nobody(stack: Stack) -> None:
    """Each costs one log line and little memory; the connection is given up at once, not when the client has read."""
    await asyncio.to_thread(stack.start)
    api = await hasty(stack).ready()
    url, api_process = api.url or "", psutil.Process(api.pid)
    async with Client(url) as client:
        thread_id, quiet = new_thread(), new_thread()
        await client.start(thread_id, "firehose", BULK)
        await client.run_events(thread_id)
        subscribe = {"id": 1, "method": "subscription.subscribe", "params": {"channels": ALL_CHANNELS}}
        before, most = api_process.memory_full_info().uss, 0
        with (
            opened(url, thread_id) as deaf, slow_socket(url, thread_id) as slow,
            opened_socket(url, thread_id, json.dumps(subscribe)) as deaf_socket, opened_socket(url, quiet) as no_pongs,
        ):  # fmt: skip
            left = [deaf, slow, deaf_socket, no_pongs]
            await until(lambda: all(is_held(api, each) for each in left))
            while any(is_held(api, each) for each in left):
                await asyncio.gather(*(whole(client, new_thread()) for _ in range(OTHERS)))
                is_gone(slow)
                most = max(most, api_process.memory_full_info().uss)
        lines = [line for line in api.log_text().splitlines() if thread_id in line or quiet in line or "ERROR" in line]
        assert sorted(line.split("dropped a ")[1].split(" of ")[0] for line in lines) == ["client"] * 2 + ["socket"] * 2
        assert sum("no ping" in line for line in lines) == 1
        assert most - before < SLOW_BYTES_MAX


async def test_a_client_that_takes_longer_than_the_deadline_over_one_frame_is_served(stack: Stack) -> None:
    """It takes something all the while. Dropped, it would come back for the same frame for ever."""
    await asyncio.to_thread(stack.start)
    api = await hasty(stack).ready()
    async with Client(api.url or "") as client:
        thread_id = new_thread()
        await client.start(thread_id, "chat", {"messages": [{"role": "user", "content": "x" * LARGE}]})
        expected = await client.run_events(thread_id)
        with slow_socket(api.url or "", thread_id, NARROW) as slow:
            narrow_until = time.monotonic() + 4 * SEND_DEADLINE_S
            raw = bytearray()
            end = f"id: {expected[-1].id}\n".encode()
            while end not in raw[-TAIL:]:
                with suppress(BlockingIOError):
                    piece = slow.recv(NARROW)
                    assert piece, "dropped"
                    raw += piece
                await asyncio.sleep(NARROW_PAUSE_S if time.monotonic() < narrow_until else 0)
        assert time.monotonic() > narrow_until, "the frames were too small to test patience"
        assert "dropped" not in api.log_text()


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


async def test_a_crowd_comes_back_to_a_new_api(stack: Stack) -> None:
    """Idle streams, and clients of short runs and of one that goes on, lose their API: each ends with the log's replay.

    `CROWD_STREAMS` and `CROWD_STORM` say how many; `just crowd` measures more.
    """
    await asyncio.to_thread(stack.start)
    url = stack.url
    raise_files(4 * (CROWD_STREAMS + CROWD_STORM) + 100)
    async with Client(url) as client:
        threads = [new_thread() for _ in range(10)]
        await asyncio.gather(*(whole(client, each) for each in threads))
        await client.start(threads[0], "counter", {"steps": 60, "delay_s": 0.05})
    idle = [Faithful(url, new_thread(), is_kept=False) for _ in range(CROWD_STREAMS)]
    crowd = [Faithful(url, threads[number % len(threads)]) for number in range(CROWD_STORM)]
    await asyncio.gather(*(each.follow() for each in (*idle, *crowd)))
    stack.apis[0].kill()
    await asyncio.gather(*(each.is_lost() for each in (*idle, *crowd)))
    for number, each in enumerate(crowd):
        if each.thread_id != threads[0]:
            del each.seen[1 + number % (len(each.seen) - 1) :]
    stack.spawn_api(slipstream_port=str(address_of(url)[1]))
    await asyncio.gather(*(each.follow() for each in (*idle, *crowd)))
    async with Client(url) as client:
        await client.run_events(threads[0], ends=2)
    end = time.monotonic() + END_DEADLINE_S
    for thread_id in threads:
        replay = Faithful(url, thread_id)
        await replay.follow()
        replay.leave()
        own = [each for each in crowd if each.thread_id == thread_id]
        while any(differs(each.seen, replay.seen) for each in own):
            assert time.monotonic() < end, [found for each in own if (found := differs(each.seen, replay.seen))]
            await asyncio.sleep(0.05)
    for each in (*idle, *crowd):
        each.leave()


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def status_of(url: str) -> int:
    """The status of a request over a new connection, 0 when there is no answer."""
    with suppress(httpx.TransportError):
        async with Client(url) as client:
            return (await client.http.get("/ok")).status_code
    return 0


async def test_an_api_without_open_files_refuses_and_recovers(stack: Stack) -> None:
    """Clients beyond what the limit lets in are told; streams that are open go on, also when no file is left at all."""
    await asyncio.to_thread(stack.start)
    api = await stack.spawn_api("testkit.poor_api").ready()
    url, room = api.url or "", FILES - OPEN_FILES_KEPT
    assert f"leaves room for {room} connections" in api.log_text()
    thread_id = new_thread()
    async with Client(url) as client, Client(stack.url) as elsewhere, client.events(thread_id) as events:

        async def goes_on() -> None:
            await elsewhere.start(thread_id, "counter", LITTLE)
            while not (await anext(events)).ends_root:
                pass

        async def answers(status: int) -> bool:
            return await status_of(url) == status

        with ExitStack() as sockets:
            for _ in range(2 * room):
                with suppress(ConnectionError):
                    sockets.enter_context(slow_socket(url, new_thread()))
            await until(lambda: answers(503))
            await goes_on()
        await until(lambda: answers(200))
        assert api.log_text().count("were refused so far") in (1, 2)

        async def hangs_up() -> bool:
            # Connections that end give files back.
            api.process.send_signal(signal.SIGUSR1)
            return not await answers(200)

        await until(hangs_up)
        spent_s = cpu_s(api.pid)
        for _ in range(TRIES):
            await answers(200)
        await goes_on()
        assert cpu_s(api.pid) - spent_s < TRIES, "it spins"
        api.process.send_signal(signal.SIGUSR2)
        await until(lambda: answers(200))
        await goes_on()
