"""Crons: definitions, with the tick that comes next.

`next_run_date` is the one truth of which tick is due. It moves on by `advance`, which one of many wins.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from slipstream_postgres.conditions import Statement, allowed
from slipstream_postgres.pool import Database
from slipstream_postgres.rows import moment, raw
from slipstream_schemas.ids import system_assistant_id
from slipstream_schemas.metadata_filter import MetadataFilter

SORTABLE = ("cron_id", "assistant_id", "thread_id", "created_at", "updated_at", "next_run_date", "end_time")
MATCHING = """tenant=$1 AND ($2::text IS NULL OR assistant_id IN ($2, $6)) AND ($3::text IS NULL OR thread_id=$3)
 AND ($4::bool IS NULL OR enabled=$4) AND metadata @> $5"""


class CronRow(msgspec.Struct):
    """A cron. Field order is that of the wire."""

    cron_id: str
    assistant_id: str
    thread_id: str | None
    on_run_completed: str | None
    end_time: str | None
    schedule: str
    timezone: str | None
    created_at: str
    updated_at: str
    payload: msgspec.Raw
    user_id: str | None
    next_run_date: str | None
    metadata: msgspec.Raw
    enabled: bool


class CronQuery(msgspec.Struct):
    """What a search asks for. `assistant_id` may be a graph's name, which stands for its own assistant."""

    assistant_id: str | None = None
    thread_id: str | None = None
    enabled: bool | None = None
    metadata: dict[str, Any] = {}
    sort_by: str = "created_at"
    sort_order: str = "desc"
    limit: int = 10
    offset: int = 0
    allowed: MetadataFilter | None = None
    """What the caller may see."""


def _moment(value: datetime | None) -> str | None:
    return None if value is None else moment(value)


def _row(row: Any) -> CronRow:
    return CronRow(
        row["cron_id"], row["assistant_id"], row["thread_id"], row["on_run_completed"], _moment(row["end_time"]),
        row["schedule"], row["timezone"], moment(row["created_at"]), moment(row["updated_at"]), raw(row["payload"]),
        row["user_id"], _moment(row["next_run_date"]), raw(row["metadata"]), row["enabled"],
    )  # fmt: skip


def _at(shown: str | None) -> datetime | None:
    return None if shown is None else datetime.fromisoformat(shown)


def due(milliseconds: int | None) -> datetime | None:
    """A tick as a column has it."""
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)


def due_ms(row: CronRow) -> int | None:
    """The tick that comes next, in Unix milliseconds."""
    return None if row.next_run_date is None else round(datetime.fromisoformat(row.next_run_date).timestamp() * 1000)


async def add(database: Database, tenant: str, row: CronRow, next_ms: int | None, caller: bytes | None) -> bool:
    """Store a new definition; False when there is one of that id, which stays as it is. Raises: Unavailable."""
    async with database.connection() as connection:
        added = await connection.fetchrow(
            "INSERT INTO crons (tenant, cron_id, assistant_id, thread_id, on_run_completed, end_time, schedule, "
            "timezone, created_at, updated_at, payload, user_id, next_run_date, metadata, enabled, caller) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) "
            "ON CONFLICT DO NOTHING RETURNING cron_id",
            tenant, row.cron_id, row.assistant_id, row.thread_id, row.on_run_completed, _at(row.end_time), row.schedule,
            row.timezone, _at(row.created_at), _at(row.updated_at),
            bytes(row.payload), row.user_id, due(next_ms), bytes(row.metadata), row.enabled, caller,
        )  # fmt: skip
    return added is not None


async def change(database: Database, tenant: str, row: CronRow, next_ms: int | None, seen_at: str) -> bool:
    """Store what a definition has become since it was read; in whose name it acts stays.

    False when it was changed behind `seen_at`, or is gone. Raises: Unavailable.
    """
    async with database.connection() as connection:
        changed = await connection.fetchrow(
            "UPDATE crons SET on_run_completed=$3, end_time=$4, schedule=$5, timezone=$6, updated_at=$7, payload=$8, "
            "next_run_date=$9, metadata=$10, enabled=$11 WHERE tenant=$1 AND cron_id=$2 AND updated_at=$12 "
            "RETURNING cron_id",
            tenant, row.cron_id, row.on_run_completed, _at(row.end_time), row.schedule, row.timezone,
            _at(row.updated_at), bytes(row.payload), due(next_ms), bytes(row.metadata), row.enabled, _at(seen_at),
        )  # fmt: skip
    return changed is not None


