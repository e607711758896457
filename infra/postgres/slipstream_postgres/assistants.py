"""Assistants: every graph has one of its own."""

import msgspec

from slipstream_postgres.pool import Database
from slipstream_postgres.rows import AssistantRow, assistant_row
from slipstream_schemas.ids import system_assistant_id


async def upsert_system(database: Database, graph_ids: list[str], descriptions: dict[str, str]) -> None:
    """Make sure that each graph has its assistant. Raises: Unavailable."""
    async with database.connection() as connection:
        await connection.executemany(
            "INSERT INTO assistants (assistant_id, graph_id, name, description, config, context, metadata, version, "
            "created_at, updated_at) VALUES ($1, $2, $2, $3, $4, $4, $5, 1, now(), now()) "
            "ON CONFLICT (assistant_id) DO UPDATE SET description=excluded.description",
            [(system_assistant_id(g), g, descriptions.get(g), b"{}", b'{"created_by":"system"}') for g in graph_ids],
        )


async def get(database: Database, assistant_or_graph_id: str) -> AssistantRow | None:
    """An assistant by its own id, or a graph's by the graph's id. Raises: Unavailable."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT * FROM assistants WHERE assistant_id = ANY($1)",
            [assistant_or_graph_id, system_assistant_id(assistant_or_graph_id)],
        )
    return None if row is None else assistant_row(row)


async def search(
    database: Database, *, graph_id: str | None = None, name: str | None = None,
    metadata: dict[str, object] | None = None, limit: int = 10, offset: int = 0,
) -> list[AssistantRow]:  # fmt: skip
    """Assistants, newest first; one more than `limit` when there is more. Raises: Unavailable."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT * FROM assistants WHERE ($1::text IS NULL OR graph_id=$1) AND ($2::text IS NULL OR name ILIKE $2) "
            "AND metadata @> $3 ORDER BY created_at DESC, assistant_id LIMIT $4 OFFSET $5",
            graph_id, f"%{name}%" if name else None, msgspec.json.encode(metadata or {}), limit + 1, offset,
        )  # fmt: skip
    return [assistant_row(row) for row in rows]
