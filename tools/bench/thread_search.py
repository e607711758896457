"""`POST /threads/search` over HTTP on generated rows, and the plan of each query.

PYTHONPATH=tools:tests python -m bench.thread_search [--threads 1000000]
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil

from bench.__main__ import client
from slipstream_api.routes.thread_search import ThreadSearch, query_of
from slipstream_nats.embedded import start_nats
from slipstream_postgres.embedded import start_postgres
from slipstream_postgres.pool import Database, open_database
from slipstream_postgres.threads import search_statement
from testkit.stack import Stack

ROWS = """INSERT INTO threads (tenant, thread_id, created_at, updated_at, state_updated_at, metadata, status, config,
 values, interrupts, control_seq) SELECT 'default', gen_random_uuid()::text, now() - i * interval '1 s',
 now() - (i::bigint * 7919 % $1) * interval '1 s', now() - (i::bigint * 104729 % $1) * interval '1 s',
 jsonb_build_object('graph_id', CASE i % 10 WHEN 0 THEN 'rare' ELSE 'agent' END, 'user', 'user-' || i % ($1 / 50)),
 CASE i % 100 WHEN 0 THEN 'error' WHEN 1 THEN 'interrupted' ELSE 'idle' END, '{"configurable":{}}',
 jsonb_build_object('messages', (SELECT jsonb_agg(jsonb_build_object('type', 'human', 'content', md5((i + n)::text)))
 FROM generate_series(1, 8) n)), '{}', i FROM generate_series(1, $1) i"""
BRIEF = ["thread_id", "metadata", "status", "updated_at"]
SEARCHES: dict[str, dict[str, Any]] = {
    "newest": {},
    "newest, without values": {"select": BRIEF},
    "last updated": {"sort_by": "updated_at", "select": BRIEF},
    "state last updated": {"sort_by": "state_updated_at", "select": BRIEF},
    "metadata of 9 in 10": {"metadata": {"graph_id": "agent"}},
    "metadata of 1 in 10": {"metadata": {"graph_id": "rare"}, "select": BRIEF},
    "metadata of a user, last updated": {"metadata": {"user": "user-7"}, "sort_by": "updated_at"},
    "metadata of nobody": {"metadata": {"user": "nobody"}},
    "status of 1 in 100": {"status": "interrupted", "select": BRIEF},
    "status of none": {"status": "busy"},
    "page 50": {"offset": 4900, "select": BRIEF},
    "last message extracted": {"select": ["thread_id"], "extract": {"last": "values.messages[-1].content"}},
}
LIMIT = 100


async def plan(database: Database, body: dict[str, Any]) -> str:
    """The scans and sorts of the query."""
    text, arguments = search_statement("default", query_of(msgspec.convert({"limit": LIMIT, **body}, ThreadSearch)))
    async with database.connection(deadline_s=None) as connection:
        rows = await connection.fetch(f"EXPLAIN (COSTS OFF) {text}", *arguments)
    steps = [str(row[0]).strip().removeprefix("->").strip() for row in rows]
    return " < ".join(step for step in steps if "Scan" in step or step.endswith("Sort"))


async def measure(stack: Stack, threads: int, trials: int) -> None:
    """Fill the table, then time each search."""
    database = await open_database(stack.dsn)
    async with database.connection(deadline_s=None) as connection:
        await connection.execute(ROWS, threads, timeout=900)
        await connection.execute("VACUUM ANALYZE threads", timeout=900)
    print(f"{threads} threads, limit {LIMIT}, {psutil.cpu_count()} cores: p50 and p95 of {trials} in ms, total, plan")
    async with client(stack.url) as http:
        for name, body in SEARCHES.items():
            took: list[float] = []
            total = ""
            for _ in range(trials):
                begun = time.perf_counter()
                answer = await http.post("/threads/search", json={"limit": LIMIT, **body})
                took.append(1000 * (time.perf_counter() - begun))
                answer.raise_for_status()
                more = "+" if answer.headers.get("x-pagination-total-relation") else ""
                total = answer.headers["x-pagination-total"] + more
            p95 = statistics.quantiles(took, n=20)[-1]
            shown = await plan(database, body)
            print(f"{name:<34} {statistics.median(took):>7.1f} {p95:>7.1f} {total:>7}  {shown}", flush=True)
    await database.close()


def main() -> None:
    """Start servers of our own, measure, stop them."""
    arguments = argparse.ArgumentParser("bench.thread_search", description=__doc__)
    arguments.add_argument("--threads", type=int, default=1_000_000, help="rows to generate (default: 1000000)")
    arguments.add_argument("--trials", type=int, default=40, help="of each search (default: 40)")
    options = arguments.parse_args()
    root = Path(tempfile.mkdtemp(prefix="slipstream-bench-"))
    nats, postgres = start_nats(root), start_postgres(root)
    try:
        with Stack(nats.url, postgres.dsn, "bench", root / "stack") as stack:
            stack.prepare()
            stack.start(apis=1, runners=0, projectors=0)
            asyncio.run(measure(stack, options.threads, options.trials))
    finally:
        nats.stop()
        postgres.stop()


if __name__ == "__main__":
    main()
