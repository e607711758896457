"""Assistants and their versions. Plain tables, not folds of the log.

Theory of operation. A row of `assistants` is the version that runs use now; a row of `assistant_versions` never
changes. A change updates the first and copies it to the second as the next version. To go back to a version copies the
other way and makes none, so the next change counts on from the highest. Every graph that a runner has registered has an
assistant of its own, whose id derives from the graph's: all tenants may use it (its tenant is empty), and the default
one may change it. Any other belongs to the tenant that made it.
"""

from typing import Any

import msgspec

from slipstream_postgres.conditions import Statement, allowed
from slipstream_postgres.pool import Database
from slipstream_postgres.rows import (
    AssistantRow,
    AssistantVersionRow,
    assistant_row,
    assistant_version_row,
)
from slipstream_schemas.errors import TooLarge
from slipstream_schemas.ids import system_assistant_id
from slipstream_schemas.limits import ASSISTANT_BYTES_MAX
from slipstream_schemas.metadata_filter import MetadataFilter
from slipstream_schemas.subjects import Scope

SORTABLE = {
    "assistant_id": "assistant_id",
    "graph_id": "lower(graph_id)",
    "name": "lower(name)",
    "created_at": "created_at",
    "updated_at": "updated_at",
}
_VERSION_OF_ROW = """INSERT INTO assistant_versions (tenant, assistant_id, version, graph_id, name, description,
 config, context, metadata, created_at) SELECT tenant, assistant_id, version, graph_id, name, description, config,
 context, metadata, updated_at FROM assistants WHERE assistant_id=$1 AND tenant=$2"""
EVERYBODY = ""
"""The tenant of the graphs' own assistants."""


def _readable(tenant: str) -> list[str]:
    return [tenant, EVERYBODY]


def _writable(tenant: str) -> list[str]:
    return [tenant, EVERYBODY] if tenant == Scope().tenant else [tenant]


class Content(msgspec.Struct, frozen=True):
    """What a version of an assistant says. The JSON columns are bytes."""

    graph_id: str
    name: str
    description: str | None
    config: bytes
    context: bytes
    metadata: bytes


class Change(msgspec.Struct, frozen=True):
    """What a patch changes; None leaves a column alone.

    `config` replaces; `configurable`, an object with that key, replaces the config's own; `metadata` is merged.
    """

    graph_id: str | None = None
    name: str | None = None
    description: str | None = None
    config: bytes | None = None
    configurable: bytes | None = None
    context: bytes | None = None
    metadata: bytes = b"{}"


class AssistantQuery(msgspec.Struct, frozen=True):
    """What a search asks for. `metadata` is matched by containment, `name` as a part, whatever its case."""

    graph_id: str | None = None
    name: str | None = None
    metadata: bytes = b"{}"
    limit: int = 10
    offset: int = 0
    sort_by: str = "created_at"
    sort_order: str = "desc"
    allowed: MetadataFilter | None = None
    """What the caller may see."""


async def register_graphs(database: Database, graph_ids: list[str], descriptions: dict[str, str], version: str) -> None:
    """Note the version of each graph and make sure that it has its assistant. Idempotent. Raises: Unavailable."""
    # In order, so that two runners which start at once cannot wait for each other.
    ids = [(system_assistant_id(graph_id), graph_id) for graph_id in sorted(graph_ids)]
    async with database.connection() as connection, connection.transaction():
        await connection.executemany(
            "INSERT INTO graphs (graph_id, version) VALUES ($1, $2) "
            "ON CONFLICT (graph_id) DO UPDATE SET version=excluded.version",
            [(graph_id, version) for _, graph_id in ids],
        )
        # A description that somebody has patched stays.
        await connection.executemany(
            "INSERT INTO assistants (assistant_id, graph_id, name, description, config, context, metadata, version, "
            "created_at, updated_at) VALUES ($1, $2, $2, $3, $4, $4, $5, 1, now(), now()) "
            "ON CONFLICT (tenant, assistant_id) DO UPDATE SET description=excluded.description "
            "WHERE assistants.version=1",
            [(key, graph_id, descriptions.get(graph_id), b"{}", b'{"created_by":"system"}') for key, graph_id in ids],
        )
        await connection.executemany(
            f"{_VERSION_OF_ROW} AND version=1 ON CONFLICT (tenant, assistant_id, version) "
            "DO UPDATE SET description=excluded.description",
            [(key, EVERYBODY) for key, _ in ids],
        )


