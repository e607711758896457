"""One firehose and many conversations: `python -m bench.fairness [--threads 200]`, with tools and tests on the path.

Each conversation says a token a second and has a stream of its own; what counts is the time from the token's own
timestamp to its arrival. The firehose is a run that writes events as fast as the graph goes, and a stream that reads
them, in the same runner and the same API. Quiet and loud take turns, so that a noisy machine spoils both alike.
"""

import argparse
import asyncio
import contextlib
import statistics
import time
from typing import Final

import msgspec

from bench.fanout import GRAPHS
from bench.site import site
from testkit.client import Client, new_thread

TURN_S: Final = 8.0
FLOOD: Final = 1_000_000
SETTLE_S: Final = 3.0


class Event(msgspec.Struct):
    """When an event was made, in Unix milliseconds."""

    class Params(msgspec.Struct):
        """Its frame."""

        timestamp: int

    params: Params


_decode = msgspec.json.Decoder(Event).decode


async def converse(url: str, took_ms: list[float], seconds: float) -> None:
    """A thread whose run says a token a second, and how long each took to arrive."""
    thread_id = new_thread()
    async with Client(url) as client:
        await client.start(thread_id, "tokens", {"count": int(seconds), "pause_s": 1.0})
        async with client.stream(thread_id, channels=["messages"]) as frames:
            async for frame in frames:
                if frame.event == "messages":
                    took_ms.append(time.time() * 1000 - _decode(frame.data.encode()).params.timestamp)


async def flood(url: str) -> None:
    """A run that writes as fast as it can, and its stream."""
    thread_id = new_thread()
    async with Client(url) as client:
        run_id = await client.start(thread_id, "customs", {"count": FLOOD})
        try:
            async with client.stream(thread_id, channels=["custom"]) as frames:
                async for _ in frames:
                    pass
        finally:
            await client.http.post(f"/threads/{thread_id}/runs/{run_id}/cancel?wait=1")


async def measure(url: str, threads: int, turns: int) -> None:
    """Take turns."""
    took_ms: list[float] = []
    total_s = (turns * 2 + 4) * (TURN_S + SETTLE_S)
    talks = [asyncio.create_task(converse(url, took_ms, total_s)) for _ in range(threads)]
    await asyncio.sleep(2 * (TURN_S + SETTLE_S))
    found: dict[str, list[float]] = {"quiet": [], "loud": []}
    for turn in range(2 * turns):
        name = ("quiet", "loud")[turn % 2]
        firehose = asyncio.create_task(flood(url)) if name == "loud" else None
        await asyncio.sleep(SETTLE_S)
        took_ms.clear()
        await asyncio.sleep(TURN_S)
        found[name] += took_ms
        if firehose is not None:
            firehose.cancel()
            await asyncio.gather(firehose, return_exceptions=True)
    for task in talks:
        task.cancel()
    await asyncio.gather(*talks, return_exceptions=True)
    ends = {name: statistics.quantiles(each, n=100) for name, each in found.items()}
    for name, each in ends.items():
        print(
            f"{name:<6} p50 {each[49]:7.1f}  p90 {each[89]:7.1f}  p99 {each[98]:7.1f} ms of {len(found[name])} tokens"
        )
    print(f"p99 with the firehose is {ends['loud'][98] / ends['quiet'][98]:.1f} of that without (aim 3)")


def main() -> None:
    """Start servers of our own, measure, stop them."""
    arguments = argparse.ArgumentParser("bench.fairness", description=__doc__)
    arguments.add_argument("--threads", type=int, default=200, help="conversations (default: 200)")
    arguments.add_argument("--turns", type=int, default=3, help="of each kind (default: 3)")
    options = arguments.parse_args()
    with site(GRAPHS) as (stack, _, _), contextlib.suppress(KeyboardInterrupt):
        stack.start(slipstream_runner_slots=str(options.threads + 10))
        asyncio.run(measure(stack.url, options.threads, options.turns))


if __name__ == "__main__":
    main()
