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
    """Delete a thread's checkpoints and its fence. Advance the fence first, or a late run writes new ones.

    Where there is no fence, nobody may write; where there is a later one, nothing is deleted. Raises: Unavailable.
    """
    async with database.connection() as connection, connection.transaction():
        own = "DELETE FROM fences WHERE thread_key=$1 AND fence=$2 RETURNING 1"
        if await connection.fetchval(own, thread_key, fence) is None:
            return
        for table in CHECKPOINT_TABLES:
            if await connection.fetchval("SELECT to_regclass($1)", table) is not None:
                await connection.execute(f"DELETE FROM {table} WHERE thread_id=$1", thread_key)
