"""Bringing a database to the schema of this build."""

import asyncio
import contextlib
from pathlib import Path

import asyncpg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from slipstream_schemas.errors import Unavailable
from slipstream_schemas.limits import DATABASE_DEADLINE_S

HEAD = "0007"
LOCK = 0x51175
"""Advisory lock of whoever migrates."""
MIGRATE_DEADLINE_S = 600.0


async def current(dsn: str) -> str | None:
    """The revision of a database, None for a new one. Raises: Unavailable."""
    try:
        async with asyncio.timeout(DATABASE_DEADLINE_S):
            connection = await asyncpg.connect(dsn)
            try:
                with contextlib.suppress(asyncpg.UndefinedTableError):
                    revision: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
                    return revision
                return None
            finally:
                await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise Unavailable(f"Postgres does not answer: {error}") from error


async def ensure_schema(dsn: str) -> None:
    """Migrate if it is needed; quick when it is not. Raises: Unavailable."""
    if await current(dsn) != HEAD:
        async with asyncio.timeout(MIGRATE_DEADLINE_S):
            await asyncio.to_thread(_upgrade, dsn)


def _upgrade(dsn: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    engine = sa.create_engine(dsn.replace("postgresql://", "postgresql+psycopg://", 1))
    try:
        with engine.begin() as connection:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()
