"""Migrations: the newest schema is that of `tables`, and rows of an older one are carried over."""

import asyncio
import random

import asyncpg
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from slipstream_postgres import assistants
from slipstream_postgres.migrate import HEAD, current, ensure_schema, upgrade
from slipstream_postgres.pool import open_database
from slipstream_postgres.tables import metadata
from slipstream_schemas.limits import DATABASE_DEADLINE_S
from testkit.servers import create_database
from testkit.wait import until


def test_the_newest_schema_is_that_of_the_tables(database_dsn: str) -> None:
    engine = sa.create_engine(database_dsn.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.connect() as connection:
        found = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(found, metadata) == []
    engine.dispose()


async def test_assistants_of_the_first_schema_get_their_version(postgres_dsn: str) -> None:
    dsn = create_database(postgres_dsn, "migrated_from_the_first")
    upgrade(dsn, "0001")
    database = await open_database(dsn)
    try:
        async with database.connection() as connection:
            await connection.execute(
                "INSERT INTO assistants (assistant_id, graph_id, name, config, context, metadata, version, created_at, "
                "updated_at) VALUES ('a', 'chat', 'chat', $1, $1, $2, 1, now(), now())",
                b"{}",
                b'{"created_by":"system"}',
            )
        assert await current(dsn) == "0001"
        await ensure_schema(dsn)
        assert await current(dsn) == HEAD
        assert list(await assistants.graph_versions(database)) == ["chat"]
        (version,) = await assistants.versions(database, "default", "a")
        assert (version.version, version.graph_id, bytes(version.metadata)) == (1, "chat", b'{"created_by": "system"}')
    finally:
        await database.close()


async def test_a_migration_waits_for_a_lock_and_holds_nobody_up(postgres_dsn: str) -> None:
    dsn = create_database(postgres_dsn, "migrated_behind_a_lock")
    upgrade(dsn, "0007")
    holder, other = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE threads IN SHARE MODE")
            migrating = asyncio.create_task(ensure_schema(dsn))

            async def is_waiting() -> bool:
                return bool(await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

            await until(is_waiting, what="the migration waits for the table")
            # Whoever comes behind it gets by when it lets go.
            async with asyncio.timeout(DATABASE_DEADLINE_S):
                assert await other.fetchval("SELECT count(*) FROM threads") == 0
            assert not migrating.done()
        await migrating
        assert await current(dsn) == HEAD
    finally:
        await holder.close()
        await other.close()


async def test_metadata_lie_in_their_rows(database_dsn: str) -> None:
    """A filter that fetches them from elsewhere for each row takes many times as long."""
    insert = (
        "INSERT INTO threads (tenant, thread_id, created_at, updated_at, state_updated_at, metadata, status, config, "
        "values, interrupts, control_seq) VALUES ('default', 't', now(), now(), now(), $1, 'idle', '{}', $2, '{}', 1)"
    )
    about = b'{"user": "%b"}' % random.randbytes(300).hex().encode()
    values = b'"%b"' % random.randbytes(2000).hex().encode()
    database = await open_database(database_dsn)
    try:
        async with database.connection() as connection:
            await connection.execute(insert, about, values)
            apart = "pg_column_toast_chunk_id(metadata) IS NULL, pg_column_toast_chunk_id(values) IS NULL"
            assert tuple(await connection.fetchrow(f"SELECT {apart} FROM threads")) == (True, False)
    finally:
        await database.close()
