"""No room: a broker whose storage is used up, a Postgres without connections, read-only, or on a full disk.

A command that is refused says why and when to come again, and has changed nothing; one that is accepted is carried out.
Runs wait, streams stay open, and when there is room again all goes on, with the same processes. `docs/operations.md`
says what a broker does whose disk is full: its store is bounded below that (`max_file`), as it is here.
"""

import asyncio
import contextlib
import random
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import psycopg
import pytest

from slipstream_nats.connection import Connection, connect
from slipstream_nats.publisher import open_publisher
from slipstream_postgres.migrate import ensure_schema
from slipstream_schemas.errors import Unavailable
from testkit import permitted
from testkit.client import Client, new_thread
from testkit.load import Load, check_rows, urls_of
from testkit.servers import NatsServer, PostgresServer
from testkit.stack import Stack, prepare
from testkit.wait import until

STORE_MAX: Final = "16MB"
DISK_MAX: Final = "96m"
THREADS: Final = 3
STEPS: Final = 20
DELAY_S: Final = 0.1
AWAY_S: Final = 1.5
NOTICED_S: Final = 30.0
OVER_S: Final = 60.0
FILL: Final = "FILL"
FILL_STEPS_BYTES: Final = (1024 * 1024, 16 * 1024, 128)


class Disk(NamedTuple):
    """Where Postgres lies; `is_bounded` when it can be filled."""

    root: Path
    is_bounded: bool

    @property
    def ballast(self) -> Path:
        return self.root / "ballast"


class Site:
    """The services on a broker and a Postgres of their own, and a reader of a thread on which nothing happens."""

    def __init__(self, stack: Stack, postgres: PostgresServer, disk: Disk, filler: Connection) -> None:
        self.stack, self.postgres, self.disk, self.filler = stack, postgres, disk, filler
        self.taken: list[psycopg.Connection[Any]] = []


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """A small file system in memory where we may mount one."""
    root = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MAX},mode=777", "tmpfs", str(root)]
    is_bounded = shutil.which("mount") is not None and subprocess.run(mount, capture_output=True).returncode == 0
    yield Disk(root, is_bounded)
    if is_bounded:
        subprocess.run(["umount", "-l", str(root)], check=True)


