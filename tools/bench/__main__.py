"""Run all measurements and print a table. `python -m bench [--quick]`, with tools and tests on the import path."""

import argparse
import asyncio
import json
import statistics
import time
import uuid
from typing import Any

import httpx
import psutil

from bench.fanout import GRAPHS, fanout
from bench.limits import Bare, bare, cpu_s, raw_nats
from bench.site import site
from testkit.stack import Stack

ALL = ["lifecycle", "messages", "custom", "values", "updates", "tasks", "checkpoints", "tools", "input"]
RAW_CLIENT = {"user-agent": "bench"}
SETTLE_S = 40.0
"""A quiet thread is asked for signs of life every 5 s at first; after half a minute every 15 s."""
IDLE_S = 30.0
"""Two of those, and six heartbeats of each stream."""


def show(name: str, value: float, unit: str = "") -> None:
    """One row."""
    print(f"{name:<68} {value:>12,.2f} {unit}", flush=True)


def client(url: str) -> httpx.AsyncClient:
    """A client that is not the stock SDK, so it is not paced."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
    return httpx.AsyncClient(base_url=url, timeout=120, headers=RAW_CLIENT, limits=limits)


async def start(c: httpx.AsyncClient, thread: str, graph: str, count: int) -> str:
    """Start a run by v2; its id."""
    params = {"assistant_id": graph, "input": {"count": count}}
    answer = await c.post(f"/threads/{thread}/commands", json={"id": 1, "method": "run.start", "params": params})
    return str(answer.json()["result"]["run_id"])


async def latency(url: str, trials: int) -> None:
    """Time to the first event and to the end of a run of 20 chunks, the stream open beforehand."""
    firsts: list[float] = []
    ends: list[float] = []
    async with client(url) as c:
        for _ in range(trials):
            thread = str(uuid.uuid4())
            async with c.stream("POST", f"/threads/{thread}/stream/events", json={"channels": ALL}) as stream:
                lines = stream.aiter_lines()
                await anext(lines)
                begun = time.perf_counter()
                starting = asyncio.create_task(start(c, thread, "tokens", 20))
                first = 0.0
                async for line in lines:
                    if line.startswith("data:"):
                        first = first or time.perf_counter() - begun
                        if "lc||completed" in line:
                            break
                ends.append(time.perf_counter() - begun)
                firsts.append(first)
                await starting
    show("first event of a run, p50", 1000 * statistics.median(firsts), "ms (aim 15)")
    show("20-chunk run to its end, p50", 1000 * statistics.median(ends), "ms")


async def one_run(c: httpx.AsyncClient, graph: str, count: int, protocol: str) -> None:
    """One run, streamed to its end."""
    thread = str(uuid.uuid4())
    if protocol == "v1":
        await c.post("/threads", json={"thread_id": thread})
        body = {"assistant_id": graph, "input": {"count": count}, "stream_mode": ["custom", "messages-tuple"]}
        async with c.stream("POST", f"/threads/{thread}/runs/stream", json=body) as stream:
            async for _ in stream.aiter_bytes():
                pass
        return
    async with c.stream("POST", f"/threads/{thread}/stream/events", json={"channels": ALL}) as stream:
        starting = asyncio.create_task(start(c, thread, graph, count))
        tail = b""
        async for piece in stream.aiter_bytes():
            tail = (tail + piece)[-4096:]
            if b"lc||completed" in tail:
                break
        await starting


async def throughput(stack: Stack, graph: str, alone: Bare, protocol: str, concurrent: int, count: int) -> None:
    """Events a second of concurrent runs, and the runners' CPU for each, beside bare `astream`."""
    runners = [runner.pid for runner in stack.runners]
    async with client(stack.url) as c:
        await one_run(c, graph, 20, protocol)
        begun, begun_cpu = time.perf_counter(), cpu_s(*runners)
        await asyncio.gather(*(one_run(c, graph, count, protocol) for _ in range(concurrent)))
        rate = concurrent * count / (time.perf_counter() - begun)
        cpu_us = 1e6 * (cpu_s(*runners) - begun_cpu) / concurrent / count
    name = f"{graph} {protocol}, {concurrent} runs of {count}"
    show(f"{name}: events/s (share of bare {rate / alone.chunks_per_s:.2f})", rate)
    show(f"{name}: CPU of the runner (share of bare {alone.cpu_us / cpu_us:.2f}, aim 0.7)", cpu_us, "us/event")


async def replay(url: str, sizes: list[int]) -> None:
    """Replay of a thread, and the time to its last ten events."""
    last: dict[int, float] = {}
    async with client(url) as c:
        for size in sizes:
            thread = str(uuid.uuid4())
            await c.post("/threads", json={"thread_id": thread})
            run = {"assistant_id": "customs", "input": {"count": size}}
            await c.post(f"/threads/{thread}/runs/wait", json=run)
            seqs, seconds = await read_all(c, thread)
            show(f"replay of {size} events (events/s, aim 100,000)", len(seqs) / seconds)
            times = [await read_last(c, thread, seqs[-11]) for _ in range(9)]
            last[size] = statistics.median(times)
            show(f"last 10 events of {size}, p50", 1000 * last[size], "ms (aim 10)")
    show(f"last 10 events: ratio of {sizes[-1]} to {sizes[0]} events", last[sizes[-1]] / last[sizes[0]])


