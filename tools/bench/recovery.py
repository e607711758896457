"""How long it takes until life goes on: `python -m bench.recovery [--trials N]`, with tools and tests on the path.

Each trial breaks one thing while a thread's run counts and its stream is read, and stops the clock at the next new
event. Defaults of an operator, but for what each row says.
"""

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import httpx

from slipstream_nats.connection import connect
from slipstream_nats.controllog import ControlLog
from slipstream_nats.publisher import open_publisher
from slipstream_schemas.limits import ACK_WAIT_S
from slipstream_schemas.subjects import Scope
from testkit.client import Client, Frame
from testkit.proxy import Proxy
from testkit.servers import NatsServer, PostgresServer
from testkit.service import Service
from testkit.stack import Stack

STEPS: Final = 600
DELAY_S: Final = 0.1
DEADLINE_S: Final = 120.0
PAUSE_S: Final = 0.005


class Reader:
    """A stream that is resumed as soon as an API answers, and when its last event came."""

    def __init__(self, stack: Stack, thread_id: str) -> None:
        self._stack, self._thread_id = stack, thread_id
        self.last: Frame | None = None
        self.at = 0.0
        self.connected_at = 0.0
        self.count = 0

    async def read(self) -> None:
        """For ever."""
        while True:
            with contextlib.suppress(httpx.TransportError, IndexError, AssertionError):
                async with (
                    Client(self._stack.url) as client,
                    client.events(self._thread_id, self.last.seq if self.last else 0) as events,
                ):
                    self.connected_at = time.monotonic()
                    async for frame in events:
                        self.last, self.at, self.count = frame, time.monotonic(), self.count + 1
            await asyncio.sleep(PAUSE_S)

    async def shows(self, count: int) -> None:
        """Wait for so many more events. Raises: TimeoutError."""
        wanted = self.count + count
        async with asyncio.timeout(DEADLINE_S):
            while self.count < wanted:
                await asyncio.sleep(PAUSE_S)


async def started(stack: Stack, thread_id: str) -> str:
    """Start the run, as often as it takes: the trial before may not be over for all parts."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(httpx.HTTPError):
                async with Client(stack.url) as client:
                    return await client.start(thread_id, "counter", {"steps": STEPS, "delay_s": DELAY_S})
            await asyncio.sleep(PAUSE_S)


async def once(stack: Stack, breaks: Callable[[str], Awaitable[float]]) -> tuple[float, Reader]:
    """Seconds from what `breaks` says was the moment until the next event, and the reader that saw it."""
    thread_id = str(uuid.uuid4())
    run_id = await started(stack, thread_id)
    reader = Reader(stack, thread_id)
    reading = asyncio.create_task(reader.read())
    try:
        await reader.shows(20)
        begun = await breaks(thread_id)
        await reader.shows(1)
        taken = reader.at - begun
        async with Client(stack.url) as client:
            await client.http.post(f"/threads/{thread_id}/runs/{run_id}/cancel")
        return taken, reader
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def holder_of(stack: Stack, thread_id: str) -> Service:
    """The runner that holds a thread; it says its name in its log."""
    connection = await connect(stack.nats_url, "bench")
    control = ControlLog(connection, await open_publisher(connection), stack.region)
    state = (await control.head(Scope(stack.region), thread_id)).state
    await connection.close()
    assert state is not None and state.running is not None and state.running.holder
    return next(runner for runner in stack.runners if state.running.holder in runner.log_text())


async def runner_death(stack: Stack, thread_id: str) -> float:
    """kill -9 of the runner that holds the run; another is there already."""
    await stack.spawn_runner().ready()
    (await holder_of(stack, thread_id)).kill()
    return time.monotonic()


async def api_death(stack: Stack, thread_id: str) -> float:
    """kill -9 of the API that sends the stream; another is there already."""
    await stack.spawn_api().ready()
    stack.apis[0].kill()
    return time.monotonic()


async def nats_restart(nats: NatsServer, *, killed: bool) -> float:
    """The moment when the broker listens again."""
    await asyncio.to_thread(nats.kill if killed else nats.stop)
    await asyncio.to_thread(nats.start)
    return time.monotonic()


async def half_open(proxy: Proxy) -> float:
    """The link of every API to the broker dies silently."""
    proxy.swallow(new_too=False)
    return time.monotonic()


def show(name: str, seconds: list[float], aim: str) -> None:
    """One row."""
    print(
        f"{name:<66} median {statistics.median(seconds):6.2f} s  max {max(seconds):6.2f} s"
        f"  ({len(seconds)} trials, aim {aim})",
        flush=True,
    )


async def measure(stack: Stack, nats: NatsServer, proxy: Proxy, trials: int) -> None:
    """All of it on one stack, whose processes die and are replaced."""
    restarts = [(await once(stack, lambda _: nats_restart(nats, killed=True)))[0] for _ in range(trials)]
    show("NATS listens again after kill -9, to the next event", restarts, "3 s")
    links = [(await once(stack, lambda _: half_open(proxy)))[0] for _ in range(trials)]
    show("the API's link to NATS half-open, to the next event", links, "seconds")
    deaths = [(await once(stack, lambda thread: runner_death(stack, thread)))[0] for _ in range(trials)]
    show(f"a runner dies, to the run's next event (lease {ACK_WAIT_S:.0f} s)", deaths, f"{ACK_WAIT_S + 1:.0f} s")
    resumed: list[float] = []
    behind: list[float] = []
    for _ in range(trials):
        taken, reader = await once(stack, lambda thread: api_death(stack, thread))
        resumed.append(taken)
        behind.append(reader.at - reader.connected_at)
    show("an API dies, to the stream's next event at another", resumed, "1 s")
    show("the same, from the reconnect", behind, "1 s")


async def run(root: Path, trials: int) -> None:
    """Servers and services of our own."""
    nats, postgres = NatsServer(root / "nats"), PostgresServer(root / "postgres")
    try:
        stack = Stack(nats.url, postgres.dsn, "local", root / "stack")
        await asyncio.to_thread(stack.prepare)
        with stack:
            async with Proxy(nats.url) as proxy:
                await stack.spawn_api(nats_url=proxy.url).ready()
                await asyncio.to_thread(lambda: stack.start(0, 1, 1))
                await measure(stack, nats, proxy, trials)
    finally:
        nats.kill()
        postgres.kill()


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser("bench.recovery", description=__doc__)
    arguments.add_argument("--trials", type=int, default=5, help="of each row (default: 5)")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="slipstream-recovery-") as folder:
        # Postgres runs as another user where we are root.
        Path(folder).chmod(0o755)
        asyncio.run(run(Path(folder), options.trials))


if __name__ == "__main__":
    main()