async def graph_versions(database: Database) -> dict[str, str]:
    """The version of every graph that a runner has registered, by the graph's id. Raises: Unavailable."""
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT graph_id, version FROM graphs ORDER BY graph_id")
    return {row["graph_id"]: row["version"] for row in rows}


async def get(
    database: Database,
    tenant: str,
    assistant_or_graph_id: str,
    found: MetadataFilter | None = None,
    *,
    own_graphs: bool = False,
) -> AssistantRow | None:
    """An assistant by its own id, or a graph's by the graph's id, if it meets the filter. Raises: Unavailable.

    With `own_graphs` the graphs' own assistants meet every filter.
    """
    if "\x00" in assistant_or_graph_id:  # no row can hold it, and Postgres refuses to look
        return None
    async with database.connection() as connection:
        sql = Statement(_readable(tenant), assistant_or_graph_id, system_assistant_id(assistant_or_graph_id))
        met = allowed(found, sql.put) + (" OR tenant=''" if own_graphs else "")
        row = await connection.fetchrow(
            f"SELECT * FROM assistants WHERE tenant=ANY($1) AND assistant_id IN ($2, $3) AND ({met}) "
            "ORDER BY tenant, assistant_id=$2 DESC LIMIT 1",
            *sql.arguments,
        )
    return None if row is None else assistant_row(row)


async def create(database: Database, tenant: str, assistant_id: str, content: Content) -> AssistantRow | None:
    """A new assistant at version 1; None when its id is taken. Raises: TooLarge, Unavailable."""
    async with database.connection() as connection, connection.transaction():
        row = await connection.fetchrow(
            "INSERT INTO assistants (assistant_id, graph_id, name, description, config, context, metadata, version, "
            "created_at, updated_at, tenant) SELECT $1::text, $2, $3, $4, $5::jsonb, $6::jsonb, $7::jsonb, 1, now(), "
            "now(), $8 WHERE NOT EXISTS (SELECT 1 FROM assistants WHERE tenant='' AND assistant_id=$1) "
            "ON CONFLICT DO NOTHING RETURNING *",
            assistant_id, content.graph_id, content.name, content.description, content.config, content.context,
            content.metadata, tenant,
        )  # fmt: skip
        if row is None:
            return None
        _check_size(row)
        await connection.execute(_VERSION_OF_ROW, assistant_id, row["tenant"])
    return assistant_row(row)


def _check_size(row: Any) -> None:
    """Refuse a row that has grown too large; raised inside the transaction, so nothing changes. Raises: TooLarge."""
    texts = len((row["name"] + (row["description"] or "")).encode())
    if texts + sum(len(row[name]) for name in ("config", "context", "metadata")) > ASSISTANT_BYTES_MAX:
        raise TooLarge(f"an assistant may hold {ASSISTANT_BYTES_MAX} bytes: its texts, config, context and metadata")


async def patch(database: Database, tenant: str, assistant_id: str, change: Change) -> AssistantRow | None:
    """The assistant at a new version, None when there is no such assistant. Raises: TooLarge, Unavailable."""
    async with database.connection() as connection, connection.transaction():
        owner: str | None = await connection.fetchval(
            "SELECT tenant FROM assistants WHERE assistant_id=$1 AND tenant=ANY($2) FOR UPDATE",
            assistant_id, _writable(tenant),
        )  # fmt: skip
        if owner is None:
            return None
        version = await connection.fetchval(
            "SELECT max(version) + 1 FROM assistant_versions WHERE assistant_id=$1 AND tenant=$2", assistant_id, owner
        )
        row = await connection.fetchrow(
            "UPDATE assistants SET version=$2, graph_id=COALESCE($3, graph_id), name=COALESCE($4, name), "
            "description=COALESCE($5, description), config=COALESCE($6, config) || COALESCE($7::jsonb, '{}'), "
            "context=COALESCE($8, context), metadata=metadata || $9, updated_at=now() "
            "WHERE assistant_id=$1 AND tenant=$10 RETURNING *",
            assistant_id, version, change.graph_id, change.name, change.description, change.config,
            change.configurable, change.context, change.metadata, owner,
        )  # fmt: skip
        _check_size(row)
        await connection.execute(_VERSION_OF_ROW, assistant_id, row["tenant"])
    return assistant_row(row)


