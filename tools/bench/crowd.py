"""Crowds: thousands of idle streams, clients that all come back at once, and some that hardly read.

`python -m bench.crowd [--idle 5000] [--storm 2000] [--slow 50]`, with tools and tests on the path; 0 leaves a part out.

*Idle*: so many v2 streams, each on a thread of its own, held by another process. What they cost, and how long a token
takes to arrive beside them. *Storm*: clients with what they have seen, two for each thread; the API is killed, another
starts at its address, and all come back as soon as it listens. Each must end with the log's replay. *Slow*: streams of
megabytes whose clients read a byte a second.
"""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator
from typing import Final

import psutil

from bench.fairness import converse
from bench.fanout import GRAPHS
from bench.limits import cpu_s
from bench.site import Site, site
from testkit.client import Client, new_thread
from testkit.crowd import Faithful, Seen, address_of, differs, is_gone, raise_files, slow_socket
from testkit.service import Service
from testkit.stack import Stack

TALKS: Final = 20
TALK_S: Final = 20.0
SETTLE_S: Final = 40.0
"""A quiet thread is asked for signs of life every 5 s at first; after half a minute every 15 s."""
REST_S: Final = 30.0
RUNS_AT_ONCE: Final = 8
LIVE: Final = 20
"""Threads of a storm whose runs speak all the while."""
LIVE_INPUT: Final = {"count": 100, "pause_s": 0.25}
SHORT_INPUT: Final = {"count": 30}
BULK_INPUT: Final = {"count": 30_000}
DROPPED_S: Final = 100.0
DROPPED: Final = "dropped a client of"


def uss_mib(pid: int) -> float:
    """What a process holds for itself alone."""
    return float(psutil.Process(pid).memory_full_info().uss) / 2**20


class Cpu:
    """The CPU time of the API and of NATS since now."""

    def __init__(self, api: int, nats: int) -> None:
        self._pids = {"API": api, "NATS": nats}
        self._before = {name: cpu_s(pid) for name, pid in self._pids.items()}

    def spent(self, factor: float, unit: str) -> str:
        """What was used, times a factor, for people."""
        each = {name: cpu_s(pid) - self._before[name] for name, pid in self._pids.items()}
        return ", ".join(f"{name} {factor * seconds:.2f} {unit}" for name, seconds in each.items())


async def talk(name: str, url: str) -> None:
    """Print how long tokens take to arrive in some conversations."""
    took_ms: list[float] = []
    talks = [asyncio.create_task(converse(url, took_ms, 2 * TALK_S)) for _ in range(TALKS)]
    await asyncio.sleep(TALK_S / 4)
    took_ms.clear()
    await asyncio.sleep(TALK_S)
    for each in talks:
        each.cancel()
    await asyncio.gather(*talks, return_exceptions=True)
    ends = statistics.quantiles(took_ms, n=100)
    print(f"a token to its client, {name}: p50 {ends[49]:.1f}  p99 {ends[98]:.1f} ms of {len(took_ms)}", flush=True)


# Idle


