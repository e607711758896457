"""The fixtures give each test servers, streams and tables of its own."""

from pathlib import Path

import psycopg

from slipstream_nats.connection import Connection, connect
from slipstream_schemas.subjects import threads_stream
from testkit.servers import NatsServer
from testkit.stack import Stack
from testkit.wait import until


async def test_region_is_provisioned(connection: Connection, region: str) -> None:
    answer = await connection.api(f"STREAM.INFO.{threads_stream(region)}", {})
    assert answer["config"]["name"] == threads_stream(region)


def test_database_is_migrated(database_dsn: str) -> None:
    with psycopg.connect(database_dsn) as opened:
        names = {row[0] for row in opened.execute("select tablename from pg_tables where schemaname = 'public'")}
    assert {"threads", "runs", "fences"} <= names


async def test_killed_nats_returns_on_its_port(own_nats: NatsServer, tmp_path: Path) -> None:
    opened = await connect(own_nats.url, "test")
    own_nats.kill()
    await until(lambda: not opened.is_connected, what="the client notices")
    own_nats.start()
    await until(lambda: opened.is_connected, what="the client returns")
    await opened.close()


async def test_stack_is_prepared_beside_a_running_loop(stack: Stack, connection: Connection, region: str) -> None:
    assert stack.region == region
    assert stack.services == []
    assert connection.is_connected
