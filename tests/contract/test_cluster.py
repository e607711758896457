"""Three servers on the configuration that we ship: the log goes on when the leader of its stream dies."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from slipstream_nats.connection import Connection
from slipstream_nats.controllog import ControlLog, Decision
from slipstream_nats.leases import take
from slipstream_nats.publisher import open_publisher
from slipstream_nats.threadlog import ThreadLog
from slipstream_schemas.errors import Unreachable
from slipstream_schemas.record import RecordHeader
from slipstream_schemas.run_state import ThreadCreated, ThreadPatched
from slipstream_schemas.subjects import Scope, threads_stream
from slipstream_schemas.thread_life import create_thread, patch_thread
from testkit.cluster import READY_DEADLINE_S, Cluster, connected, leader, provisioned
from testkit.wait import until

T = TypeVar("T")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    opened = Cluster(tmp_path)
    yield opened
    opened.stop()


@pytest.fixture
async def connection(cluster: Cluster, region: str) -> AsyncIterator[Connection]:
    """A connection to all three, with replicated streams."""
    opened = await connected(cluster)
    await provisioned(opened, region)
    yield opened
    await opened.close()


def patch(command_id: str) -> Decision:
    return lambda state: patch_thread(state, command_id, 0, ThreadPatched())


async def outlived(read: Callable[[], Awaitable[T]]) -> T:
    """What a read gives once the cluster is able to answer: a leader may change once more behind the one that died."""
    found: list[T] = []

    async def is_read() -> bool:
        with contextlib.suppress(Unreachable):
            found.append(await read())
        return bool(found)

    await until(is_read, READY_DEADLINE_S)
    return found[0]


async def test_the_death_of_a_leader_loses_doubles_and_disorders_nothing(
    cluster: Cluster, connection: Connection, region: str, scope: Scope
) -> None:
    publisher = await open_publisher(connection)
    log, control = ThreadLog(connection, publisher, region), ControlLog(connection, publisher, region)
    threads = [f"thread-{count}" for count in range(6)]
    acknowledged: dict[str, list[int]] = {thread_id: [] for thread_id in threads}
    decided: list[str] = []
    stop = asyncio.Event()

    async def run(thread_id: str) -> None:
        writer = log.writer(scope, thread_id, await take(publisher, scope, thread_id, "runner", "run"))
        while not stop.is_set():
            ordinal = len(acknowledged[thread_id])
            acknowledged[thread_id].append(await writer.append(RecordHeader("run", 1, ordinal), b"%d" % ordinal))

    async def decide() -> None:
        await control.decide(scope, "c", lambda state: create_thread(state, "c", "create", 0, ThreadCreated()))
        while not stop.is_set():
            transition, _ = await control.decide(scope, "c", patch(f"patch-{len(decided)}"))
            decided.append(transition.command_id)

    async def everybody_wrote(count: int) -> None:
        goal = {thread_id: len(seqs) + count for thread_id, seqs in acknowledged.items()}
        decisions = len(decided) + count

        def reached() -> bool:
            return len(decided) >= decisions and all(len(acknowledged[name]) >= goal[name] for name in threads)

        await until(reached, READY_DEADLINE_S)

    async with asyncio.TaskGroup() as group:
        group.create_task(decide())
        for thread_id in threads:
            group.create_task(run(thread_id))
        await everybody_wrote(30)
        cluster.kill(await leader(connection, threads_stream(region)))
        await everybody_wrote(30)
        stop.set()

    for thread_id in threads:
        seqs, bodies, seq = list[int](), list[bytes](), 0
        while (record := await outlived(partial(log.next, scope, thread_id, seq + 1))) is not None:
            seq = record.stream_seq
            seqs.append(seq)
            bodies.append(record.body)
        assert seqs == acknowledged[thread_id]
        assert bodies == [b"%d" % ordinal for ordinal in range(len(bodies))]
    head = await outlived(partial(control.head, scope, "c"))
    assert head.transition is not None and head.transition.command_id == decided[-1]
