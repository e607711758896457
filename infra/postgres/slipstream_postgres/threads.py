"""Queries on threads."""

from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from slipstream_postgres import tables
from slipstream_postgres.pool import Database
from slipstream_postgres.rows import ThreadRow, thread_row

SORTABLE = ("thread_id", "status", "created_at", "updated_at", "state_updated_at")
_DIALECT: sa.Dialect = postgresql.asyncpg.dialect()  # type: ignore[no-untyped-call]


class ThreadQuery(msgspec.Struct):
    """What a search asks for. `metadata` and `values` are matched by containment."""

    metadata: dict[str, Any] | None = None
    values: dict[str, Any] | None = None
    status: str | None = None
    ids: list[str] | None = None
    limit: int = 10
    offset: int = 0
    sort_by: str = "created_at"
    sort_order: str = "desc"


async def get(database: Database, tenant: str, thread_id: str) -> ThreadRow | None:
    """One thread. Raises: Unavailable."""
    async with database.connection() as connection:
        row = await connection.fetchrow("SELECT * FROM threads WHERE tenant=$1 AND thread_id=$2", tenant, thread_id)
    return None if row is None else thread_row(row)


def _where(tenant: str, query: ThreadQuery) -> list[sa.ColumnElement[bool]]:
    t = tables.threads.c
    out: list[sa.ColumnElement[bool]] = [t.tenant == tenant]
    for column, wanted in ((t["metadata"], query.metadata), (t["values"], query.values)):
        if wanted:
            out.append(column.op("@>")(sa.bindparam(None, msgspec.json.encode(wanted), type_=sa.LargeBinary)))
    if query.status:
        out.append(t.status == query.status)
    if query.ids is not None:
        out.append(t.thread_id.in_(query.ids))
    return out


async def _fetch(database: Database, statement: "sa.Select[Any]") -> list[Any]:
    compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    names = compiled.positiontup or []
    arguments = [compiled.params[name] for name in names]
    async with database.connection() as connection:
        return list(await connection.fetch(str(compiled).replace("::BYTEA", "::JSONB"), *arguments))


async def search(database: Database, tenant: str, query: ThreadQuery) -> list[ThreadRow]:
    """Threads, ordered; one more than `limit` when there is more. Raises: Unavailable."""
    column = tables.threads.c[query.sort_by if query.sort_by in SORTABLE else "created_at"]
    order = column.asc() if query.sort_order == "asc" else column.desc()
    statement = (
        sa.select(tables.threads)
        .where(*_where(tenant, query))
        .order_by(order, tables.threads.c.thread_id)
        .limit(query.limit + 1)
        .offset(query.offset)
    )
    return [thread_row(row) for row in await _fetch(database, statement)]


async def count(database: Database, tenant: str, query: ThreadQuery) -> int:
    """How many threads match. Raises: Unavailable."""
    rows = await _fetch(database, sa.select(sa.func.count()).select_from(tables.threads).where(*_where(tenant, query)))
    return int(rows[0][0])
