"""The limits of this machine, beside which our figures are read: raw nats-py, bare `astream`."""

import asyncio
import statistics
import time
from typing import Any, NamedTuple

import psutil

from bench.graphs import bench_graphs
from slipstream_nats.connection import connect
from slipstream_nats.provision import provision
from slipstream_nats.publisher import open_publisher
from slipstream_nats.pull import open_pull
from slipstream_schemas.subjects import threads_stream

BODY = b"x" * 300
MODES = ["values", "updates", "messages", "custom", "tasks", "checkpoints", "tools"]


def cpu_s(*pids: int) -> float:
    """CPU seconds that processes have used."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(each.user + each.system for each in times))


def tree_cpu_s(pid: int) -> float:
    """CPU seconds that a process and those below it have used, as far as these live."""
    return cpu_s(pid, *(child.pid for child in psutil.Process(pid).children(recursive=True)))


async def raw_nats(url: str, count: int = 5000) -> dict[str, float]:
    """Messages a second of 300 bytes: one publish in flight, then one reader."""
    connection = await connect(url, "bench")
    await provision(connection, "bench")
    publisher = await open_publisher(connection)
    begun = time.perf_counter()
    for _ in range(count):
        await publisher.publish("threads.bench.default.raw", BODY)
    published = count / (time.perf_counter() - begun)
    taken, begun = 0, time.perf_counter()
    async with open_pull(connection, threads_stream("bench"), "threads.bench.default.raw", 1) as pull:
        async for batch in pull:
            taken += len(batch)
            if taken >= count:
                break
    consumed = taken / (time.perf_counter() - begun)
    await connection.close()
    return {"raw publish, one in flight (msg/s)": published, "raw consume (msg/s)": consumed}


class Bare(NamedTuple):
    """What `graph.astream` does alone."""

    chunks_per_s: float
    cpu_us: float
    """For each chunk."""


async def bare_astream(name: str, count: int) -> Bare:
    """`graph.astream` in all modes, in this process, without a checkpointer."""
    graph: Any = getattr(bench_graphs, name)
    begun, begun_cpu = time.perf_counter(), time.process_time()
    async for _ in graph.astream({"count": count}, stream_mode=MODES, subgraphs=True, version="v1"):
        pass
    cpu_s, seconds = time.process_time() - begun_cpu, time.perf_counter() - begun
    return Bare(count / seconds, 1e6 * cpu_s / count)


def bare(name: str, count: int, times: int = 5) -> Bare:
    """The best rate of some tries, since noise only ever slows, and the median of the CPU time."""
    tries = [asyncio.run(bare_astream(name, count)) for _ in range(times)]
    return Bare(max(each.chunks_per_s for each in tries), statistics.median(each.cpu_us for each in tries))
