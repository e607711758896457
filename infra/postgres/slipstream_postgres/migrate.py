"""Bringing a database to the schema of this build."""

import asyncio
import contextlib
import logging
import time
from pathlib import Path

import asyncpg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import OperationalError

from slipstream_schemas.errors import Unavailable
from slipstream_schemas.limits import DATABASE_DEADLINE_S

log = logging.getLogger("slipstream.migrate")

HEAD = "0011"
LOCK = 0x51175
"""Advisory lock of whoever migrates."""
MIGRATE_DEADLINE_S = 600.0
LOCK_WAIT_S = 0.5
"""A migration that does not get a table by then lets those pass who wait behind it, and tries again."""
LOCK_TRIES_MAX = 60
LOCK_NOT_AVAILABLE = "55P03"


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
            await asyncio.to_thread(upgrade, dsn)


def upgrade(dsn: str, revision: str = "head") -> None:
    """Migrate to a revision, each in a transaction of its own; one process at a time. Raises: Unavailable."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    engine = sa.create_engine(dsn.replace("postgresql://", "postgresql+psycopg://", 1))
    try:
        # The lock has a connection of its own: an index that is built online waits for every open transaction.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as alone, engine.connect() as connection:
            alone.execute(sa.text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
            connection.execute(sa.text(f"SET lock_timeout = '{LOCK_WAIT_S:.1f}s'"))
            connection.commit()
            config.attributes["connection"] = connection
            _upgrade(config, connection, revision)
    finally:
        engine.dispose()


def _upgrade(config: Config, connection: sa.Connection, revision: str) -> None:
    for tries in range(1, LOCK_TRIES_MAX + 1):
        try:
            return command.upgrade(config, revision)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
                raise
            connection.rollback()
            log.warning("a migration waits for a lock that somebody holds (try %d of %d)", tries, LOCK_TRIES_MAX)
            time.sleep(LOCK_WAIT_S)
    raise Unavailable("a migration did not get its lock: end the transactions that hold it, and start again")
