"""`POST /assistants/search` over HTTP on generated rows.

PYTHONPATH=tools:tests python -m bench.assistant_search [--assistants 10000]
"""

import argparse
import asyncio
from typing import Any

import psutil

from bench.__main__ import client
from bench.site import site
from bench.thread_search import COLUMNS, LIMIT, timed
from slipstream_postgres.pool import open_database
from testkit.stack import Stack

ROWS = """INSERT INTO assistants (tenant, assistant_id, graph_id, name, config, context, metadata, version, created_at,
 updated_at) SELECT 'default', gen_random_uuid()::text, CASE i % 10 WHEN 0 THEN 'rare' ELSE 'agent' END,
 'Assistant ' || i, jsonb_build_object('configurable', jsonb_build_object('prompt', repeat('Be brief. ', 50))), '{}',
 jsonb_build_object('user', 'user-' || i % ($1 / 50), 'team', 'team-' || i % 10), 1, now() - i * interval '1 s',
 now() - (i::bigint * 7919 % $1) * interval '1 s' FROM generate_series(1, $1) i"""
SEARCHES: dict[str, dict[str, Any]] = {
    "newest": {},
    "by name": {"sort_by": "name", "sort_order": "asc"},
    "of a graph that 1 in 10 have": {"graph_id": "rare"},
    "metadata of 1 in 10": {"metadata": {"team": "team-7"}},
    "metadata of a user's 50": {"metadata": {"user": "user-7"}},
    "a part of the name, 1 in 1000": {"name": "assistant 77"},
    "last page": {"offset": 9900},
}


async def measure(stack: Stack, pids: list[int], count: int, trials: int) -> None:
    """Fill the table, then time each search."""
    database = await open_database(stack.dsn)
    async with database.connection() as connection:
        await connection.execute(ROWS, count, timeout=900)
        await connection.execute("VACUUM ANALYZE assistants", timeout=900)
    await database.close()
    print(f"{count} assistants, limit {LIMIT}, {psutil.cpu_count()} cores: {COLUMNS.format(trials)}", flush=True)
    async with client(stack.url) as http:
        for name, body in SEARCHES.items():
            print(f"{name:<34} {await timed(http, '/assistants/search', body, trials, pids)}", flush=True)


def main() -> None:
    """Start servers of our own, measure, stop them."""
    arguments = argparse.ArgumentParser("bench.assistant_search", description=__doc__)
    arguments.add_argument("--assistants", type=int, default=10_000, help="rows to generate (default: 10000)")
    arguments.add_argument("--trials", type=int, default=40, help="of each search (default: 40)")
    options = arguments.parse_args()
    with site() as (stack, _, postgres):
        stack.start(apis=1, runners=0, projectors=0)
        pids = [stack.apis[0].pid, postgres.process.pid]
        asyncio.run(measure(stack, pids, options.assistants, options.trials))


if __name__ == "__main__":
    main()
