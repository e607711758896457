"""Migrating a database in use: how long a write to a large table waits while each revision is applied.

PYTHONPATH=tools:tests python -m bench.migrations [--rows 1000000]
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import asyncpg
from alembic.config import Config
from alembic.script import ScriptDirectory

import slipstream_postgres
from slipstream_postgres.embedded import start_postgres
from slipstream_postgres.migrate import upgrade

FIRST = "0001"
THREADS = """INSERT INTO threads (tenant, thread_id, created_at, updated_at, state_updated_at, metadata, status, config,
 values, interrupts, control_seq) SELECT 'default', 'thread-' || i, now(), now(), now(),
 jsonb_build_object('user', 'user-' || i % 1000), 'idle', '{}', '{}', '{}', i FROM generate_series(1, $1) i"""
RUNS = """INSERT INTO runs (tenant, run_id, thread_id, assistant_id, graph_id, created_at, updated_at, status, metadata,
 kwargs, multitask_strategy, attempt, log_seq, control_seq) SELECT 'default', 'run-' || i, 'thread-' || i, 'a', 'g',
 now(), now(), 'success', '{}', '{}', 'enqueue', 1, i, i FROM generate_series(1, $1) i"""
WRITES = (
    "UPDATE threads SET updated_at=now() WHERE tenant='default' AND thread_id='thread-' || $1",
    "UPDATE runs SET updated_at=now() WHERE tenant='default' AND run_id='run-' || $1",
)
PAUSE_S = 0.005


async def write_until(stop: asyncio.Event, dsn: str, statement: str) -> tuple[float, int]:
    """Write all the time; the longest wait and the number of writes."""
    connection = await asyncpg.connect(dsn)
    longest_s, count = 0.0, 0
    while not stop.is_set():
        begun = time.perf_counter()
        await connection.execute(statement, str(1 + count % 1000))
        longest_s = max(longest_s, time.perf_counter() - begun)
        count += 1
        await asyncio.sleep(PAUSE_S)
    await connection.close()
    return longest_s, count


async def measure(dsn: str, revision: str) -> None:
    """Apply one revision while both tables are written."""
    stop = asyncio.Event()
    writers = [asyncio.create_task(write_until(stop, dsn, statement)) for statement in WRITES]
    await asyncio.sleep(0.5)
    begun = time.perf_counter()
    await asyncio.to_thread(upgrade, dsn, revision)
    took_s = time.perf_counter() - begun
    stop.set()
    (threads_s, count), (runs_s, _) = await asyncio.gather(*writers)
    print(f"{revision}  took {took_s:6.1f} s; longest wait of a write: threads {threads_s * 1000:5.0f} ms, "
          f"runs {runs_s * 1000:5.0f} ms ({count} writes)", flush=True)  # fmt: skip


async def run(dsn: str, rows: int) -> None:
    """Fill the first schema, then migrate step by step."""
    await asyncio.to_thread(upgrade, dsn, FIRST)
    connection = await asyncpg.connect(dsn)
    for statement in (THREADS, RUNS):
        await connection.execute(statement, rows)
    await connection.close()
    print(f"{rows} threads and as many runs in the first schema", flush=True)
    config = Config()
    config.set_main_option("script_location", str(Path(slipstream_postgres.__file__ or "").parent / "migrations"))
    for script in reversed(list(ScriptDirectory.from_config(config).walk_revisions())):
        if script.revision != FIRST:
            await measure(dsn, script.revision)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        postgres = start_postgres(Path(scratch))
        try:
            asyncio.run(run(postgres.dsn, chosen.rows))
        finally:
            postgres.stop()


if __name__ == "__main__":
    main()
