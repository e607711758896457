"""How long it takes to refuse a thread of somebody else's, and one that does not exist; and whether that tells.

PYTHONPATH=tools:tests python -m bench.existence [--trials 1000]

The two are asked for in turns, with ids that are new each time, so that both meet the same machine. Beside each
distribution stands how often a guesser who knows both would be right about a single answer (0.5 is chance).
"""

import argparse
import asyncio
import random
import statistics
import time
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable

import httpx

from bench.site import site
from testkit.client import new_thread
from testkit.guarded import headers
from testkit.stack import REPOSITORY

AUTH = REPOSITORY / "examples" / "auth.json"
RUN = {"assistant_id": "chat", "input": {}}
Ask = Callable[[httpx.AsyncClient, str], Awaitable[httpx.Response]]
ASKED: dict[str, Ask] = {
    "GET /threads/{id}": lambda http, thread_id: http.get(f"/threads/{thread_id}"),
    "GET /threads/{id}/state": lambda http, thread_id: http.get(f"/threads/{thread_id}/state"),
    "POST /threads/{id}/runs": lambda http, thread_id: http.post(f"/threads/{thread_id}/runs", json=RUN),
    "DELETE /threads/{id}": lambda http, thread_id: http.delete(f"/threads/{thread_id}"),
}


def advantage(strange: list[float], unused: list[float]) -> float:
    """How often the longer of one answer of each is the strange one's. Source: Mann and Whitney's U, over its most."""
    ranked = sorted(unused)
    wins = sum(bisect_left(ranked, each) + bisect_right(ranked, each) for each in strange) / 2
    return wins / (len(strange) * len(unused))


def shown(name: str, took_ms: list[float]) -> str:
    """One distribution."""
    cuts = statistics.quantiles(took_ms, n=100)
    return f"  {name:<8} p50 {cuts[49]:6.2f}  p90 {cuts[89]:6.2f}  p99 {cuts[98]:6.2f} ms"


async def measure(url: str, trials: int) -> None:
    """Make one thread for each trial, then ask for each of them, and for as many that are not there."""
    async with (
        httpx.AsyncClient(base_url=url, headers=headers("alice"), timeout=30) as alice,
        httpx.AsyncClient(base_url=url, headers=headers("bob"), timeout=30) as bob,
    ):
        for name, ask in ASKED.items():
            took: dict[str, list[float]] = {"strange": [], "unused": []}
            for _ in range(trials):
                made = (await alice.post("/threads", json={})).raise_for_status().json()["thread_id"]
                pair = [("strange", made), ("unused", new_thread())]
                for kind, thread_id in random.sample(pair, 2):
                    begun = time.perf_counter()
                    answer = await ask(bob, thread_id)
                    took[kind].append(1000 * (time.perf_counter() - begun))
                    assert answer.status_code == 404, answer.text
            print(name)
            for kind, found in took.items():
                print(shown(kind, found))
            print(
                f"  a guess from one answer is right {advantage(took['strange'], took['unused']):.2f} of the time",
                flush=True,
            )


def main() -> None:
    """Start servers of our own, measure, stop them."""
    arguments = argparse.ArgumentParser("bench.existence", description=__doc__)
    arguments.add_argument("--trials", type=int, default=1000, help="of each question (default: 1000)")
    options = arguments.parse_args()
    with site(AUTH) as (stack, _, _):
        stack.start()
        asyncio.run(measure(stack.url, options.trials))


if __name__ == "__main__":
    main()
