"""How many bytes the checkpoints of a thread take, as Postgres stores them. The tables are LangGraph's own."""

import msgspec

from slipstream_postgres.pool import Database

CHECKPOINTS = "SELECT count(*), coalesce(sum(pg_column_size(c.*)), 0) FROM checkpoints c WHERE thread_id=$1"
WRITES = "SELECT count(*), coalesce(sum(pg_column_size(w.*)), 0) FROM checkpoint_writes w WHERE thread_id=$1"
CHANNELS = (
    "SELECT channel, count(*), coalesce(sum(pg_column_size(b.*)), 0) FROM checkpoint_blobs b WHERE thread_id=$1 "
    "GROUP BY channel ORDER BY channel"
)


class Stored(msgspec.Struct):
    """Rows, and the bytes that they take."""

    count: int = 0
    bytes: int = 0


class StoredChannels(Stored):
    """The same, and of each channel."""

    channels: dict[str, Stored] = {}


class ThreadStorage(msgspec.Struct):
    """What a thread's checkpoints take: their own rows, the values of channels, and writes of tasks."""

    thread_id: str
    total_bytes: int
    checkpoints: Stored
    channel_values: StoredChannels
    pending_writes: Stored


async def of_thread(database: Database, thread_id: str, thread_key: str) -> ThreadStorage:
    """What the checkpoints under a key take. Raises: Unavailable."""
    async with database.connection() as connection:
        if await connection.fetchval("SELECT to_regclass('checkpoints')") is None:  # no runner has started yet
            return ThreadStorage(thread_id, 0, Stored(), StoredChannels(), Stored())
        checkpoints = Stored(*(await connection.fetchrow(CHECKPOINTS, thread_key)))
        writes = Stored(*(await connection.fetchrow(WRITES, thread_key)))
        rows = await connection.fetch(CHANNELS, thread_key)
    channels = {row[0]: Stored(row[1], row[2]) for row in rows}
    count, size = sum(each.count for each in channels.values()), sum(each.bytes for each in channels.values())
    total = checkpoints.bytes + writes.bytes + size
    return ThreadStorage(thread_id, total, checkpoints, StoredChannels(count, size, channels), writes)
