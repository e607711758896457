"""`runs/wait` of a one-node graph a second, and what share of a run LangGraph's Postgres checkpointer takes.

PYTHONPATH=tools:tests python -m bench.runs_wait [--runs 400]

The share is measured apart: the same graph in this process, driven as a runner drives it, with the runner's own saver
on the same Postgres and without any. What the saver adds is its share of what a run costs a runner and Postgres.
"""

import argparse
import asyncio
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import psutil

from bench.__main__ import client
from bench.fanout import GRAPHS
from bench.graphs import bench_graphs
from bench.limits import tree_cpu_s
from bench.site import site
from slipstream_postgres import fences
from slipstream_postgres.pool import open_database
from slipstream_runner.checkpoints import FencedSaver, open_pool
from slipstream_runner.translate import MODES
from slipstream_schemas.subjects import Scope, thread_key
from testkit.stack import Stack

CONCURRENT = 8
GIVEN = {"count": 0}


class Spent(NamedTuple):
    """Of one series of runs."""

    runs_per_s: float
    cpu_ms: dict[str, float]
    """For each run, by process."""


async def series(one: Callable[[], Awaitable[None]], count: int, processes: dict[str, int]) -> Spent:
    """Many runs, `CONCURRENT` at a time."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await one()

    before = {name: tree_cpu_s(pid) for name, pid in processes.items()}
    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(CONCURRENT)))
    took_s = time.perf_counter() - begun
    cpu_ms = {name: 1000 * (tree_cpu_s(pid) - before[name]) / count for name, pid in processes.items()}
    return Spent(count / took_s, cpu_ms)


async def served(stack: Stack, durability: str, count: int, processes: dict[str, int]) -> Spent:
    """`runs/wait`, each on a thread of its own."""
    body: dict[str, Any] = {"assistant_id": "one", "input": GIVEN, "durability": durability, "on_completion": "keep"}
    async with client(stack.url) as http:

        async def one() -> None:
            answer = await http.post("/runs/wait", json=body)
            assert answer.json() == {"count": 1}, answer.text

        return await series(one, count, processes)


async def alone(dsn: str, durability: str | None, count: int, processes: dict[str, int]) -> Spent:
    """The graph in this process, as a runner drives it; without a checkpointer where no durability is named."""
    database, pool, scope = await open_database(dsn), await open_pool(dsn, CONCURRENT), Scope("bench")
    warming = 4 * CONCURRENT
    threads = [str(uuid.uuid4()) for _ in range(warming + count)]
    for thread in threads:
        await fences.advance(database, thread_key(scope, thread), 1)
    given = iter(threads)

    async def one() -> None:
        thread = next(given)
        graph: Any = bench_graphs.one
        options: dict[str, Any] = {}
        if durability is not None:
            # A runner looks for the newest checkpoint when it takes a run.
            saver = FencedSaver(pool, scope, thread, 1)
            await saver.null_writes()
            graph, options = graph.copy(update={"checkpointer": saver}), {"durability": durability}
        config = {"configurable": {"thread_id": thread}}
        parts = graph.astream(GIVEN, config, stream_mode=list(MODES), subgraphs=True, version="v1", **options)
        async for _ in parts:
            pass

    try:
        # A runner's connections have been open for long, and their statements prepared.
        await series(one, warming, {})
        return await series(one, count, processes)
    finally:
        await pool.close()
        await database.close()


def show(name: str, spent: Spent) -> None:
    """One row."""
    cpu = ", ".join(f"{process} {cpu_ms:.1f}" for process, cpu_ms in spent.cpu_ms.items())
    print(f"{name:<44} {spent.runs_per_s:>7.0f} runs/s, CPU for each in ms: {cpu}", flush=True)


def measure(stack: Stack, nats_pid: int, postgres_pid: int, count: int) -> None:
    """In turns, since what others do on the machine changes."""
    roles = {"API": stack.apis[0].pid, "runner": stack.runners[0].pid}
    processes = {**roles, "projector": stack.services[-1].pid, "NATS": nats_pid, "Postgres": postgres_pid}
    mine = {"process": psutil.Process().pid, "Postgres": postgres_pid}
    asyncio.run(served(stack, "async", 4 * CONCURRENT, processes))
    shares: list[tuple[float, float]] = []
    for _ in range(3):
        run = asyncio.run(served(stack, "async", count, processes))
        show("runs/wait, durability async (the default)", run)
        show("runs/wait, durability exit", asyncio.run(served(stack, "exit", count, processes)))
        bare = asyncio.run(alone(stack.dsn, None, count, mine))
        show("the graph alone", bare)
        saved = asyncio.run(alone(stack.dsn, "async", count, mine))
        show("the graph alone with the checkpointer", saved)
        added = {name: saved.cpu_ms[name] - bare.cpu_ms[name] for name in mine}
        shares.append((added["process"] / run.cpu_ms["runner"], sum(added.values()) / sum(run.cpu_ms.values())))
    of_runner, of_all = (statistics.median(share) for share in zip(*shares, strict=True))
    print(f"share of the checkpointer: {of_runner:.0%} of the runner's CPU, {of_all:.0%} of that of all processes")


def main() -> None:
    """Start servers of our own, measure, stop them."""
    arguments = argparse.ArgumentParser("bench.runs_wait", description=__doc__)
    arguments.add_argument("--runs", type=int, default=400, help="of each series (default: 400)")
    options = arguments.parse_args()
    with site(GRAPHS) as (stack, nats, postgres):
        stack.start()
        measure(stack, nats.process.pid, postgres.process.pid, options.runs)


if __name__ == "__main__":
    main()
