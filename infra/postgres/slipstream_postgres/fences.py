"""The fence of each thread's checkpoints: the highest lease that may write them."""

from slipstream_postgres.pool import Database


async def advance(database: Database, thread_key: str, fence: int) -> bool:
    """Raise the fence; False when a later one stands there already. Raises: Unavailable."""
    async with database.connection() as connection:
        done = await connection.fetchval(
            "INSERT INTO fences AS f (thread_key, fence) VALUES ($1, $2) ON CONFLICT (thread_key) "
            "DO UPDATE SET fence=excluded.fence WHERE f.fence < excluded.fence RETURNING 1",
            thread_key, fence,
        )  # fmt: skip
    return done is not None


CHECKPOINT_TABLES = ("checkpoint_writes", "checkpoint_blobs", "checkpoints")
"""LangGraph's own tables; its saver creates them when a runner first starts."""


async def forget_checkpoints(database: Database, thread_key: str, fence: int) -> None:
    """Delete a thread's checkpoints and its fence, if it is still this one: a later one may be another thread's.

    Advance the fence first, or a late run writes new ones. Where there is no fence, nobody may write. Raises:
    Unavailable.
    """
    async with database.connection() as connection, connection.transaction():
        held = "SELECT 1 FROM fences WHERE thread_key=$1 AND fence=$2 FOR UPDATE"
        if await connection.fetchval(held, thread_key, fence) is None:
            return
        for table in CHECKPOINT_TABLES:
            if await connection.fetchval("SELECT to_regclass($1)", table) is not None:
                await connection.execute(f"DELETE FROM {table} WHERE thread_id=$1", thread_key)
        await connection.execute("DELETE FROM fences WHERE thread_key=$1", thread_key)
