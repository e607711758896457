"""Assistants and their versions. Plain tables, not folds of the log.

Theory of operation. A row of `assistants` is the version that runs use now; a row of `assistant_versions` never
changes. A change updates the first and copies it to the second as the next version. To go back to a version copies the
other way and makes none, so the next change counts on from the highest. Every graph that a runner has registered has an
assistant of its own, whose id derives from the graph's.
"""

from typing import Any

import msgspec

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

SORTABLE = {
    "assistant_id": "assistant_id",
    "graph_id": "lower(graph_id)",
    "name": "lower(name)",
    "created_at": "created_at",
    "updated_at": "updated_at",
}
_VERSION_OF_ROW = """INSERT INTO assistant_versions (assistant_id, version, graph_id, name, description, config,
 context, metadata, created_at) SELECT assistant_id, version, graph_id, name, description, config, context, metadata,
 updated_at FROM assistants WHERE assistant_id=$1"""


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
            "ON CONFLICT (assistant_id) DO UPDATE SET description=excluded.description WHERE assistants.version=1",
            [(key, graph_id, descriptions.get(graph_id), b"{}", b'{"created_by":"system"}') for key, graph_id in ids],
        )
        await connection.executemany(
            f"{_VERSION_OF_ROW} AND version=1 ON CONFLICT (assistant_id, version) "
            "DO UPDATE SET description=excluded.description",
            [(key,) for key, _ in ids],
        )


async def graph_versions(database: Database) -> dict[str, str]:
    """The version of every graph that a runner has registered, by the graph's id. Raises: Unavailable."""
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT graph_id, version FROM graphs ORDER BY graph_id")
    return {row["graph_id"]: row["version"] for row in rows}


async def get(database: Database, assistant_or_graph_id: str) -> AssistantRow | None:
    """An assistant by its own id, or a graph's by the graph's id. Raises: Unavailable."""
    if "\x00" in assistant_or_graph_id:  # no row can hold it, and Postgres refuses to look
        return None
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT * FROM assistants WHERE assistant_id IN ($1, $2) ORDER BY assistant_id=$1 DESC LIMIT 1",
            assistant_or_graph_id, system_assistant_id(assistant_or_graph_id),
        )  # fmt: skip
    return None if row is None else assistant_row(row)


async def create(database: Database, assistant_id: str, content: Content) -> AssistantRow | None:
    """A new assistant at version 1; None when its id is taken. Raises: TooLarge, Unavailable."""
    async with database.connection() as connection, connection.transaction():
        row = await connection.fetchrow(
            "INSERT INTO assistants (assistant_id, graph_id, name, description, config, context, metadata, version, "
            "created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 1, now(), now()) "
            "ON CONFLICT DO NOTHING RETURNING *",
            assistant_id, content.graph_id, content.name, content.description, content.config, content.context,
            content.metadata,
        )  # fmt: skip
        if row is None:
            return None
        _check_size(row)
        await connection.execute(_VERSION_OF_ROW, assistant_id)
    return assistant_row(row)


def _check_size(row: Any) -> None:
    """Refuse a row that has grown too large; raised inside the transaction, so nothing changes. Raises: TooLarge."""
    texts = len((row["name"] + (row["description"] or "")).encode())
    if texts + sum(len(row[name]) for name in ("config", "context", "metadata")) > ASSISTANT_BYTES_MAX:
        raise TooLarge(f"an assistant may hold {ASSISTANT_BYTES_MAX} bytes: its texts, config, context and metadata")