@contextlib.asynccontextmanager
async def held(url: str, count: int) -> AsyncIterator[dict[str, float]]:
    """Another process that holds idle streams, and how it came by them."""
    command = [sys.executable, "-m", "testkit.crowd", url, str(count)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdout is not None and process.stdin is not None
    try:
        yield json.loads(await process.stdout.readline())
        process.stdin.close()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()


async def idle(found: Site, count: int) -> None:
    """Print what idle streams cost, and whom."""
    url, api, nats = found.stack.url, found.stack.apis[0].pid, found.nats.process.pid
    await talk("alone", url)
    before, broker, cpu = uss_mib(api), uss_mib(nats), Cpu(api, nats)
    async with held(url, count) as opened:
        rate = count / opened["opened_s"]
        print(
            f"{count} idle streams: open in {opened['opened_s']:.1f} s ({rate:.0f}/s), {opened['retries']:.0f} retries"
        )
        print(f"  CPU for each: {cpu.spent(1000 / count, 'ms')}")
        await asyncio.sleep(SETTLE_S)
        grown, of_broker = uss_mib(api) - before, uss_mib(nats) - broker
        print(f"  API {grown:.0f} MiB more ({1024 * grown / count:.1f} KiB each), NATS {of_broker:.0f} MiB more")
        cpu, begun = Cpu(api, nats), time.perf_counter()
        await asyncio.sleep(REST_S)
        print(f"  at rest: {cpu.spent(100 / (time.perf_counter() - begun), '% of a core')}", flush=True)
        await talk(f"beside {count} idle streams", url)
        begun = time.perf_counter()
    print(f"  closed in {time.perf_counter() - begun:.1f} s; API {uss_mib(api) - before:.0f} MiB more than before")


# Storm


async def run_once(url: str, threads: list[str]) -> None:
    """A short run on each thread, waited for."""
    left = iter(threads)

    async def work() -> None:
        async with Client(url) as client:
            for thread_id in left:
                body = {"assistant_id": "tokens", "input": SHORT_INPUT, "if_not_exists": "create"}
                answer = await client.http.post(f"/threads/{thread_id}/runs/wait", json=body)
                answer.raise_for_status()

    await asyncio.gather(*(work() for _ in range(RUNS_AT_ONCE)))


async def listening(url: str) -> None:
    """Wait until somebody listens again."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(*address_of(url))
            writer.close()
            return
        await asyncio.sleep(0.01)


async def storm(found: Site, count: int, *, is_killed: bool) -> None:
    """Print how long it takes until all are back. Raises: AssertionError for a gap or a double."""
    stack = found.stack
    url, threads = stack.url, [new_thread() for _ in range(max(count // 2, 1))]
    await run_once(url, threads)
    async with Client(url) as client:
        for thread_id in threads[:LIVE]:
            await client.start(thread_id, "tokens", LIVE_INPUT)
    clients = [Faithful(url, threads[number % len(threads)]) for number in range(count)]
    await asyncio.gather(*(each.follow() for each in clients))
    old = stack.apis[0]
    if is_killed:
        old.kill()
    else:
        old.terminate()
        await old.ended()
    down = time.perf_counter()
    await asyncio.gather(*(each.is_lost() for each in clients))
    for each in clients:
        if each.thread_id not in threads[:LIVE]:
            # It had not processed all that it was sent.
            del each.seen[random.randrange(1, len(each.seen)) :]
    api = stack.spawn_api(slipstream_port=url.rpartition(":")[2])
    await listening(url)
    up, cpu = time.perf_counter(), Cpu(api.pid, found.nats.process.pid)
    took_s: list[float] = []

    async def back(each: Faithful) -> None:
        await each.follow()
        took_s.append(time.perf_counter() - up)

    await asyncio.gather(*(back(each) for each in clients))
    ends = statistics.quantiles(took_s, n=100)
    how = "killed" if is_killed else "stopped"
    print(f"{count} clients of {len(threads)} threads come back to an API that was {how}, {up - down:.1f} s later:")
    print(f"  caught up: p50 {ends[49]:.2f}  p99 {ends[98]:.2f}  last {max(took_s):.2f} s after it listens")
    print(f"  CPU for each, the API's start included: {cpu.spent(1000 / count, 'ms')}")
    counts = [sum(getattr(each, kind) for each in clients) for kind in ("refused", "answered_503", "broken")]
    print("  not connected {} times, answered 503 {} times, cut off {} times".format(*counts))
    print(f"  API {uss_mib(api.pid):.0f} MiB", flush=True)
    await check(url, threads[:LIVE], clients)


async def check(url: str, live: list[str], clients: list[Faithful]) -> None:
    """Every client has the replay of its thread, once all runs are over. Raises: AssertionError."""
    async with Client(url) as client:
        while (await client.http.post("/threads/search", json={"ids": live, "status": "busy"})).json():
            await asyncio.sleep(0.5)
    replays: dict[str, list[Seen]] = {}
    for thread_id in {each.thread_id for each in clients}:
        whole = Faithful(url, thread_id)
        await whole.follow()
        whole.leave()
        replays[thread_id] = whole.seen
    wrong: list[str] = []
    for _ in range(100):
        wrong = [found for each in clients if (found := differs(each.seen, replays[each.thread_id]))]
        if not wrong:
            break
        await asyncio.sleep(0.1)
    for each in clients:
        each.leave()
    assert not wrong, f"{len(wrong)} clients lack or repeat events: {wrong[:5]}"
    print(f"  no gap and no double in {sum(len(each.seen) for each in clients)} events", flush=True)


# Slow


async def slow(stack: Stack, api: Service, count: int) -> None:
    """Print what becomes of clients that read a byte a second, and of the others."""
    url, thread_id = api.url or "", new_thread()
    async with Client(url) as client:
        body = {"assistant_id": "customs", "input": BULK_INPUT, "if_not_exists": "create"}
        (await client.http.post(f"/threads/{thread_id}/runs/wait", json=body)).raise_for_status()
    await talk("before slow readers", url)
    before, peak, ended_s = uss_mib(api.pid), 0.0, list[float]()
    with contextlib.ExitStack() as sockets:
        left, known = [sockets.enter_context(slow_socket(url, thread_id)) for _ in range(count)], set[int]()
        begun, talking = time.perf_counter(), asyncio.create_task(talk(f"beside {count} slow readers", url))
        while left and time.perf_counter() - begun < DROPPED_S:
            await asyncio.sleep(1)
            peak = max(peak, uss_mib(api.pid))
            for each in left:
                is_gone(each)
            # The client's own end says nothing until all is read that its kernel holds.
            ports = {each.raddr.port for each in psutil.Process(api.pid).net_connections("tcp") if each.raddr}
            known |= ports
            over = [each for each in left if each.getsockname()[1] in known - ports]
            left = [each for each in left if each not in over]
            ended_s += [time.perf_counter() - begun] * len(over)
        await talking
    lines = sum(DROPPED in line and thread_id in line for line in api.log_text().splitlines())
    print(f"{count} clients that read a byte a second: {len(ended_s)} dropped, {lines} log lines, {len(left)} left")
    if ended_s:
        print(f"  after {min(ended_s):.0f} to {max(ended_s):.0f} s")
    print(f"  API {before:.0f} MiB before, at most {peak:.0f} MiB ({(peak - before) / count:.2f} MiB each), "
          f"{uss_mib(api.pid):.0f} MiB behind")  # fmt: skip


def main() -> None:
    """Start servers of our own, measure, stop them."""
    arguments = argparse.ArgumentParser("bench.crowd", description=__doc__.partition("\n")[0] if __doc__ else None)
    arguments.add_argument("--idle", type=int, default=5000, help="idle streams (default: 5,000)")
    arguments.add_argument("--storm", type=int, default=2000, help="clients that come back at once (default: 2,000)")
    arguments.add_argument("--slow", type=int, default=50, help="clients that read a byte a second (default: 50)")
    options = arguments.parse_args()
    raise_files(max(options.idle, 2 * options.storm) + 500)
    with site(GRAPHS) as found:
        found.stack.start(slipstream_runner_slots=str(TALKS + LIVE + RUNS_AT_ONCE))
        if options.idle:
            asyncio.run(idle(found, options.idle))
        for is_killed in (True, False) if options.storm else ():
            asyncio.run(storm(found, options.storm, is_killed=is_killed))
        if options.slow:
            asyncio.run(slow(found.stack, found.stack.apis[0], options.slow))


if __name__ == "__main__":
    main()
