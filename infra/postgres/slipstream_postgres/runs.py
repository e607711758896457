"""Queries on runs."""

from collections.abc import Sequence
from datetime import timedelta

from slipstream_postgres.conditions import Statement, allowed
from slipstream_postgres.pool import Database
from slipstream_postgres.rows import RunPlace, RunRow, raw, run_row
from slipstream_schemas.metadata_filter import MetadataFilter


async def get(database: Database, tenant: str, run_id: str) -> RunRow | None:
    """One run. Raises: Unavailable."""
    async with database.connection() as connection:
        row = await connection.fetchrow("SELECT * FROM runs WHERE tenant=$1 AND run_id=$2", tenant, run_id)
    return None if row is None else run_row(row)


async def place(database: Database, tenant: str, run_id: str) -> RunPlace | None:
    """Where one run lies. Raises: Unavailable."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT run_id, thread_id, status, log_seq, attempt, error FROM runs WHERE tenant=$1 AND run_id=$2",
            tenant, run_id,
        )  # fmt: skip
    if row is None:
        return None
    return RunPlace(row["run_id"], row["thread_id"], row["status"], row["log_seq"], row["attempt"], raw(row["error"]))


async def of_thread(
    database: Database, tenant: str, thread_id: str, *, status: str | None = None, limit: int = 10, offset: int = 0
) -> list[RunRow]:
    """A thread's runs, newest first. Raises: Unavailable."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT * FROM runs WHERE tenant=$1 AND thread_id=$2 AND ($3::text IS NULL OR status=$3) "
            "ORDER BY created_at DESC, run_id DESC LIMIT $4 OFFSET $5",
            tenant, thread_id, status, limit, offset,
        )  # fmt: skip
    return [run_row(row) for row in rows]


async def of_status(
    database: Database, tenant: str, statuses: Sequence[str], limit: int, found: MetadataFilter | None = None
) -> list[tuple[str, str]]:
    """`(thread_id, run_id)` of runs with one of the statuses, oldest first, on threads that meet the filter.

    Raises: Unavailable.
    """
    sql = Statement(tenant, list(statuses), limit)
    met = allowed(found, sql.put)
    thread = f"EXISTS (SELECT 1 FROM threads t WHERE t.tenant=r.tenant AND t.thread_id=r.thread_id AND {met})"
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT thread_id, run_id FROM runs r WHERE tenant=$1 AND status=ANY($2) AND {thread} "
            "ORDER BY created_at, run_id LIMIT $3",
            *sql.arguments,
        )
    return [(row["thread_id"], row["run_id"]) for row in rows]


async def count_unfinished(database: Database) -> dict[str, int]:
    """How many runs wait and how many run, from the index of the unfinished ones alone. Raises: Unavailable."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT status, count(*) AS runs FROM runs WHERE status IN ('pending', 'running') GROUP BY status"
        )
    return {"pending": 0, "running": 0, **{row["status"]: row["runs"] for row in rows}}


async def count_quarantined(database: Database) -> int:
    """How many control records could not be applied. Raises: Unavailable."""
    async with database.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM quarantine"))


async def unfinished(database: Database, older_than_s: float, limit: int = 100) -> list[tuple[str, str, str]]:
    """`(tenant, thread_id, run_id)` of runs that wait or run and have not changed for a while. Raises: Unavailable."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT tenant, thread_id, run_id FROM runs WHERE status IN ('pending', 'running') "
            "AND updated_at < now() - $1::interval ORDER BY updated_at LIMIT $2",
            timedelta(seconds=older_than_s), limit,
        )  # fmt: skip
    return [(row["tenant"], row["thread_id"], row["run_id"]) for row in rows]
