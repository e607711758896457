"""Rebuilding the rows from record 1, and a checksum that says whether they are the same."""

import asyncio
import hashlib
import sys
import time
from collections.abc import Callable
from typing import Any

from slipstream_nats.connection import Connection
from slipstream_nats.pull import open_pull
from slipstream_nats.threadlog import ThreadLog
from slipstream_postgres.pool import Database
from slipstream_projector.apply import Applier
from slipstream_projector.lock import TRY_LOCK, UNLOCK
from slipstream_schemas import subjects
from slipstream_schemas.errors import Conflict, Unavailable

KEEP = (
    "CREATE TEMP TABLE kept ON COMMIT PRESERVE ROWS AS SELECT tenant, thread_id, values, state_updated_at FROM threads"
)
RESTORE = """UPDATE threads t SET values=k.values, state_updated_at=k.state_updated_at FROM kept k
 WHERE t.tenant=k.tenant AND t.thread_id=k.thread_id AND t.values IS NULL AND k.values IS NOT NULL"""
CHECKSUM = """SELECT md5(coalesce(string_agg(row, '' ORDER BY row), '')) FROM
 (SELECT md5(t::text) AS row FROM threads t UNION ALL SELECT md5(r::text) FROM runs r) rows"""

ALONE_DEADLINE_S = 5.0
ALONE_WAIT_S = 0.1

Progress = Callable[[int, int], None]


async def checksum(database: Database) -> str:
    """A digest of all threads and runs; equal rows give an equal digest. Raises: Unavailable."""
    async with database.connection() as connection:
        return hashlib.sha256(str(await connection.fetchval(CHECKSUM)).encode()).hexdigest()[:16]


async def rebuild(connection: Connection, database: Database, region: str, progress: Progress) -> int:
    """Empty the tables and fold the control log again; returns the records applied.

    Values whose record has aged out of the thread log are kept. No projector may run meanwhile. Raises: Unavailable.
    """
    info = await connection.api(f"STREAM.INFO.{subjects.control_stream(region)}", {})
    if "error" in info:
        raise Unavailable(f"cannot read the control log: {info['error'].get('description')}")
    last = await _last_control_seq(connection, region)
    async with database.connection(deadline_s=None) as keeper:
        await _be_alone(keeper, region)
        await keeper.execute(KEEP)
        await keeper.execute("TRUNCATE threads, runs, erasures, quarantine")
        await keeper.execute("DELETE FROM positions WHERE name='control'")
        applied = 0
        if last:
            # Publishing is not needed to read, so the log gets no publisher.
            applier = Applier(database, ThreadLog(connection, None, region))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            stream, subject = subjects.control_stream(region), subjects.family("control", region)
            async with open_pull(connection, stream, subject, 1) as pull:
                async for batch in pull:
                    position = await applier.apply(batch)
                    applied += len(batch)
                    progress(position, last)
                    if position >= last:
                        break
        await keeper.execute(RESTORE)
        await keeper.execute("DROP TABLE kept")
        await keeper.execute(UNLOCK, region)
    return applied


async def _be_alone(connection: Any, region: str) -> None:
    """Take the place of the region's projector. Raises: Conflict when one is active and stays so."""
    try:
        async with asyncio.timeout(ALONE_DEADLINE_S):
            # The lock of a projector that was just killed is free as soon as Postgres has noticed.
            while not await connection.fetchval(TRY_LOCK, region):  # noqa: ASYNC110
                await asyncio.sleep(ALONE_WAIT_S)
    except TimeoutError as error:
        raise Conflict("a projector of this region is running: stop it, then rebuild") from error


async def _last_control_seq(connection: Connection, region: str) -> int:
    query = {"last_by_subj": subjects.family("control", region)}
    answer = await connection.api(f"STREAM.MSG.GET.{subjects.control_stream(region)}", query)
    return 0 if "error" in answer else int(answer["message"]["seq"])


def bar(begun: float) -> Progress:
    """A progress bar on stderr."""

    def show(done: int, total: int) -> None:
        share = min(done / total, 1.0)
        passed = time.monotonic() - begun
        left = passed / share - passed if share else 0.0
        filled = int(share * 30)
        text = f"\rrebuild [{'#' * filled}{'.' * (30 - filled)}] {share:4.0%}  {done}/{total}  {left:.0f} s left "
        sys.stderr.write(text + ("\n" if done >= total else ""))
        sys.stderr.flush()

    return show
