"""Connections: a pool whose JSON columns are bytes, and errors that say `Unavailable`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from slipstream_postgres.refusals import is_outage
from slipstream_schemas.errors import Unreachable
from slipstream_schemas.limits import DATABASE_DEADLINE_S

JSONB_VERSION = b"\x01"


async def _as_bytes(connection: Any) -> None:
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

    async def open(self) -> None:
        """Connect. Raises: Unavailable."""
        try:
            async with asyncio.timeout(DATABASE_DEADLINE_S):
                self._pool = await asyncpg.create_pool(
                    self.dsn, min_size=1, max_size=self._size, init=_as_bytes, command_timeout=DATABASE_DEADLINE_S
                )
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Unreachable(f"Postgres does not answer: {error}") from error

    async def close(self) -> None:
        """Close every connection, or drop them when they do not end."""
        if self._pool is not None:
            try:
                async with asyncio.timeout(DATABASE_DEADLINE_S):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """A connection for a short while. Raises: Unavailable for every failure of the database."""
        if self._pool is None:
            raise Unreachable("the database is not open")
        try:
            async with self._pool.acquire(timeout=DATABASE_DEADLINE_S) as connection:
                yield connection
        except (OSError, TimeoutError, asyncpg.InterfaceError) as error:
            raise Unreachable(f"Postgres does not answer: {error}") from error
        except asyncpg.PostgresError as error:
            if is_outage(error):
                raise Unreachable(f"Postgres is not available: {error}") from error
            raise


async def open_database(dsn: str, size: int = 4) -> Database:
    """A pool that is ready. Raises: Unavailable."""
    database = Database(dsn, size)
    await database.open()
    return database
