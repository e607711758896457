"""Threads that go by themselves: those of stateless runs and of crons, some time after their run, and those with a ttl.
A ttl may also take the older checkpoints of a thread alone, each time that it has not changed for so long.

Plain rows, written before the thread is made: a thread whose row is lost would stay for ever.
"""

from datetime import timedelta
from typing import Final

import msgspec

from slipstream_postgres.pool import Database
from slipstream_postgres.rows import moment

_RUN_IS_OVER: Final = """SELECT c.tenant, c.thread_id FROM temporary_threads c JOIN runs r USING (tenant, run_id)
 WHERE r.status NOT IN ('pending', 'running') AND r.updated_at < now() - make_interval(secs => c.kept_s)"""
_TTL_IS_OVER: Final = """SELECT c.tenant, c.thread_id FROM temporary_threads c JOIN threads t USING (tenant, thread_id)
 WHERE t.status <> 'busy'
 AND greatest(t.updated_at, c.created_at) < now() - make_interval(secs => c.ttl_minutes * 60)"""


async def remember(database: Database, tenant: str, thread_id: str, run_id: str, kept_s: float = 0) -> None:
    """Let a thread be deleted `kept_s` after its run is over. Raises: Unavailable."""
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO temporary_threads (tenant, thread_id, run_id, kept_s) VALUES ($1, $2, $3, $4) "
            "ON CONFLICT DO NOTHING",
            tenant, thread_id, run_id, kept_s,
        )  # fmt: skip


async def limit_life(
    database: Database, tenant: str, thread_id: str, ttl_minutes: float, *, keeps_latest: bool
) -> None:
    """Let a thread, or all of its checkpoints but the newest, be deleted when it has not changed for so long.

    Raises: Unavailable.
    """
    wholly, partly = (None, ttl_minutes) if keeps_latest else (ttl_minutes, None)
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO temporary_threads (tenant, thread_id, ttl_minutes, prune_minutes) VALUES ($1, $2, $3, $4) "
            "ON CONFLICT (tenant, thread_id) DO UPDATE SET ttl_minutes=excluded.ttl_minutes, "
            "prune_minutes=excluded.prune_minutes",
            tenant, thread_id, wholly, partly,
        )  # fmt: skip


class ThreadTtl(msgspec.Struct):
    """What a thread's ttl comes to, as the wire has it."""

    strategy: str
    ttl_minutes: float
    expires_at: str


async def ttl_of(database: Database, tenant: str, thread_id: str) -> ThreadTtl | None:
    """How long a thread, or its older checkpoints, stay unless it changes; None for ever. Raises: Unavailable."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT minutes, ttl_minutes IS NULL AS keeps_latest, "
            "greatest(t.updated_at, c.created_at) + make_interval(secs => minutes * 60) AS expires_at "
            "FROM temporary_threads c JOIN threads t USING (tenant, thread_id), "
            "coalesce(ttl_minutes, prune_minutes) AS minutes "
            "WHERE tenant=$1 AND thread_id=$2 AND minutes IS NOT NULL",
            tenant, thread_id,
        )  # fmt: skip
    if row is None:
        return None
    return ThreadTtl("keep_latest" if row["keeps_latest"] else "delete", row["minutes"], moment(row["expires_at"]))


async def due(database: Database, limit: int) -> list[tuple[str, str]]:
    """`(tenant, thread_id)` of threads to delete now: their run has been over for long enough, or their time is up.

    Raises: Unavailable.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(f"{_RUN_IS_OVER} UNION {_TTL_IS_OVER} LIMIT $1", limit)
    return [(row["tenant"], row["thread_id"]) for row in rows]


async def is_due(database: Database, tenant: str, thread_id: str) -> bool:
    """Whether the thread is still to be deleted now. Raises: Unavailable."""
    this = "AND c.tenant=$1 AND c.thread_id=$2"
    async with database.connection() as connection:
        row = await connection.fetchrow(f"{_RUN_IS_OVER} {this} UNION {_TTL_IS_OVER} {this}", tenant, thread_id)
    return row is not None


async def to_prune(database: Database, limit: int) -> list[tuple[str, str]]:
    """`(tenant, thread_id)` of threads that have not changed for their ttl and keep their newest checkpoint then.

    A thread that has not changed since it was pruned is not among them. Raises: Unavailable.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT c.tenant, c.thread_id FROM temporary_threads c JOIN threads t USING (tenant, thread_id) "
            "WHERE t.status <> 'busy' AND (c.pruned_at IS NULL OR c.pruned_at < t.updated_at) "
            "AND greatest(t.updated_at, c.created_at) < now() - make_interval(secs => c.prune_minutes * 60) LIMIT $1",
            limit,
        )  # fmt: skip
    return [(row["tenant"], row["thread_id"]) for row in rows]


async def pruned(database: Database, tenant: str, thread_id: str, *, done: bool) -> None:
    """The thread was pruned; or, when it was not, is to be after its ttl once more. Raises: Unavailable."""
    column = "pruned_at" if done else "created_at"
    async with database.connection() as connection:
        await connection.execute(
            f"UPDATE temporary_threads SET {column}=now() WHERE tenant=$1 AND thread_id=$2", tenant, thread_id
        )


async def gone(database: Database, older_than_s: float, limit: int) -> list[tuple[str, str]]:
    """`(tenant, thread_id)` of rows whose thread does not exist, or not any more. Raises: Unavailable."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT c.tenant, c.thread_id FROM temporary_threads c LEFT JOIN threads t USING (tenant, thread_id) "
            "WHERE t.thread_id IS NULL AND c.created_at < now() - $1::interval LIMIT $2",
            timedelta(seconds=older_than_s), limit,
        )  # fmt: skip
    return [(row["tenant"], row["thread_id"]) for row in rows]


async def forget(database: Database, tenant: str, thread_id: str) -> None:
    """The thread is deleted. Raises: Unavailable."""
    async with database.connection() as connection:
        await connection.execute("DELETE FROM temporary_threads WHERE tenant=$1 AND thread_id=$2", tenant, thread_id)
