"""How far a projection has come."""

from slipstream_postgres.pool import Database


async def get(database: Database, name: str) -> int:
    """The last stream_seq applied, 0 for none. Raises: Unavailable."""
    async with database.connection() as connection:
        return int(await connection.fetchval("SELECT stream_seq FROM positions WHERE name=$1", name) or 0)
