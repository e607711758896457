"""The runner's process."""

import asyncio
import concurrent.futures
import contextlib
import gc
import logging
import os
import signal
import socket
import uuid
from pathlib import Path

import uvloop

from slipstream_nats.connection import access_of, connect
from slipstream_nats.controllog import ControlLog
from slipstream_nats.publisher import open_publisher
from slipstream_nats.threadlog import ThreadLog
from slipstream_nats.workqueue import WorkQueue
from slipstream_postgres import assistants
from slipstream_postgres.pool import open_database
from slipstream_runner import checkpoints, questions, upkeep
from slipstream_runner.graphs import Graphs
from slipstream_runner.metrics import RunnerMetrics
from slipstream_runner.pulse import Pulse
from slipstream_runner.runtime import Runtime
from slipstream_runner.store import open_stores
from slipstream_runner.store import serve as serve_store
from slipstream_runner.store_settings import StoreSettings, load_store_settings
from slipstream_runner.sweeping import sweep
from slipstream_runner.watch import watch
from slipstream_runner.worker import Worker
from slipstream_schemas.crashpoint import Crashpoint
from slipstream_schemas.errors import SlipstreamError
from slipstream_schemas.limits import CONNECT_DEADLINE_S, SYNC_NODE_THREADS
from slipstream_schemas.settings import ServiceSettings, log_to_stderr, settings_from_environment
from slipstream_telemetry.exposition import serve as serve_metrics
from slipstream_telemetry.tracing import open_tracing

log = logging.getLogger("slipstream.runner")

TICK_S = 0.5


async def open_runtime(settings: ServiceSettings, graphs: Graphs, store: StoreSettings) -> Runtime:
    """Connect to everything. Raises: Unavailable."""
    holder = f"{socket.gethostname().split('.')[0]}-{uuid.uuid4().hex[:12]}"
    connection = await connect(access_of(settings, "runner"), holder)
    publisher = await open_publisher(connection)
    metrics = RunnerMetrics()
    publisher.observe = metrics.publishes.published
    database = await open_database(settings.database_url)
    pool = await checkpoints.open_pool(settings.database_url, settings.runner_slots)
    await checkpoints.set_up(pool)
    stores = await open_stores(settings.database_url, pool, store)
    region = settings.region
    return Runtime(
        settings, holder, connection, publisher, ControlLog(connection, publisher, region),
        ThreadLog(connection, publisher, region), WorkQueue(publisher, region), database, pool, graphs,
        Crashpoint(settings.crashpoint), stores, metrics, open_tracing("slipstream-runner"),
    )  # fmt: skip


async def run(settings: ServiceSettings, graphs: Graphs, store: StoreSettings) -> None:
    """Serve until SIGTERM, then drain."""
    loop = asyncio.get_running_loop()
    # Sync nodes run on the default executor, which has six threads on two cores.
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(SYNC_NODE_THREADS, "sync-node"))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runtime = await open_runtime(settings, graphs, store)
    pulse = Pulse(settings, runtime.holder, runtime.taking)
    pulse.start()
    worker = Worker(runtime, pulse)
    runtime.metrics.read_from(settings.runner_slots, lambda: len(worker.held), worker.waiting_lines)
    if settings.metrics_port:
        serve_metrics(runtime.metrics.process.registry, settings.host, settings.metrics_port)
    await assistants.register_graphs(runtime.database, graphs.ids, graphs.descriptions, graphs.version)
    await questions.serve(runtime)
    await upkeep.serve(runtime)
    await serve_store(runtime.connection, settings.region, runtime.stores)
    watching = asyncio.Event()
    background = [
        asyncio.create_task(watch(runtime.connection, settings.region, worker.held, runtime.beginning, watching)),
        asyncio.create_task(sweep(runtime, worker.held)),
        asyncio.create_task(runtime.stores.sweep()),
        asyncio.create_task(_tick(pulse)),
    ]
    async with asyncio.timeout(CONNECT_DEADLINE_S):
        await watching.wait()
    background.append(asyncio.create_task(worker.work()))
    log.info("ready: runner %s has %s", runtime.holder, ", ".join(graphs.ids))
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait({stopping, *background}, return_when=asyncio.FIRST_COMPLETED)
    failed = next((task for task in done if task is not stopping), None)
    await worker.drain()
    for task in background:
        task.cancel()
    await asyncio.wait(background, timeout=CONNECT_DEADLINE_S)
    pulse.stop()
    with contextlib.suppress(SlipstreamError):
        await runtime.connection.flush()
    await runtime.connection.close()
    await runtime.stores.close()
    await runtime.checkpoints.close()
    await runtime.database.close()
    await asyncio.to_thread(runtime.tracing.close)
    if failed is not None:
        failed.result()
    logging.shutdown()
    # Closing the loop waits for its threads, and a sync node that never returns must not keep the process.
    os._exit(0)


async def _tick(pulse: Pulse) -> None:
    while True:
        pulse.tick()
        await asyncio.sleep(TICK_S)


def main() -> None:
    """The process."""
    try:
        settings = settings_from_environment()
        log_to_stderr(settings.log_level, settings.log_format)
        graphs = Graphs.load(Path(settings.config))
        store = load_store_settings(Path(settings.config))
        # What is loaded now stays: the collector need not look at it again.
        gc.freeze()
        uvloop.run(run(settings, graphs, store))
    except SlipstreamError as error:
        raise SystemExit(f"slipstream runner: {error.message}") from error


if __name__ == "__main__":
    main()
