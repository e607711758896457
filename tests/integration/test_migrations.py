"""Migrations: the newest schema is that of `tables`, and rows of an older one are carried over."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

import slipstream_postgres
from slipstream_postgres import assistants
from slipstream_postgres.migrate import HEAD, current, ensure_schema
from slipstream_postgres.pool import open_database
from slipstream_postgres.tables import metadata
from testkit.servers import create_database


def migrate_to(dsn: str, revision: str) -> None:
    """Bring an empty database to an older revision."""
    config = Config()
    config.set_main_option("script_location", str(Path(slipstream_postgres.__file__ or "").parent / "migrations"))
    engine = sa.create_engine(dsn.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def test_the_newest_schema_is_that_of_the_tables(database_dsn: str) -> None:
    engine = sa.create_engine(database_dsn.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.connect() as connection:
        found = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(found, metadata) == []
    engine.dispose()


async def test_assistants_of_the_first_schema_get_their_version(postgres_dsn: str) -> None:
    dsn = create_database(postgres_dsn, "migrated_from_the_first")
    migrate_to(dsn, "0001")
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
