"""Threads whose log may be trimmed. The rows tell who; the control log, whether."""

from datetime import datetime, timedelta
from typing import Final

from slipstream_postgres.pool import Database

# The condition of the index `threads_to_trim`, word for word.
_TO_TRIM: Final = "(log_from IS NULL OR log_from < updated_at) AND status <> 'busy' AND updated_at < $1"
_BY_AGE: Final = f"""SELECT tenant, thread_id FROM threads WHERE {_TO_TRIM}
 AND coalesce(log_from, created_at) < $2 AND (updated_at < $2 OR coalesce(log_from, created_at) < $3)
 ORDER BY coalesce(log_from, created_at) LIMIT $4"""
_BY_SIZE: Final = f"SELECT tenant, thread_id FROM threads WHERE {_TO_TRIM} ORDER BY updated_at LIMIT $2"


async def aged(
    database: Database, quiet_since: datetime, before: datetime, step: timedelta, limit: int
) -> list[tuple[str, str]]:
    """`(tenant, thread_id)` of threads that are not in use and whose log holds something older than `before`.

    One that has changed since then is named only once it holds something older by a whole `step`. Raises: Unavailable.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(_BY_AGE, quiet_since, before, before - step, limit)
    return [(row["tenant"], row["thread_id"]) for row in rows]


async def longest_unused(database: Database, quiet_since: datetime, limit: int) -> list[tuple[str, str]]:
    """`(tenant, thread_id)` of threads that are not in use and whose log holds something. Raises: Unavailable."""
    async with database.connection() as connection:
        rows = await connection.fetch(_BY_SIZE, quiet_since, limit)
    return [(row["tenant"], row["thread_id"]) for row in rows]
