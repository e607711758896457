"""Three servers on the configuration that we ship: the log goes on when the leader of its stream dies."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from slipstream_nats.connection import Connection, connect
from slipstream_nats.controllog import ControlLog, Decision
from slipstream_nats.embedded import binary
from slipstream_nats.leases import take
from slipstream_nats.provision import StreamSettings, provision
from slipstream_nats.publisher import open_publisher
from slipstream_nats.threadlog import ThreadLog
from slipstream_schemas.errors import Corrupt, Unavailable
from slipstream_schemas.record import RecordHeader
from slipstream_schemas.run_state import ThreadCreated, ThreadPatched, create_thread, patch_thread
from slipstream_schemas.subjects import Scope, threads_stream
from testkit import permitted
from testkit.wait import until

CONFIG = Path(__file__).parents[2] / "infra" / "nats" / "cluster.conf"
PASSWORD = "secret"
READY_DEADLINE_S = 60.0
NODES = ("nats-1", "nats-2", "nats-3")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


class Cluster:
    """Three servers, by name."""

    def __init__(self, root: Path) -> None:
        ports = free_ports(9)
        routes = {f"NATS_ROUTE_{i + 1}": f"nats://127.0.0.1:{ports[3 + i]}" for i in range(3)}
        self.urls = {name: f"nats://slipstream:{PASSWORD}@127.0.0.1:{ports[i]}" for i, name in enumerate(NODES)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for i, name in enumerate(NODES):
            variables = {"NATS_NAME": name, "NATS_DATA": str(root / name), **permitted.passwords(PASSWORD)}
            ours = ["-p", str(ports[i]), "-m", str(ports[6 + i]), "--cluster", f"nats://127.0.0.1:{ports[3 + i]}"]
            with (root / f"{name}.log").open("ab") as out:
                self._processes[name] = subprocess.Popen(
                    [binary(), "-c", str(CONFIG), *ours], env=os.environ | variables | routes, stdout=out, stderr=out
                )

    def kill(self, name: str) -> None:
        """Stop one as a crash does."""
        self._processes[name].send_signal(signal.SIGKILL)
        self._processes[name].wait()

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    opened = Cluster(tmp_path)
    yield opened
    opened.stop()


@pytest.fixture
async def connection(cluster: Cluster, region: str) -> AsyncIterator[Connection]:
    """A connection to all three, with replicated streams."""
    opened = await connect(",".join(cluster.urls.values()), "test", deadline_s=READY_DEADLINE_S)

    async def provisioned() -> bool:
        try:
            await provision(opened, region, StreamSettings(replicas=3))
        except (Unavailable, Corrupt):
            return False
        return True

    await until(provisioned, READY_DEADLINE_S, "the cluster takes the streams")
    yield opened
    await opened.close()


def patch(command_id: str) -> Decision:
    return lambda state: patch_thread(state, command_id, 0, ThreadPatched())


async def leader(connection: Connection, stream: str) -> str:
    answer = await connection.api(f"STREAM.INFO.{stream}", {})
    return str(answer.get("cluster", {}).get("leader", ""))


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
        while (record := await log.next(scope, thread_id, seq + 1)) is not None:
            seq = record.stream_seq
            seqs.append(seq)
            bodies.append(record.body)
        assert seqs == acknowledged[thread_id]
        assert bodies == [b"%d" % ordinal for ordinal in range(len(bodies))]
    head = await control.head(scope, "c")
    assert head.transition is not None and head.transition.command_id == decided[-1]
