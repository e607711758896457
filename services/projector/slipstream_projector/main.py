"""The projector's process: one active in a region, the others wait for its lock."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Coroutine
from typing import Any

from slipstream_nats.connection import Connection, access_of, connect
from slipstream_nats.publisher import Publisher, open_publisher
from slipstream_nats.pull import open_pull
from slipstream_nats.threadlog import ThreadLog
from slipstream_postgres import positions
from slipstream_postgres.pool import Database, drop, open_database
from slipstream_projector.apply import POSITION, Applier
from slipstream_projector.lock import HOLD_DEADLINE_S, HOLD_S, LEASE, TRY_LOCK
from slipstream_projector.metrics import ProjectorMetrics
from slipstream_schemas import subjects
from slipstream_schemas.errors import SlipstreamError, Unavailable
from slipstream_schemas.settings import ServiceSettings, log_to_stderr, settings_from_environment
from slipstream_telemetry.exposition import serve

log = logging.getLogger("slipstream.projector")

LOCK_WAIT_S = 0.5
RETRY_WAIT_S = 0.5
ANNOUNCE_S = 1.0


async def project(
    connection: Connection, publisher: Publisher, database: Database, region: str, metrics: ProjectorMetrics
) -> None:
    """Fold for ever. Raises: Unavailable when Postgres or the log go away (call again), Corrupt."""
    applier = Applier(database, ThreadLog(connection, publisher, region))
    async with database.connection(deadline_s=None) as lock:
        try:
            # A blocking lock would hold a statement open past its deadline, so the lock is tried.
            while not await lock.fetchval(TRY_LOCK, region):  # noqa: ASYNC110
                await asyncio.sleep(LOCK_WAIT_S)
            await lock.execute(LEASE)
            position = await positions.get(database, POSITION)
            log.info("ready: projecting region %s from record %d", region, position + 1)
            metrics.starts_at(position)
            await _while_held(lock, _follow(connection, applier, region, position, metrics))
        finally:
            # Its session may be dead and not say so: no word is waited for.
            drop(lock)


async def _while_held(lock: Any, work: Coroutine[Any, Any, None]) -> None:
    """Work as long as the session of the lock answers. Raises: Unavailable when it does not, and what `work` raises."""
    tasks = asyncio.create_task(work), asyncio.create_task(_hold(lock))
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _hold(lock: Any) -> None:
    while True:
        await asyncio.sleep(HOLD_S)
        async with asyncio.timeout(HOLD_DEADLINE_S):
            await lock.fetchval("SELECT 1")


async def _follow(
    connection: Connection, applier: Applier, region: str, position: int, metrics: ProjectorMetrics
) -> None:
    stream, subject = subjects.control_stream(region), subjects.family("control", region)
    where = subjects.position_subject(region)
    async with open_pull(connection, stream, subject, position + 1) as pull:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANNOUNCE_S):
                    batch = await anext(pull)
                before = applier.quarantined
                position = await applier.apply(batch)
                metrics.quarantined.inc(applier.quarantined - before)
                metrics.applied(batch, position)
            await connection.publish(where, str(position).encode())


async def run(settings: ServiceSettings) -> None:
    """Connect and project until SIGTERM; every outage is survived."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    connection = await connect(access_of(settings, "projector"), "slipstream-projector")
    database = await open_database(settings.database_url)
    metrics = ProjectorMetrics()
    if settings.metrics_port:
        serve(metrics.process.registry, settings.host, settings.metrics_port)
    publisher = await open_publisher(connection)
    task = asyncio.create_task(_for_ever(connection, publisher, database, settings.region, metrics))
    await asyncio.wait({task, asyncio.ensure_future(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await database.close()
    await connection.close()


async def _for_ever(
    connection: Connection, publisher: Publisher, database: Database, region: str, metrics: ProjectorMetrics
) -> None:
    while True:
        begun = time.monotonic()
        try:
            await project(connection, publisher, database, region, metrics)
        except Unavailable as error:
            log.warning("projecting stopped: %s; trying again", error.message)
        await asyncio.sleep(RETRY_WAIT_S if time.monotonic() - begun < RETRY_WAIT_S else 0)


def main() -> None:
    """The process."""
    settings = settings_from_environment()
    log_to_stderr(settings.log_level, settings.log_format)
    try:
        asyncio.run(run(settings))
    except SlipstreamError as error:
        raise SystemExit(f"slipstream projector: {error.message}") from error


if __name__ == "__main__":
    main()
