"""Mixed load, and whether memory stays flat: `python -m bench.soak [--minutes 60]`, with tools and tests on the path.

Every process has the defaults of an operator, but for threads of stateless runs, which go after a second. What the load
makes it deletes, so that what should be flat can be flat. Each minute a line says what was done, how long the last
requests took, and how much memory each process holds; at the end, how much that grows.
"""

import argparse
import asyncio
import contextlib
import itertools
import statistics
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx
import psutil

from bench.site import site
from slipstream_nats.connection import connect
from slipstream_nats.figures import stream_figures
from slipstream_schemas.subjects import control_stream, threads_stream
from testkit.client import Client, new_thread
from testkit.stack import Stack

EVERY_S: Final = 60.0
DEADLINE_S: Final = 120.0
IDLE_STREAMS: Final = 50
WARM_UP: Final = 0.3
"""The share of the minutes that does not count: pools, caches and allocators fill."""
SAY: Final = {"messages": [{"role": "user", "content": "Lisbon?"}]}


class Soak:
    """The load, and what became of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.took_s: deque[float] = deque(maxlen=2000)

    async def repeat(self, act: Callable[[Client], Awaitable[None]], period_s: float) -> None:
        """Do it every `period_s`, or as fast as it goes if that is slower, over one connection pool."""
        async with Client(self.url) as client:
            client.http.timeout = httpx.Timeout(DEADLINE_S)
            due = time.monotonic()
            while True:
                begun, name = time.monotonic(), getattr(act, "__name__", "")
                try:
                    async with asyncio.timeout(DEADLINE_S):
                        await act(client)
                    self.done[name] += 1
                except (httpx.HTTPError, AssertionError, TimeoutError, KeyError) as error:
                    self.failed[name] += 1
                    print(f"  {name} failed: {type(error).__name__} {str(error)[:200]}", flush=True)
                self.took_s.append(time.monotonic() - begun)
                due = max(due + period_s, time.monotonic())
                await asyncio.sleep(due - time.monotonic())

    async def streams(self, client: Client) -> None:
        """A v2 run whose stream breaks in the middle and is resumed."""
        thread_id = new_thread()
        await client.start(thread_id, "agent", SAY)
        seen = []
        async with client.events(thread_id) as events:
            async for frame in events:
                seen.append(frame)
                if len(seen) == 10:
                    break
        seen += await client.run_events(thread_id, since=seen[-1].seq)
        assert seen == await client.run_events(thread_id), "a resumed stream is the replay"
        await self._delete(client, thread_id)

    async def waits(self, client: Client) -> None:
        """A stateless run."""
        body = {"assistant_id": "counter", "input": {"steps": 3, "delay_s": 0.01}}
        answer = await client.http.post("/runs/wait", json=body)
        assert answer.raise_for_status().json()["count"] == 3

    async def v1(self, client: Client) -> None:
        """A v1 stream of tokens, on a thread that is used three times."""
        thread_id = new_thread()
        for _ in range(3):
            body = {
                "assistant_id": "chat",
                "input": SAY,
                "stream_mode": ["messages-tuple", "values"],
                "if_not_exists": "create",
            }
            async with client.http.stream("POST", f"/threads/{thread_id}/runs/stream", json=body) as answer:
                async for _ in answer.aiter_bytes():
                    pass
        assert (await client.http.get(f"/threads/{thread_id}")).json()["status"] == "idle"
        await self._delete(client, thread_id)

    async def asks(self, client: Client) -> None:
        """A question, answered."""
        thread_id = new_thread()
        await client.start(thread_id, "approval", {"amount": 1})
        asked = await client.run_events(thread_id)
        (question,) = [frame.body["params"]["data"] for frame in asked if frame.event == "input.requested"]
        answer: Any = {"interrupt_id": question["interrupt_id"], "namespace": [], "response": True}
        assert (await client.command(thread_id, "input.respond", **answer))["type"] == "success"
        await client.run_events(thread_id, since=asked[-1].seq)
        await self._delete(client, thread_id)

    async def cancels(self, client: Client) -> None:
        """A run that is stopped."""
        thread_id = new_thread()
        run_id = await client.start(thread_id, "counter", {"steps": 1000, "delay_s": 0.02})
        answer = await client.http.post(f"/threads/{thread_id}/runs/{run_id}/cancel?wait=1")
        assert answer.status_code < 300, answer.text
        await client.run_events(thread_id)
        await self._delete(client, thread_id)

    async def stores(self, client: Client) -> None:
        """An item, written, found and deleted."""
        item: Any = {"namespace": ["soak"], "key": new_thread()}
        await client.http.put("/store/items", json={**item, "value": {"text": "x" * 200}})
        found = await client.http.post("/store/items/search", json={"namespace_prefix": ["soak"], "limit": 5})
        assert found.raise_for_status().json()["items"]
        assert (await client.http.request("DELETE", "/store/items", json=item)).status_code == 204

    async def idles(self, client: Client) -> None:
        """A stream of a thread on which nothing happens, for a minute."""
        async with client.stream(new_thread()) as events:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(60):
                    async for _ in events:
                        pass

    async def _delete(self, client: Client, thread_id: str) -> None:
        answer = await client.http.delete(f"/threads/{thread_id}")
        assert answer.status_code == 204, answer.text

    def tasks(self) -> list[asyncio.Task[None]]:
        """The load."""
        plan = [
            (self.streams, 2.0), (self.waits, 0.7), (self.v1, 3.0), (self.asks, 2.0), (self.cancels, 3.0),
            (self.stores, 2.0),
            *((self.idles, 0.0) for _ in range(IDLE_STREAMS)),
        ]  # fmt: skip
        return [asyncio.create_task(self.repeat(act, period_s)) for act, period_s in plan]


def memory_mib(pids: dict[str, int]) -> dict[str, float]:
    """What each process holds for itself, with its children; memory that they share counts once."""
    out: dict[str, float] = {}
    for name, pid in pids.items():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            family = [process, *process.children(recursive=True)]
            out[name] = sum(each.memory_full_info().uss for each in family) / 2**20
    return out


def growth_mib_per_hour(samples: list[tuple[float, float]]) -> float:
    """The slope of `(seconds, MiB)`. Source: Theil and Sen, the median of all pairs, so that one peak says nothing."""
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.combinations(samples, 2)]
    return 3600 * statistics.median(slopes) if slopes else 0.0


async def soak(stack: Stack, pids: dict[str, int], minutes: float) -> None:
    """Load, and look each minute."""
    load = Soak(stack.url)
    connection = await connect(stack.nats_url, "soak")
    tasks, begun = load.tasks(), time.monotonic()
    samples: dict[str, list[tuple[float, float]]] = defaultdict(list)
    while (passed_s := time.monotonic() - begun) < minutes * 60:
        await asyncio.sleep(EVERY_S)
        passed_s = time.monotonic() - begun
        held = memory_mib(pids)
        for name, mib in held.items():
            samples[name].append((passed_s, mib))
        sizes = [await stream_figures(connection, name(stack.region), 5) for name in (threads_stream, control_stream)]
        said = "  ".join(f"{name} {mib:.1f}" for name, mib in held.items())
        stored = f"records {sizes[0].messages}+{sizes[1].messages}, {sum(each.bytes for each in sizes) / 2**20:.1f} MiB"
        print(
            f"{passed_s / 60:5.1f} min  done {load.done.total()} failed {load.failed.total()}  "
            f"median {1000 * statistics.median(load.took_s or [0]):.0f} ms  {said} MiB  {stored}", flush=True,
        )  # fmt: skip
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with httpx.AsyncClient(base_url=stack.url) as http:
        left = (await http.post("/threads/search", json={"status": "busy"})).json()
    await connection.close()
    print(f"done: {dict(load.done)}; failed: {dict(load.failed)}; threads still busy: {len(left)}")
    for name, found in samples.items():
        counted = found[int(len(found) * WARM_UP) :]
        grows = growth_mib_per_hour(counted)
        print(f"{name:<10} {found[0][1]:7.1f} -> {found[-1][1]:7.1f} MiB, {grows:+6.1f} MiB an hour")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    chosen = parser.parse_args()
    with site() as (stack, nats, postgres):
        stack.start(slipstream_stateless_kept_s="1")
        pids = {"nats": nats.process.pid, "postgres": postgres.process.pid}
        pids |= {service.name: service.pid for service in stack.services}
        asyncio.run(soak(stack, pids, chosen.minutes))


if __name__ == "__main__":
    main()
