"""Deletions of threads that have begun and not ended: a fold of the control log."""

from datetime import timedelta

from slipstream_postgres.pool import Database


async def unfinished(database: Database, older_than_s: float, limit: int) -> list[tuple[str, str]]:
    """`(tenant, thread_id)` of deletions that began so long ago, the oldest first. Raises: Unavailable."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT tenant, thread_id FROM erasures WHERE at < now() - $1::interval ORDER BY at LIMIT $2",
            timedelta(seconds=older_than_s), limit,
        )  # fmt: skip
    return [(row["tenant"], row["thread_id"]) for row in rows]