async def get(database: Database, tenant: str, cron_id: str, found: MetadataFilter | None = None) -> CronRow | None:
    """One cron, if it meets the filter. Raises: Unavailable."""
    sql = Statement(tenant, cron_id)
    text = f"SELECT * FROM crons WHERE tenant=$1 AND cron_id=$2 AND {allowed(found, sql.put)}"
    async with database.connection() as connection:
        row = await connection.fetchrow(text, *sql.arguments)
    return None if row is None else _row(row)


async def caller(database: Database, tenant: str, cron_id: str) -> bytes | None:
    """In whose name a cron acts, as JSON; None for a server without auth. Raises: Unavailable."""
    async with database.connection() as connection:
        found: bytes | None = await connection.fetchval(
            "SELECT caller FROM crons WHERE tenant=$1 AND cron_id=$2", tenant, cron_id
        )
    return found


async def delete(database: Database, tenant: str, cron_id: str) -> bool:
    """Forget a cron; whether there was one. Raises: Unavailable."""
    async with database.connection() as connection:
        found = await connection.fetchrow(
            "DELETE FROM crons WHERE tenant=$1 AND cron_id=$2 RETURNING cron_id", tenant, cron_id
        )
    return found is not None


async def advance(database: Database, tenant: str, cron_id: str, fired_ms: int, next_ms: int | None) -> bool:
    """Move on from a tick that is handled; False when somebody else did. Raises: Unavailable."""
    async with database.connection() as connection:
        moved = await connection.fetchrow(
            "UPDATE crons SET next_run_date=$4 WHERE tenant=$1 AND cron_id=$2 AND next_run_date=$3 RETURNING cron_id",
            tenant, cron_id, due(fired_ms), due(next_ms),
        )  # fmt: skip
    return moved is not None


async def overdue(database: Database, late_s: float, limit: int) -> list[tuple[str, CronRow]]:
    """Tenant and row of crons whose tick did not fire, the most overdue first. Raises: Unavailable."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT * FROM crons WHERE next_run_date < now() - $1::interval ORDER BY next_run_date LIMIT $2",
            timedelta(seconds=late_s), limit,
        )  # fmt: skip
    return [(row["tenant"], _row(row)) for row in rows]


def _matching(tenant: str, query: CronQuery) -> tuple[Statement, str]:
    wanted = query.assistant_id
    of_graph = None if wanted is None else system_assistant_id(wanted)
    sql = Statement(tenant, wanted, query.thread_id, query.enabled, msgspec.json.encode(query.metadata), of_graph)
    return sql, f"{MATCHING} AND {allowed(query.allowed, sql.put)}"


async def search(database: Database, tenant: str, query: CronQuery) -> list[CronRow]:
    """Crons, ordered; one more than `limit` when there is more. Raises: Unavailable."""
    column = query.sort_by if query.sort_by in SORTABLE else "created_at"
    order = "ASC" if query.sort_order == "asc" else "DESC"
    sql, matching = _matching(tenant, query)
    page = f"LIMIT {sql.put(query.limit + 1)} OFFSET {sql.put(query.offset)}"
    statement = f"SELECT * FROM crons WHERE {matching} ORDER BY {column} {order} NULLS LAST, cron_id {page}"
    async with database.connection() as connection:
        rows = await connection.fetch(statement, *sql.arguments)
    return [_row(row) for row in rows]


async def count(database: Database, tenant: str, query: CronQuery) -> int:
    """How many crons match. Raises: Unavailable."""
    sql, matching = _matching(tenant, query)
    async with database.connection() as connection:
        row = await connection.fetchrow(f"SELECT count(*) AS total FROM crons WHERE {matching}", *sql.arguments)
    return int(row["total"])
