"""Queries on threads."""

from typing import Any

import msgspec

from slipstream_postgres.conditions import Statement, allowed
from slipstream_postgres.pool import Database
from slipstream_postgres.rows import ThreadRow, moment, raw, thread_row
from slipstream_schemas.limits import SEARCH_TOTAL_MAX
from slipstream_schemas.metadata_filter import MetadataFilter

SORTABLE = ("thread_id", "status", "created_at", "updated_at", "state_updated_at")
COLUMNS = ThreadRow.__struct_fields__
JSON_COLUMNS = ("metadata", "config", "values", "error", "interrupts")
TIMES = ("created_at", "updated_at", "state_updated_at")


class Path(msgspec.Struct):
    """A place in one of `JSON_COLUMNS`: keys, and numbers of list items as text, `-1` for the last."""

    column: str
    keys: list[str]


class ThreadQuery(msgspec.Struct):
    """What a search asks for. `metadata` and `values` are matched by containment; a column that is not in `select`
    does not leave Postgres. `allowed` is what the caller may see.
    """

    metadata: dict[str, Any] | None = None
    values: dict[str, Any] | None = None
    status: str | None = None
    ids: list[str] | None = None
    limit: int = 10
    offset: int = 0
    sort_by: str = "created_at"
    sort_order: str = "desc"
    select: tuple[str, ...] = COLUMNS
    extract: dict[str, Path] = {}
    allowed: MetadataFilter | None = None


class _Statement(Statement):
    """A statement on threads."""

    def where(self, tenant: str, query: ThreadQuery) -> str:
        """The condition that a thread must meet."""
        terms = [f"tenant={self.put(tenant)}"]
        for column, wanted in (("metadata", query.metadata), ("values", query.values)):
            if wanted:
                terms.append(f'"{column}" @> {self.put(msgspec.json.encode(wanted))}')
        if query.status:
            terms.append(f"status={self.put(query.status)}")
        if query.ids is not None:
            terms.append(f"thread_id = ANY({self.put(query.ids)}::text[])")
        if query.allowed is not None:
            terms.append(allowed(query.allowed, self.put))
        return " AND ".join(terms)


async def get(database: Database, tenant: str, thread_id: str) -> ThreadRow | None:
    """One thread. Raises: Unavailable."""
    async with database.connection() as connection:
        row = await connection.fetchrow("SELECT * FROM threads WHERE tenant=$1 AND thread_id=$2", tenant, thread_id)
    return None if row is None else thread_row(row)


async def matches(database: Database, tenant: str, thread_id: str, found: MetadataFilter) -> bool:
    """Whether there is such a thread and its metadata meet a filter. Raises: Unavailable."""
    sql = _Statement()
    known = f"tenant={sql.put(tenant)} AND thread_id={sql.put(thread_id)}"
    text = f"SELECT 1 FROM threads WHERE {known} AND {allowed(found, sql.put)}"
    async with database.connection() as connection:
        return await connection.fetchval(text, *sql.arguments) is not None


def search_statement(tenant: str, query: ThreadQuery) -> tuple[str, list[object]]:
    """The SQL of a search and its arguments."""
    sql = _Statement()
    columns = [f'"{name}"' for name in query.select]
    for number, path in enumerate(query.extract.values()):
        assert path.column in JSON_COLUMNS
        columns.append(f'"{path.column}" #> {sql.put(path.keys)}::text[] AS extracted_{number}')
    order = query.sort_by if query.sort_by in SORTABLE else "created_at"
    direction = "ASC" if query.sort_order == "asc" else "DESC"
    text = (
        f"SELECT {', '.join(columns) or '1'} FROM threads WHERE {sql.where(tenant, query)} "
        f"ORDER BY {order} {direction}, thread_id LIMIT {sql.put(query.limit + 1)} OFFSET {sql.put(query.offset)}"
    )
    return text, sql.arguments


async def search(database: Database, tenant: str, query: ThreadQuery) -> list[dict[str, Any]]:
    """The selected fields of threads, ordered; one more than `limit` when there is more. Raises: Unavailable."""
    text, arguments = search_statement(tenant, query)
    async with database.connection() as connection:
        rows = await connection.fetch(text, *arguments)
    return [_shown(row, query) for row in rows]


def _shown(row: Any, query: ThreadQuery) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in query.select:
        value = row[name]
        out[name] = raw(value) if name in JSON_COLUMNS else moment(value) if name in TIMES else value
    if query.extract:
        out["extracted"] = {alias: raw(row[f"extracted_{number}"]) for number, alias in enumerate(query.extract)}
    return out


async def count(database: Database, tenant: str, query: ThreadQuery) -> int:
    """How many threads match. Raises: Unavailable."""
    sql = _Statement()
    text = f"SELECT count(*) FROM threads WHERE {sql.where(tenant, query)}"
    async with database.connection() as connection:
        return int(await connection.fetchval(text, *sql.arguments))


def total_statement(tenant: str, query: ThreadQuery) -> tuple[str, list[object]]:
    """The SQL that counts the matches of a search up to one more than `SEARCH_TOTAL_MAX`, and its arguments."""
    sql = _Statement()
    some = f"SELECT 1 FROM threads WHERE {sql.where(tenant, query)} LIMIT {SEARCH_TOTAL_MAX + 1}"
    return f"SELECT count(*) FROM ({some}) matching", sql.arguments


async def count_up_to_max(database: Database, tenant: str, query: ThreadQuery) -> int:
    """How many threads match, counted no further than one more than `SEARCH_TOTAL_MAX`. Raises: Unavailable."""
    text, arguments = total_statement(tenant, query)
    async with database.connection() as connection:
        return int(await connection.fetchval(text, *arguments))
