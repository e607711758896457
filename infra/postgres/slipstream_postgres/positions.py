"""How far a projection has come, and other readers of the log that remember it here."""

import contextlib
from collections.abc import AsyncIterator

import msgspec

from slipstream_postgres.pool import Database


class Claim(msgspec.Struct):
    """A position that nobody else moves meanwhile; what it is set to is kept."""

    stream_seq: int


async def get(database: Database, name: str) -> int:
    """The last stream_seq applied, 0 for none. Raises: Unavailable."""
    async with database.connection() as connection:
        return int(await connection.fetchval("SELECT stream_seq FROM positions WHERE name=$1", name) or 0)


@contextlib.asynccontextmanager
async def claimed(database: Database, name: str) -> AsyncIterator[Claim | None]:
    """The position for one of many processes, None for the others; a new one begins at 0. Raises: Unavailable."""
    async with database.connection() as connection:
        await connection.execute("INSERT INTO positions VALUES ($1, 0) ON CONFLICT DO NOTHING", name)
        async with connection.transaction():
            text = "SELECT stream_seq FROM positions WHERE name=$1 FOR UPDATE SKIP LOCKED"
            found = await connection.fetchval(text, name)
            claim = None if found is None else Claim(int(found))
            yield claim
            if claim is not None and claim.stream_seq != found:
                await connection.execute("UPDATE positions SET stream_seq=$2 WHERE name=$1", name, claim.stream_seq)
