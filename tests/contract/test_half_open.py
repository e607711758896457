"""Connections that are dead and do not say so: each is noticed by itself, and replaced.

How long it takes is what the limits say, which is long for a test: so all of them wait at once. `-s` prints the times.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import asyncpg
import psycopg
import pytest

from slipstream_nats.connection import Connection, connect
from slipstream_nats.inbox import Message
from slipstream_nats.publisher import Publisher, open_publisher
from slipstream_nats.pull import open_pull
from slipstream_nats.workqueue import WorkPuller, WorkQueue
from slipstream_postgres.pool import Database, open_database
from slipstream_runner.checkpoints import open_pool
from slipstream_schemas.errors import SlipstreamError, Unavailable
from slipstream_schemas.subjects import Scope, family, thread_log, threads_stream
from testkit.proxy import Proxy
from testkit.servers import NatsServer
from testkit.wait import until

DEADLINE_S: Final = 60.0


async def answers(connection: Connection) -> bool:
    """Whether the broker answers on the connection."""
    try:
        return "error" not in await connection.api("INFO", {}, 0.5)
    except SlipstreamError:
        return False


async def all_answer(query: Callable[[], Awaitable[Any]], error: type[Exception], count: int) -> bool:
    """Whether so many queries at once, each on a connection of its own, are answered."""
    found = await asyncio.gather(*(query() for _ in range(count)), return_exceptions=True)
    assert not any(isinstance(each, BaseException) and not isinstance(each, error) for each in found), found
    return not any(isinstance(each, error) for each in found)


async def timed(what: str, scenario: Awaitable[None]) -> None:
    """Print how long it took, for who measures."""
    begun = time.monotonic()
    await scenario
    print(f"{what}: {time.monotonic() - begun:.1f} s")


async def half_open(url: str, *, to_server: bool, to_client: bool) -> None:
    """The link of a client that does nothing."""
    async with Proxy(url) as proxy:
        connection = await connect(proxy.url, "half-open")
        proxy.swallow(to_server=to_server, to_client=to_client, new_too=False)
        await until(lambda: answers(connection), DEADLINE_S)
        await connection.close()


async def stalled(url: str) -> None:
    """A link that takes nothing, with much unsent: closing it would wait until that is taken."""
    async with Proxy(url) as proxy:
        connection = await connect(proxy.url, "stalled")
        proxy.stall()
        for _ in range(12):
            await connection.publish("nobody.listens", bytes(1024 * 1024))
        await until(lambda: answers(connection), DEADLINE_S)
        await connection.close()


async def waiting_pull(url: str, publisher: Publisher, scope: Scope) -> None:
    """A pull that waits at the broker, as streams, cancels and the projector have."""
    async with Proxy(url) as proxy:
        reader = await connect(proxy.url, "reader")
        taken: list[Message] = []
        async with open_pull(reader, threads_stream(scope.region), family("threads", scope.region), "new") as pull:
            await until(lambda: pull.parked > 0)
            proxy.swallow(new_too=False)
            for count in range(3):
                await publisher.publish(thread_log(scope, f"t{count}"), b"{}")
            async with asyncio.timeout(DEADLINE_S):
                while len(taken) < 3:
                    taken += await anext(pull)
        assert [message.subject for message in taken] == [thread_log(scope, f"t{count}") for count in range(3)]
        await reader.close()


async def waiting_for_work(url: str, queue: WorkQueue, scope: Scope) -> None:
    """A runner that waits for work."""
    async with Proxy(url) as proxy:
        taker = await connect(proxy.url, "taker")
        puller = WorkPuller(taker, scope.region)
        await puller.open()
        assert await puller.pull(4) == []
        proxy.swallow(new_too=False)

        async def asks_anew() -> bool:
            assert await puller.pull(4) == []
            return proxy.links_made > 1

        await until(asks_anew, DEADLINE_S)
        await queue.put(scope, "t", "r")
        (item,) = await until(lambda: puller.pull(4), DEADLINE_S)
        assert item.run_id == "r"
        await item.ack()
        await puller.close()
        await taker.close()


async def test_half_open_links_to_the_broker_are_noticed_also_by_what_waits(
    nats_server: NatsServer, connection: Connection, scope: Scope
) -> None:
    url, publisher = nats_server.url, await open_publisher(connection)
    queue = WorkQueue(publisher, scope.region)
    await asyncio.gather(
        timed("both directions lost", half_open(url, to_server=True, to_client=True)),
        timed("what is sent lost", half_open(url, to_server=True, to_client=False)),
        timed("what is received lost", half_open(url, to_server=False, to_client=True)),
        timed("12 MB unsent", stalled(url)),
        timed("a pull that waits", waiting_pull(url, publisher, scope)),
        timed("a runner that waits for work", waiting_for_work(url, queue, scope)),
    )


async def in_pool(dsn: str) -> None:
    """All connections of a pool, one in a transaction."""
    async with Proxy(dsn) as proxy:
        database = await open_database(proxy.url, 4)

        async def query() -> None:
            async with database.connection() as connection:
                await connection.fetchval("SELECT pg_sleep(0.05)")

        answer = partial(all_answer, query, Unavailable, 4)
        assert await answer()
        with pytest.raises(Unavailable):
            await _in_transaction(database, proxy)
        await until(answer, DEADLINE_S)
        # The server hears no more of the dead session than we do, and must not keep its locks for it.
        await until(lambda: _is_free(database), DEADLINE_S)
        await database.close()


async def _is_free(database: Database) -> bool:
    async with database.connection() as connection, connection.transaction():
        return bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock(1)"))


async def _in_transaction(database: Database, proxy: Proxy) -> None:
    async with database.connection() as connection, connection.transaction():
        await connection.fetchval("SELECT pg_advisory_xact_lock(1)")
        proxy.swallow(new_too=False)
        await connection.fetchval("SELECT 2")


async def for_checkpoints(dsn: str) -> None:
    """All connections of the pool for checkpoints."""
    async with Proxy(dsn) as proxy:
        pool = await open_pool(proxy.url, 4)

        async def query() -> None:
            async with pool.connection() as connection:
                await connection.execute("SELECT pg_sleep(0.05)")

        answer = partial(all_answer, query, psycopg.Error, 4)
        assert await answer()
        proxy.swallow(new_too=False)
        await until(answer, DEADLINE_S)
        await pool.close()


async def test_half_open_connections_to_postgres_are_replaced(database_dsn: str) -> None:
    await asyncio.gather(
        timed("pool of rows", in_pool(database_dsn)), timed("pool of checkpoints", for_checkpoints(database_dsn))
    )


def _is_gone(connection: Any) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True


async def test_a_cancel_amid_a_transaction_whose_connection_is_gone_stays_a_cancel(database_dsn: str) -> None:
    database, held = await open_database(database_dsn, 2), asyncio.Queue[Any]()

    async def transacts() -> None:
        async with database.connection() as connection, connection.transaction():
            held.put_nowait((connection, await connection.fetchval("SELECT pg_backend_pid()")))
            await asyncio.Event().wait()

    task = asyncio.create_task(transacts())
    connection, backend = await held.get()
    async with database.connection() as other:
        assert await other.fetchval("SELECT pg_terminate_backend($1)", backend)
    await until(lambda: _is_gone(connection))
    # A loop that logs `Unavailable` and goes on would outlive its cancel, and its service would never end.
    task.cancel()
    await asyncio.wait([task], timeout=DEADLINE_S)
    assert task.cancelled(), task
    await database.close()