@pytest.fixture(scope="module")
async def site(anyio_backend: object, disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    region, root = permitted.new_region(), tmp_path_factory.mktemp("limits")
    nats, postgres = NatsServer(root / "nats", STORE_MAX), PostgresServer(disk.root / "postgres")
    try:
        await ensure_schema(postgres.dsn)
        await prepare(nats.url, postgres.dsn, region)
        filler = await connect(nats.url, "filler")
        config = {"name": FILL, "subjects": ["fill"], "storage": "file", "discard": "new", "num_replicas": 1}
        await filler.api(f"STREAM.CREATE.{FILL}", config)
        with Stack(nats.url, postgres.dsn, region, root / "stack") as stack:
            await asyncio.to_thread(stack.start, slipstream_ack_wait_s="2", slipstream_sweep_s="1")
            yield Site(stack, postgres, disk, filler)
        await filler.close()
    finally:
        nats.kill()
        postgres.kill()


# What is used up, and how there is room again


async def fill_jetstream(site: Site) -> None:
    publisher = await open_publisher(site.filler)
    for size_bytes in FILL_STEPS_BYTES:
        with contextlib.suppress(Unavailable):
            while True:
                await publisher.publish("fill", bytes(size_bytes))


async def empty_jetstream(site: Site) -> None:
    await site.filler.api(f"STREAM.PURGE.{FILL}", {})


async def take_connections(site: Site) -> None:
    await asyncio.to_thread(_take_connections, site)


def _take_connections(site: Site) -> None:
    """All of them, those that the services hold included."""
    others = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE backend_type='client backend' AND NOT pid = ANY(%s)"""
    end = time.monotonic() + NOTICED_S
    while True:
        assert time.monotonic() < end, "the services still have connections"
        try:
            site.taken.append(psycopg.connect(site.postgres.dsn, autocommit=True))
        except psycopg.OperationalError:
            if not site.taken[0].execute(others, ([each.info.backend_pid for each in site.taken],)).fetchall():
                return


async def give_connections(site: Site) -> None:
    for connection in site.taken:
        connection.close()
    site.taken.clear()


async def make_read_only(site: Site) -> None:
    _set_read_only(site, "on")


async def make_writable(site: Site) -> None:
    _set_read_only(site, "off")


def _set_read_only(site: Site, value: str) -> None:
    with psycopg.connect(site.postgres.dsn, autocommit=True) as admin:
        admin.execute("SET default_transaction_read_only = off")
        admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
        admin.execute("SELECT pg_reload_conf()")


async def fill_disk(site: Site) -> None:
    if not site.disk.is_bounded:
        pytest.skip("no file system can be mounted here")
    with psycopg.connect(site.postgres.dsn, autocommit=True) as admin:
        # A Postgres that cannot make the next segment of its WAL stops, and has to be started by its operator.
        admin.execute("SELECT pg_switch_wal()")
        admin.execute("CHECKPOINT")
    with site.disk.ballast.open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))


async def empty_disk(site: Site) -> None:
    site.disk.ballast.unlink()


class Limit(NamedTuple):
    """Something that is used up. `said` is in a service's log then; with `refuses` no command can be accepted."""

    use_up: Callable[[Site], Awaitable[None]]
    make_room: Callable[[Site], Awaitable[None]]
    said: str
    refuses: bool = False


LIMITS: Final = {
    "jetstream_storage": Limit(fill_jetstream, empty_jetstream, "waits for the log", refuses=True),
    "postgres_connections": Limit(take_connections, give_connections, "too many clients"),
    "postgres_read_only": Limit(make_read_only, make_writable, "read-only transaction"),
    "postgres_disk": Limit(fill_disk, empty_disk, "No space left on device"),
}

# Commands, and what became of them


class Asked(NamedTuple):
    """A command, what was answered, and whether it has an effect."""

    what: str
    answer: httpx.Response
    happened: Callable[[Client], Awaitable[bool]]


async def ask_all(client: Client, patched: str, deleted: str) -> list[Asked]:
    """One of each kind of command."""
    made, ran, started = new_thread(), new_thread(), new_thread()
    run = {"assistant_id": "counter", "input": {"steps": 2, "delay_s": 0.01}}
    start = {"id": 1, "method": "run.start", "params": run}
    http = client.http

    async def exists(thread_id: str) -> bool:
        return bool((await http.get(f"/threads/{thread_id}")).status_code == 200)

    async def has_run(thread_id: str) -> bool:
        answer = await http.get(f"/threads/{thread_id}/runs")
        if answer.status_code == 404:
            return False
        (only,) = answer.json()
        return bool(await until(lambda: is_over(client, thread_id, only["run_id"]), OVER_S))

    async def is_patched(thread_id: str) -> bool:
        return "touched" in (await http.get(f"/threads/{thread_id}")).json()["metadata"]

    async def is_gone(thread_id: str) -> bool:
        return not await exists(thread_id)

    answers = await asyncio.gather(
        http.post("/threads", json={"thread_id": made}),
        http.post(f"/threads/{ran}/runs", json={**run, "if_not_exists": "create"}),
        http.post(f"/threads/{started}/commands", json=start),
        http.patch(f"/threads/{patched}", json={"metadata": {"touched": True}}),
        http.delete(f"/threads/{deleted}"),
    )
    names = ("create a thread", "create a run", "run.start", "patch a thread", "delete a thread")
    effects = (lambda: exists(made), lambda: has_run(ran), lambda: has_run(started), lambda: is_patched(patched),
               lambda: is_gone(deleted))  # fmt: skip
    return [
        Asked(name, answer, lambda _, effect=effect: effect())  # type: ignore[misc]
        for name, answer, effect in zip(names, answers, effects, strict=True)
    ]


async def is_over(client: Client, thread_id: str, run_id: str) -> bool:
    answer = await client.http.get(f"/threads/{thread_id}/runs/{run_id}")
    return answer.status_code == 200 and answer.json()["status"] == "success"


def is_refused(asked: Asked) -> bool:
    """Whether it was refused as it should be. Raises: AssertionError for any other answer than that and success."""
    answer = asked.answer
    if answer.status_code != 503:
        assert answer.is_success, f"{asked.what}: {answer.status_code} {answer.text}"
        return False
    assert int(answer.headers["retry-after"]) > 0
    assert len(answer.json()["detail"]) > 10
    return True


@pytest.mark.parametrize("name", LIMITS)
async def test_what_is_refused_changes_nothing_and_all_goes_on_when_there_is_room(site: Site, name: str) -> None:
    limit, stack = LIMITS[name], site.stack
    offsets, processes = stack.log_offsets(), [service.pid for service in stack.services if service.is_alive]
    load = Load(urls_of(stack), random.Random(name), threads=THREADS, steps=STEPS, delay_s=DELAY_S)
    async with Client(stack.url) as client:
        client.http.timeout = httpx.Timeout(OVER_S)
        idle = [new_thread(), new_thread()]
        for thread_id in idle:
            (await client.http.post("/threads", json={"thread_id": thread_id})).raise_for_status()
        try:
            await load.begin()
            await limit.use_up(site)
            begun = time.monotonic()
            try:
                asked = await ask_all(client, *idle)
                took_s = time.monotonic() - begun
                await until(lambda: limit.said in stack.logs(offsets), NOTICED_S, limit.said)
                await until(lambda: time.monotonic() - begun > AWAY_S, NOTICED_S)
            finally:
                await limit.make_room(site)
            room = time.monotonic()
            refused = [each for each in asked if is_refused(each)]
            await load.finish()
            ended_s = time.monotonic() - room
            for each in asked:
                if each in refused:
                    assert not await each.happened(client), f"{each.what} was refused and happened"
                else:
                    await until(lambda each=each: each.happened(client), OVER_S, f"{each.what} was accepted")  # type: ignore[misc]
            assert len(refused) == len(asked) or not limit.refuses
            assert [thread.resumes for thread in load.threads] == [1] * THREADS, "a stream was broken"
            assert [service.pid for service in stack.services if service.is_alive] == processes
        except BaseException:
            print(stack.logs(offsets))
            raise
        finally:
            await load.stop()
    for each in refused:
        print(f"{name}: {each.what} is refused: {each.answer.json()['detail']}", flush=True)
    attempts = max(thread.attempts for thread in load.threads)
    print(f"{name}: {len(refused)} of {len(asked)} commands refused, answered in {took_s:.1f} s; all runs ended "
          f"{ended_s:.1f} s after there was room, at most {attempts} attempts", flush=True)  # fmt: skip


async def test_the_rows_are_what_the_log_says_after_all_of_that(site: Site) -> None:
    await check_rows(site.stack)
