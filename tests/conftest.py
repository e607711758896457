"""Fixtures for every layer: one NATS and one Postgres for a pytest worker, a fresh region and database for each test.

Async tests and fixtures run through AnyIO's plugin in auto mode, on one event loop for the session.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from slipstream_nats.connection import Connection, connect
from slipstream_postgres.embedded import start_postgres
from slipstream_postgres.migrate import ensure_schema
from slipstream_schemas.subjects import Scope
from testkit import permitted
from testkit.cluster import READY_DEADLINE_S, Cluster, fitting, provisioned
from testkit.servers import TEMPLATE, NatsServer, PostgresServer, create_database, fresh_database
from testkit.stack import Stack

CANCELS_MAX = 5
FAILED = pytest.StashKey[bool]()
GRAPHS = Path(__file__).parent / "testkit" / "graphs" / "langgraph.json"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember a failure, so that fixtures can print the logs of the processes that they started."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The event loop of production."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session", autouse=True)
async def no_task_outlives_the_session(anyio_backend: object) -> AsyncIterator[None]:
    """The stock SDK's readers wait for a full queue when they are cancelled: once is not enough, and the loop hangs."""
    yield
    for _ in range(CANCELS_MAX):
        left = [task for task in asyncio.all_tasks() if "anyio" not in _file_of(task)]
        if not left:
            break
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=1)


def _file_of(task: "asyncio.Task[Any]") -> str:
    coroutine: Any = task.get_coro()
    return str(coroutine.cr_code.co_filename) if hasattr(coroutine, "cr_code") else ""


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer | Cluster]:
    """The session's NATS: one server, or three with `TEST_NATS=cluster`.

    Tests that kill or stop a server take `own_nats`.
    """
    kind = Cluster if os.environ.get("TEST_NATS") == "cluster" else NatsServer
    server = kind(tmp_path_factory.mktemp("nats"))
    yield server
    server.stop()


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A NATS that this test may kill, pause and restart."""
    server = NatsServer(tmp_path / "nats")
    yield server
    server.kill()


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    """A Postgres that this test may kill, pause and restart, with migrated tables."""
    server = PostgresServer(tmp_path / "postgres")
    asyncio.run(ensure_schema(server.dsn))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def postgres_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The session's Postgres with a migrated template database. Without fsync: what tests write may be lost."""
    server = start_postgres(tmp_path_factory.mktemp("postgres"), 0, fsync=False)
    asyncio.run(ensure_schema(create_database(server.dsn, TEMPLATE)))
    yield server.dsn
    server.stop()


@pytest.fixture
def database_dsn(postgres_dsn: str) -> Iterator[str]:
    """A database of this test's own, at the newest migration."""
    with fresh_database(postgres_dsn) as dsn:
        yield dsn


@pytest.fixture
def region() -> str:
    """A region token that no other test uses: it names the streams."""
    return permitted.new_region()


@pytest.fixture
def scope(region: str) -> Scope:
    """The test's region with the default tenant."""
    return Scope(region=region)


@pytest.fixture
async def connection(nats_server: NatsServer, region: str) -> AsyncIterator[Connection]:
    """A connection to the session's NATS, with the region's streams provisioned."""
    opened = await connect(nats_server.url, "test", READY_DEADLINE_S)
    await provisioned(opened, region, fitting(nats_server.url))
    yield opened
    await opened.close()


@pytest.fixture
def stack(
    request: pytest.FixtureRequest, nats_server: NatsServer, database_dsn: str, region: str, tmp_path: Path
) -> Iterator[Stack]:
    """A prepared region and database without processes: the test starts, kills and adds them."""
    with Stack(nats_server.url, database_dsn, region, tmp_path / "stack") as opened:
        opened.prepare()
        yield opened
        _print_logs(request, opened)
        assert not opened.refusals()


@pytest.fixture
def own_stack(
    request: pytest.FixtureRequest, own_nats: NatsServer, database_dsn: str, region: str, tmp_path: Path
) -> Iterator[Stack]:
    """As `stack`, on the NATS that this test may kill (`own_nats`)."""
    with Stack(own_nats.url, database_dsn, region, tmp_path / "stack") as opened:
        opened.prepare()
        yield opened
        _print_logs(request, opened)
        assert not opened.refusals()


@pytest.fixture(scope="session")
def session_stack(
    nats_server: NatsServer, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """One running API, runner and projector on the example and test graphs, for all tests that harm none of them."""
    region = permitted.new_region()
    root = tmp_path_factory.mktemp("session-stack")
    with fresh_database(postgres_dsn) as dsn, Stack(nats_server.url, dsn, region, root, GRAPHS) as opened:
        opened.prepare()
        yield opened.start_shared()
        assert not opened.refusals()


@pytest.fixture
def live(request: pytest.FixtureRequest, session_stack: Stack) -> Iterator[Stack]:
    """The session's running stack; when the test fails, what its processes logged meanwhile is printed."""
    offsets = session_stack.log_offsets()
    yield session_stack
    _print_logs(request, session_stack, offsets)


def _print_logs(request: pytest.FixtureRequest, stack: Stack, offsets: dict[str, int] | None = None) -> None:
    if request.node.stash.get(FAILED, False):
        print(stack.logs(offsets))