async def set_latest(database: Database, tenant: str, assistant_id: str, version: int) -> AssistantRow | None:
    """The assistant as it was at a version, None when it has no such version. Raises: Unavailable."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "UPDATE assistants a SET version=v.version, graph_id=v.graph_id, name=v.name, description=v.description, "
            "config=v.config, context=v.context, metadata=v.metadata, updated_at=now() FROM assistant_versions v "
            "WHERE a.assistant_id=$1 AND a.tenant=ANY($3) AND v.assistant_id=$1 AND v.tenant=a.tenant "
            "AND v.version=$2 RETURNING a.*",
            assistant_id, version, _writable(tenant),
        )  # fmt: skip
    return None if row is None else assistant_row(row)


async def delete(database: Database, tenant: str, assistant_id: str) -> bool:
    """Delete an assistant and its versions; False when there is none. Raises: Unavailable."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "DELETE FROM assistants WHERE assistant_id=$1 AND tenant=$2 RETURNING 1", assistant_id, tenant
        )
    return row is not None


async def first_version(database: Database, tenant: str, assistant_id: str) -> AssistantVersionRow | None:
    """The assistant as it was created, None when there is no such assistant. Raises: Unavailable."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT * FROM assistant_versions WHERE assistant_id=$1 AND tenant=$2 AND version=1", assistant_id, tenant
        )
    return None if row is None else assistant_version_row(row)


async def versions(
    database: Database, tenant: str, assistant_id: str, *, metadata: bytes = b"{}", limit: int = 10, offset: int = 0
) -> list[AssistantVersionRow]:
    """An assistant's versions, newest first. Raises: Unavailable."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT * FROM assistant_versions WHERE assistant_id=$1 AND tenant=ANY($5) AND metadata @> $2 "
            "ORDER BY version DESC LIMIT $3 OFFSET $4",
            assistant_id, metadata, limit, offset, _readable(tenant),
        )  # fmt: skip
    return [assistant_version_row(row) for row in rows]


def _matching(tenant: str, query: AssistantQuery) -> tuple[Statement, str]:
    sql = Statement(query.graph_id, query.metadata, query.name, _readable(tenant))
    return sql, (
        "FROM assistants WHERE ($1::text IS NULL OR graph_id=$1) AND metadata @> $2 AND tenant=ANY($4) "
        f"AND ($3::text IS NULL OR strpos(lower(name), lower($3)) > 0) AND {allowed(query.allowed, sql.put)}"
    )


async def search(database: Database, tenant: str, query: AssistantQuery) -> list[AssistantRow]:
    """Assistants, ordered; one more than `limit` when there is more. Raises: Unavailable."""
    column = SORTABLE[query.sort_by]
    order = "ASC" if query.sort_order == "asc" else "DESC"
    sql, matching = _matching(tenant, query)
    page = f"LIMIT {sql.put(query.limit + 1)} OFFSET {sql.put(query.offset)}"
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT * {matching} ORDER BY {column} {order}, assistant_id {page}", *sql.arguments
        )
    return [assistant_row(row) for row in rows]


async def count(database: Database, tenant: str, query: AssistantQuery) -> int:
    """How many assistants match. Raises: Unavailable."""
    sql, matching = _matching(tenant, query)
    async with database.connection() as connection:
        return int(await connection.fetchval(f"SELECT count(*) {matching}", *sql.arguments))


async def thread_ids(
    database: Database, tenant: str, assistant_id: str, after: str, limit: int, found: MetadataFilter | None = None
) -> list[str]:
    """Ids of the threads whose metadata name the assistant, in order, behind `after`. Raises: Unavailable."""
    sql = Statement(tenant, msgspec.json.encode({"assistant_id": assistant_id}), after, limit)
    met = allowed(found, sql.put)
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT thread_id FROM threads WHERE tenant=$1 AND metadata @> $2 AND thread_id > $3 AND {met} "
            "ORDER BY thread_id LIMIT $4",
            *sql.arguments,
        )
    return [row["thread_id"] for row in rows]
