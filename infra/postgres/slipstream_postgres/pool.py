"""Connections: a pool whose JSON columns are bytes, and errors that say `Unavailable`.

A connection may be dead without a word: its server was replaced, or something between forgets it. The driver's own
deadline then asks the server to cancel, and waits for the answer on the dead connection, once for the statement and
once for its rollback. So whoever holds a connection for too long loses it, and the pool replaces all that are idle.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from slipstream_postgres.refusals import is_outage
from slipstream_schemas.errors import Unreachable
from slipstream_schemas.limits import DATABASE_DEADLINE_S, PEER_SILENCE_S

log = logging.getLogger("slipstream.postgres")

JSONB_VERSION = b"\x01"
KEEPALIVE_S = 5
KEEPALIVE_PAUSE_S = 1
KEEPALIVES_MAX = 3
SESSION = {
    "tcp_keepalives_idle": str(KEEPALIVE_S),
    "tcp_keepalives_interval": str(KEEPALIVE_PAUSE_S),
    "tcp_keepalives_count": str(KEEPALIVES_MAX),
    "tcp_user_timeout": str(1000 * PEER_SILENCE_S),
    "idle_in_transaction_session_timeout": f"{PEER_SILENCE_S}s",
}
"""The server, too, must notice that we are gone: it holds our locks until then. Given with the connection, since the
pool resets what is set later."""

DRIVER_FAILURES = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver raises for a connection that is gone: the last when its server ends it just as it is used."""


def _cancels() -> int:
    """How many cancels of this task nobody has answered yet."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def keep_alive(found: socket.socket) -> None:
    """Let the kernel notice a peer that is gone, where it can."""
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", KEEPALIVE_S), ("TCP_KEEPINTVL", KEEPALIVE_PAUSE_S),
                        ("TCP_KEEPCNT", KEEPALIVES_MAX), ("TCP_USER_TIMEOUT", 1000 * PEER_SILENCE_S)):  # fmt: skip
        if hasattr(socket, name):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _prepare(connection: Any) -> None:
    found = connection._transport.get_extra_info("socket")
    if found is not None and found.family != getattr(socket, "AF_UNIX", None):
        keep_alive(found)
    # JSON goes from the log to the row and from the row to the client without being decoded.
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", format="binary",
        encoder=lambda value: JSONB_VERSION + value, decoder=lambda value: bytes(value[1:]),
    )  # fmt: skip


class Database:
    """A pool of connections to Postgres."""

    def __init__(self, dsn: str, size: int = 4) -> None:
        self.dsn = dsn
        self._size = size
        self._pool: asyncpg.Pool | None = None
        self._replacing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Connect. Raises: Unavailable."""
        try:
            async with asyncio.timeout(DATABASE_DEADLINE_S):
                self._pool = await asyncpg.create_pool(
                    self.dsn, min_size=1, max_size=self._size, init=_prepare, command_timeout=DATABASE_DEADLINE_S,
                    server_settings=SESSION,
                )  # fmt: skip
        except (*DRIVER_FAILURES, asyncpg.PostgresError) as error:
            raise Unreachable(f"Postgres does not answer: {error or type(error).__name__}") from error

    async def close(self) -> None:
        """Close every connection, or drop them when they do not end."""
        if self._pool is not None:
            try:
                async with asyncio.timeout(DATABASE_DEADLINE_S):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()

    @contextlib.asynccontextmanager
    async def connection(self, deadline_s: float | None = DATABASE_DEADLINE_S) -> AsyncIterator[Any]:
        """A connection, which ends after `deadline_s`; None for one that is held for long.

        Raises: Unavailable for every failure of the database.
        """
        if self._pool is None:
            raise Unreachable("the database is not open")
        pool, ending = self._pool, contextlib.ExitStack()
        cancels = _cancels()
        try:
            async with pool.acquire(timeout=DATABASE_DEADLINE_S) as connection:
                if deadline_s is not None:
                    timer = asyncio.get_running_loop().call_later(deadline_s, self._give_up, pool, connection)
                    ending.callback(timer.cancel)
                with ending:
                    yield connection
        except DRIVER_FAILURES as error:
            # A transaction that is cancelled on a dead connection raises that it is dead, in place of the cancel.
            if _cancels() > cancels:
                raise asyncio.CancelledError from error
            raise Unreachable(f"Postgres does not answer: {error or type(error).__name__}") from error
        except asyncpg.PostgresError as error:
            if is_outage(error):
                raise Unreachable(f"Postgres is not available: {error or type(error).__name__}") from error
            raise

    def _give_up(self, pool: Any, connection: Any) -> None:
        log.warning("Postgres has not answered for %.0f s; all connections are replaced", DATABASE_DEADLINE_S)
        drop(connection)
        # What is dead with this one would cost its next user as long.
        task = asyncio.get_running_loop().create_task(pool.expire_connections())
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)


def drop(connection: Any) -> None:
    """End a connection of a pool without a word to its server; nothing happens to one that the pool has let go."""
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()


async def open_database(dsn: str, size: int = 4) -> Database:
    """A pool that is ready. Raises: Unavailable."""
    database = Database(dsn, size)
    await database.open()
    return database