async def read_all(c: httpx.AsyncClient, thread: str) -> tuple[list[int], float]:
    """The ids of all events, and the time that it took to receive them."""
    begun = time.perf_counter()
    pieces: list[bytes] = []
    async with c.stream("POST", f"/threads/{thread}/stream/events", json={"channels": ALL}) as stream:
        async for piece in stream.aiter_raw():
            pieces.append(piece)
            if b"lc||completed" in piece:
                break
    seconds = time.perf_counter() - begun
    body = b"".join(pieces)
    return [int(line[4:]) for line in body.split(b"\n") if line.startswith(b"id: ")], seconds


async def read_last(c: httpx.AsyncClient, thread: str, since: int) -> float:
    """Seconds until the events behind `since` are here."""
    begun = time.perf_counter()
    body = {"channels": ALL, "since": since}
    async with c.stream("POST", f"/threads/{thread}/stream/events", json=body) as stream:
        async for piece in stream.aiter_raw():
            if b"lc||completed" in piece:
                return time.perf_counter() - begun
    raise AssertionError("the stream ended early")


async def idle(url: str, pid: int, counts: list[int]) -> None:
    """Memory and CPU of the API with idle streams, once they have settled."""
    api = psutil.Process(pid)
    base = api.memory_info().rss
    async with client(url) as c:
        for count in counts:
            opened = [await open_idle(c) for _ in range(count)]
            await asyncio.sleep(SETTLE_S if count else 1)
            before, begun = cpu_s(pid), time.perf_counter()
            await asyncio.sleep(IDLE_S)
            share = (cpu_s(pid) - before) / (time.perf_counter() - begun)
            show(f"{count} idle streams: CPU of the API", 100 * share, "% (aim 1 at 1,000)")
            show(f"{count} idle streams: memory above none", (api.memory_info().rss - base) / 2**20, "MB (aim 20)")
            await asyncio.gather(*(stream.aclose() for stream in opened))


async def open_idle(c: httpx.AsyncClient) -> httpx.Response:
    """A stream on a thread that nothing happens on."""
    request = c.build_request("POST", f"/threads/{uuid.uuid4()}/stream/events", json={"channels": ALL})
    return await c.send(request, stream=True)


async def runs_per_s(url: str, total: int, concurrent: int = 8) -> None:
    """Runs a second of a one-node graph, waited for."""
    async with client(url) as c:
        left = iter(range(total))

        async def work() -> None:
            for _ in left:
                body: dict[str, Any] = {"assistant_id": "one", "input": {"count": 0}}
                answer = await c.post("/runs/wait", json=body)
                assert answer.status_code == 200, answer.text

        begun = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(concurrent)))
        show(f"runs/s of a one-node graph at concurrency {concurrent}", total / (time.perf_counter() - begun))


def measure(stack: Stack, quick: bool) -> None:
    """Everything against one stack."""
    url = stack.url
    asyncio.run(latency(url, 10 if quick else 40))
    for count, concurrencies in ((1000, (1, 8) if quick else (1, 8, 32)), (10_000, (4,))):
        for graph in ("customs", "tokens"):
            alone = bare(graph, count)
            show(f"bare astream of {count} {graph}: chunks/s", alone.chunks_per_s)
            show(f"bare astream of {count} {graph}: CPU", alone.cpu_us, "us/chunk")
            for protocol in ("v2", "v1"):
                for concurrent in concurrencies:
                    asyncio.run(throughput(stack, graph, alone, protocol, concurrent, count))
    asyncio.run(replay(url, [1000, 10_000] if quick else [1000, 10_000, 50_000]))
    asyncio.run(runs_per_s(url, 100 if quick else 400))
    fanout(stack, [1, 50] if quick else [1, 50, 500], 1 if quick else 3)
    asyncio.run(idle(url, stack.apis[0].pid, [0, 200] if quick else [0, 200, 1000]))


def main() -> None:
    """Start servers of our own, measure, stop them."""
    arguments = argparse.ArgumentParser("bench", description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="fewer trials, smaller sizes")
    arguments.add_argument("--runners", type=int, default=1, help="runner processes (default: 1)")
    options = arguments.parse_args()
    with site(GRAPHS) as (stack, nats, _):
        print(json.dumps({"cores": psutil.cpu_count(), "runners": options.runners}))
        for name, value in asyncio.run(raw_nats(nats.url)).items():
            show(name, value)
        stack.start(runners=options.runners)
        measure(stack, options.quick)


if __name__ == "__main__":
    main()
