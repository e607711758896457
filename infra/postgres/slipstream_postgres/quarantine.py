"""Control records that could not be applied. Their bodies lie here, so that they can be looked at."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from slipstream_postgres.pool import Database

PUT = """INSERT INTO quarantine (stream_seq, subject, error, body, at) VALUES ($1,$2,$3,$4,$5)
 ON CONFLICT (stream_seq) DO UPDATE SET error=excluded.error"""


class Quarantined(msgspec.Struct):
    """A record that could not be applied. `at` is when it was written to the log."""

    stream_seq: int
    subject: str
    error: str
    body: bytes
    at: datetime


def _entry(row: Any) -> Quarantined:
    return Quarantined(row["stream_seq"], row["subject"], row["error"], row["body"], row["at"])


async def entries(database: Database, limit: int) -> list[Quarantined]:
    """The oldest ones. Raises: Unavailable."""
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT * FROM quarantine ORDER BY stream_seq LIMIT $1", limit)
    return [_entry(row) for row in rows]


async def get(database: Database, stream_seq: int) -> Quarantined | None:
    """One of them. Raises: Unavailable."""
    async with database.connection() as connection:
        row = await connection.fetchrow("SELECT * FROM quarantine WHERE stream_seq=$1", stream_seq)
    return None if row is None else _entry(row)


async def subjects(database: Database) -> set[str]:
    """Whose records lie here. Raises: Unavailable."""
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT DISTINCT subject FROM quarantine")
    return {row["subject"] for row in rows}


async def drop(database: Database, stream_seqs: Sequence[int]) -> int:
    """Forget these; returns how many there were. Raises: Unavailable."""
    async with database.connection() as connection:
        rows = await connection.fetch("DELETE FROM quarantine WHERE stream_seq=ANY($1) RETURNING 1", list(stream_seqs))
    return len(rows)
