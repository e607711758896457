"""The limits of this machine, beside which our figures are read: raw nats-py, bare `astream`."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from bench.graphs import bench_graphs
from slipstream_nats.connection import connect
from slipstream_nats.provision import provision
from slipstream_nats.publisher import open_publisher
from slipstream_nats.pull import open_pull
from slipstream_schemas.subjects import threads_stream

BODY = b"x" * 300
MODES = ["values", "updates", "messages", "custom", "tasks", "checkpoints", "tools"]


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


async def bare_astream(name: str, count: int) -> float:
    """Chunks a second of `graph.astream` in all modes, in this process, without a checkpointer."""
    graph: Any = getattr(bench_graphs, name)
    begun = time.perf_counter()
    async for _ in graph.astream({"count": count}, stream_mode=MODES, subgraphs=True, version="v1"):
        pass
    return count / (time.perf_counter() - begun)


def best(work: Callable[[], Coroutine[Any, Any, float]], times: int = 3) -> float:
    """The best of some tries: noise only ever slows."""
    return max(asyncio.run(work()) for _ in range(times))