async def patch(database: Database, assistant_id: str, change: Change) -> AssistantRow | None:
    """The assistant at a new version, None when there is no such assistant. Raises: TooLarge, Unavailable."""
    async with database.connection() as connection, connection.transaction():
        known = await connection.fetchval("SELECT 1 FROM assistants WHERE assistant_id=$1 FOR UPDATE", assistant_id)
        if known is None:
            return None
        version = await connection.fetchval(
            "SELECT max(version) + 1 FROM assistant_versions WHERE assistant_id=$1", assistant_id
        )
        row = await connection.fetchrow(
            "UPDATE assistants SET version=$2, graph_id=COALESCE($3, graph_id), name=COALESCE($4, name), "
            "description=COALESCE($5, description), config=COALESCE($6, config) || COALESCE($7::jsonb, '{}'), "
            "context=COALESCE($8, context), metadata=metadata || $9, updated_at=now() "
            "WHERE assistant_id=$1 RETURNING *",
            assistant_id, version, change.graph_id, change.name, change.description, change.config,
            change.configurable, change.context, change.metadata,
        )  # fmt: skip
        _check_size(row)
        await connection.execute(_VERSION_OF_ROW, assistant_id)
    return assistant_row(row)


async def set_latest(database: Database, assistant_id: str, version: int) -> AssistantRow | None:
    """The assistant as it was at a version, None when it has no such version. Raises: Unavailable."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "UPDATE assistants a SET version=v.version, graph_id=v.graph_id, name=v.name, description=v.description, "
            "config=v.config, context=v.context, metadata=v.metadata, updated_at=now() FROM assistant_versions v "
            "WHERE a.assistant_id=$1 AND v.assistant_id=$1 AND v.version=$2 RETURNING a.*",
            assistant_id, version,
        )  # fmt: skip
    return None if row is None else assistant_row(row)


async def delete(database: Database, assistant_id: str) -> bool:
    """Delete an assistant and its versions; False when there is none. Raises: Unavailable."""
    async with database.connection() as connection:
        row = await connection.fetchrow("DELETE FROM assistants WHERE assistant_id=$1 RETURNING 1", assistant_id)
    return row is not None


async def first_version(database: Database, assistant_id: str) -> AssistantVersionRow | None:
    """The assistant as it was created, None when there is no such assistant. Raises: Unavailable."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT * FROM assistant_versions WHERE assistant_id=$1 AND version=1", assistant_id
        )
    return None if row is None else assistant_version_row(row)


async def versions(
    database: Database, assistant_id: str, *, metadata: bytes = b"{}", limit: int = 10, offset: int = 0
) -> list[AssistantVersionRow]:
    """An assistant's versions, newest first. Raises: Unavailable."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT * FROM assistant_versions WHERE assistant_id=$1 AND metadata @> $2 "
            "ORDER BY version DESC LIMIT $3 OFFSET $4",
            assistant_id, metadata, limit, offset,
        )  # fmt: skip
    return [assistant_version_row(row) for row in rows]


_MATCHING = (
    "FROM assistants WHERE ($1::text IS NULL OR graph_id=$1) AND metadata @> $2 "
    "AND ($3::text IS NULL OR strpos(lower(name), lower($3)) > 0)"
)


async def search(database: Database, query: AssistantQuery) -> list[AssistantRow]:
    """Assistants, ordered; one more than `limit` when there is more. Raises: Unavailable."""
    column = SORTABLE[query.sort_by]
    order = "ASC" if query.sort_order == "asc" else "DESC"
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT * {_MATCHING} ORDER BY {column} {order}, assistant_id LIMIT $4 OFFSET $5",
            query.graph_id, query.metadata, query.name, query.limit + 1, query.offset,
        )  # fmt: skip
    return [assistant_row(row) for row in rows]


async def count(database: Database, query: AssistantQuery) -> int:
    """How many assistants match. Raises: Unavailable."""
    async with database.connection() as connection:
        return int(
            await connection.fetchval(f"SELECT count(*) {_MATCHING}", query.graph_id, query.metadata, query.name)
        )


async def thread_ids(database: Database, tenant: str, assistant_id: str, after: str, limit: int) -> list[str]:
    """Ids of the threads whose metadata name the assistant, in order, behind `after`. Raises: Unavailable."""
    wanted = msgspec.json.encode({"assistant_id": assistant_id})
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT thread_id FROM threads WHERE tenant=$1 AND metadata @> $2 AND thread_id > $3 "
            "ORDER BY thread_id LIMIT $4",
            tenant, wanted, after, limit,
        )  # fmt: skip
    return [row["thread_id"] for row in rows]
