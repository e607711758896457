"""A cluster that loses the leader of a stream, or all of its servers, while runs and their streams are live.

`CLUSTER_RUNS` says how many runs (10). The servers are killed with -9, which keeps what they handed to the kernel: that
an acknowledged record survives a power cut is the word of `sync_interval: always`, not of these trials.
"""

import asyncio
import itertools
import os
import random
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest

from slipstream_nats.connection import Connection
from slipstream_nats.inbox import Message
from slipstream_nats.pull import open_pull
from slipstream_schemas.subjects import control_stream, family, threads_stream
from testkit import permitted
from testkit.client import Frame
from testkit.cluster import NODES, Cluster, connected, leader
from testkit.load import Load, Thread, check_rows, urls_of
from testkit.servers import fresh_database
from testkit.stack import Stack

RUNS: Final = int(os.environ.get("CLUSTER_RUNS", "10"))
SEED: Final = int(os.environ.get("FAULT_SEED", "0")) or secrets.randbelow(10**6)
LATE: Final = 3
"""Runs that are asked for when the leader is dead."""
RUNNERS: Final = 2
STEPS: Final = 15
DELAY_S: Final = 0.1
AWAY_S: Final = 1.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    opened = Cluster(tmp_path_factory.mktemp("cluster"))
    yield opened
    opened.stop()


@pytest.fixture(scope="module")
def site(cluster: Cluster, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two APIs, two runners and a projector on the cluster, whose streams have three replicas."""
    region, root = permitted.new_region(), tmp_path_factory.mktemp("stack")
    with fresh_database(postgres_dsn) as dsn, Stack(cluster.url, dsn, region, root) as stack:
        stack.prepare()
        yield stack.start(apis=2, runners=RUNNERS, slipstream_runner_slots=str((RUNS + LATE) // RUNNERS + 1))


@pytest.fixture(scope="module")
async def connection(anyio_backend: object, cluster: Cluster) -> AsyncIterator[Connection]:
    opened = await connected(cluster)
    yield opened
    await opened.close()


async def stored(connection: Connection, region: str, since: int = 1) -> list[Message]:
    """What the thread logs hold from `since` on."""
    found: list[Message] = []
    stream, subject = threads_stream(region), family("threads", region)
    newest = await connection.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
    last = int(newest["message"]["seq"])
    async with open_pull(connection, stream, subject, since) as pull:
        while not found or found[-1].stream_seq < last:
            found += await anext(pull)
    return found


def emitted(frames: list[Frame]) -> list[int]:
    """What the graph said of its progress, in the order of the log."""
    bodies: list[Any] = [frame.body["params"]["data"] for frame in frames if frame.event == "custom"]
    return [body["payload"]["count"] for body in bodies]


def check_emitted(thread: Thread) -> None:
    """Each step was told, and told again only by an attempt that began at the checkpoint before it."""
    counts = emitted(thread.frames)
    if thread.attempts == 1:
        assert counts == list(range(1, STEPS + 1)), f"{thread.thread_id}: {counts}"
    assert set(counts) == set(range(1, STEPS + 1)), f"{thread.thread_id}: {counts}"


@pytest.mark.parametrize("victim", ["threads", "control", "all"])
async def test_runs_and_streams_outlive_the_loss_of(
    site: Stack, cluster: Cluster, connection: Connection, victim: str
) -> None:
    chance = random.Random(SEED)
    load = Load(urls_of(site), chance, threads=RUNS, steps=STEPS, delay_s=DELAY_S)
    late = Load(urls_of(site), chance, threads=LATE, steps=STEPS, delay_s=DELAY_S)
    stream = {"control": control_stream, "threads": threads_stream}.get(victim, threads_stream)(site.region)
    await leader(connection, threads_stream(site.region))
    first = await last_seq(connection, site.region) + 1
    offsets = site.log_offsets()
    await load.begin()
    names = NODES if victim == "all" else (await leader(connection, stream),)
    led = [each for each in (threads_stream, control_stream) if await leader(connection, each(site.region)) in names]
    killed_at = time.time()
    cluster.kill(*names)
    await late.begin(is_running=False)
    try:
        if victim == "all":
            await asyncio.sleep(AWAY_S)  # The length of the outage is what is tested.
            cluster.start()
        await load.finish()
        await late.finish()
        whole_s = time.time() - killed_at
        threads = load.threads + late.threads
        for thread in threads:
            check_emitted(thread)
        cluster.start()
        report(
            f"{victim} ({len(led)} streams led)",
            threads,
            await stored(connection, site.region, first),
            killed_at,
            whole_s,
        )
    except BaseException as error:
        error.add_note(f"FAULT_SEED={SEED} replays it; killed {', '.join(names)}")
        print(site.logs(offsets))
        raise
    finally:
        cluster.start()
        await load.stop()
        await late.stop()


async def last_seq(connection: Connection, region: str) -> int:
    info = await connection.api(f"STREAM.INFO.{threads_stream(region)}", {})
    return int(info["state"]["last_seq"])


def report(victim: str, threads: list[Thread], messages: list[Message], killed_at: float, whole_s: float) -> None:
    """How long no publish was accepted, and what that cost."""
    times_s = [message.timestamp_ms / 1000 for message in messages]
    gap_s = max(after - before for before, after in itertools.pairwise(times_s) if after > killed_at)
    resumes = sum(thread.resumes - 1 for thread in threads)
    attempts = max(thread.attempts for thread in threads)
    print(
        f"killed {victim}: {len(threads)} runs, {len(messages)} records, publish gap {gap_s:.2f} s, all ended and seen "
        f"{whole_s:.1f} s after the kill, {resumes} resumed streams, at most {attempts} attempts",
        flush=True,
    )


async def test_the_rows_are_what_the_log_says_after_all_of_that(site: Stack) -> None:
    await check_rows(site)
