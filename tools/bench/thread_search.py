"""`POST /threads/search` over HTTP on generated rows, and the plan of each query.

PYTHONPATH=tools:tests python -m bench.thread_search [--threads 1000000]
"""

import argparse
import asyncio
import statistics
import time
from typing import Any

import httpx
import msgspec
import psutil

from bench.__main__ import client
from bench.limits import tree_cpu_s
from bench.site import site
from slipstream_api.routes.thread_search import ThreadSearch, query_of
from slipstream_postgres.pool import Database, open_database
from slipstream_postgres.threads import search_statement, total_statement
from testkit.stack import Stack

ROWS = """INSERT INTO threads (tenant, thread_id, created_at, updated_at, state_updated_at, metadata, status, config,
 values, interrupts, control_seq) SELECT 'default', gen_random_uuid()::text, now() - i * interval '1 s',
 now() - (i::bigint * 7919 % $1) * interval '1 s', now() - (i::bigint * 104729 % $1) * interval '1 s',
 jsonb_build_object('graph_id', CASE i % 10 WHEN 0 THEN 'rare' ELSE 'agent' END,
 'assistant_id', '6a1f4c9e-0b7d-5c1e-9f2a-3d8e7b6c5a4f', 'team', 'team-' || i % 100, 'user', 'user-' || i % ($1 / 50)),
 CASE i % 100 WHEN 0 THEN 'error' WHEN 1 THEN 'interrupted' ELSE 'idle' END, '{"configurable":{}}',
 replace($2, '@', i::text)::jsonb, '{}', i FROM generate_series(1, $1) i"""


def state(answers: int) -> str:
    """Questions and answers as LangGraph dumps them, 0.9 KB for each pair; `@` stands for what tells threads apart."""
    rest: dict[str, Any] = {"additional_kwargs": {}, "response_metadata": {}, "name": None}
    extra: dict[str, Any] = {"tool_calls": [], "invalid_tool_calls": [], "usage_metadata": None}
    messages: list[dict[str, Any]] = []
    for number in range(answers):
        asked, answered = f"Question {number} of thread @. " * 3, f"Answer {number} to the question of thread @. " * 12
        messages.append({"content": asked, **rest, "type": "human", "id": f"human-{number}-@"})
        messages.append({"content": answered, **rest, "type": "ai", "id": f"run-{number}-@", **extra})
    return msgspec.json.encode({"messages": messages}).decode()


BRIEF = ["thread_id", "metadata", "status", "updated_at"]
SEARCHES: dict[str, dict[str, Any]] = {
    "newest": {},
    "newest, without values": {"select": BRIEF},
    "last updated": {"sort_by": "updated_at", "select": BRIEF},
    "state last updated": {"sort_by": "state_updated_at", "select": BRIEF},
    "metadata of 9 in 10": {"metadata": {"graph_id": "agent"}},
    "metadata of 1 in 10": {"metadata": {"graph_id": "rare"}, "select": BRIEF},
    "metadata of 1 in 100": {"metadata": {"team": "team-7"}, "select": BRIEF},
    "metadata of a user, last updated": {"metadata": {"user": "user-7"}, "sort_by": "updated_at"},
    "metadata of nobody": {"metadata": {"user": "nobody"}},
    "status of 1 in 100": {"status": "interrupted", "select": BRIEF},
    "status of none": {"status": "busy"},
    "page 50": {"offset": 4900, "select": BRIEF},
    "last message extracted": {"select": ["thread_id"], "extract": {"last": "values.messages[-1].content"}},
}
LIMIT = 100
COLUMNS = "p50 and p95 of {} in ms, CPU of the API and of Postgres for each in ms, total"


async def plan(database: Database, statement: tuple[str, list[object]]) -> str:
    """The scans and sorts of a statement, the first to run behind the last `<`."""
    text, arguments = statement
    async with database.connection(deadline_s=None) as connection:
        rows = await connection.fetch(f"EXPLAIN (COSTS OFF) {text}", *arguments)
    steps = [str(row[0]).strip().removeprefix("->").strip() for row in rows]
    return " < ".join(step for step in steps if "Scan" in step or step.endswith("Sort"))


async def timed(http: httpx.AsyncClient, path: str, body: dict[str, Any], trials: int, pids: list[int]) -> str:
    """p50 and p95 in ms of the answers to a search, the CPU that each cost the API and Postgres, and its total."""
    took: list[float] = []
    total, before = "", [tree_cpu_s(pid) for pid in pids]
    for _ in range(trials):
        begun = time.perf_counter()
        answer = await http.post(path, json={"limit": LIMIT, **body})
        took.append(1000 * (time.perf_counter() - begun))
        answer.raise_for_status()
        more = "+" if answer.headers.get("x-pagination-total-relation") else ""
        total = answer.headers["x-pagination-total"] + more
    cpu_ms = [1000 * (tree_cpu_s(pid) - begun) / trials for pid, begun in zip(pids, before, strict=True)]
    spent = "".join(f"{each:>7.1f}" for each in cpu_ms)
    return f"{statistics.median(took):>7.1f} {statistics.quantiles(took, n=20)[-1]:>7.1f}{spent} {total:>7}"


async def measure(stack: Stack, pids: list[int], threads: int, answers: int, trials: int) -> None:
    """Fill the table, then time each search."""
    database = await open_database(stack.dsn)
    async with database.connection(deadline_s=None) as connection:
        await connection.execute(ROWS, threads, state(answers), timeout=900)
        await connection.execute("VACUUM ANALYZE threads", timeout=900)
    print(f"{threads} threads, limit {LIMIT}, {psutil.cpu_count()} cores: {COLUMNS.format(trials)}, plans", flush=True)
    async with client(stack.url) as http:
        for name, body in SEARCHES.items():
            query = query_of(msgspec.convert({"limit": LIMIT, **body}, ThreadSearch))
            print(f"{name:<34} {await timed(http, '/threads/search', body, trials, pids)}", flush=True)
            print(f"    page  {await plan(database, search_statement('default', query))}")
            print(f"    total {await plan(database, total_statement('default', query))}", flush=True)
    await database.close()


def main() -> None:
    """Start servers of our own, measure, stop them."""
    arguments = argparse.ArgumentParser("bench.thread_search", description=__doc__)
    arguments.add_argument("--threads", type=int, default=1_000_000, help="rows to generate (default: 1000000)")
    arguments.add_argument("--answers", type=int, default=4, help="in the state of each thread (default: 4)")
    arguments.add_argument("--trials", type=int, default=200, help="of each search (default: 200)")
    options = arguments.parse_args()
    with site() as (stack, _, postgres):
        stack.start(apis=1, runners=0, projectors=0)
        pids = [stack.apis[0].pid, postgres.process.pid]
        asyncio.run(measure(stack, pids, options.threads, options.answers, options.trials))


if __name__ == "__main__":
    main()
