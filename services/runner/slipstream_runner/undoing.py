"""Undoing the superstep whose state no record can hold: a thread that kept it would refuse every later run."""

from slipstream_runner.checkpoints import CHECK, NULL_TASK_ID, Pool, failures
from slipstream_runner.runtime import Attempt
from slipstream_schemas.subjects import thread_key

DELETE_FROM = """WITH gone AS (DELETE FROM checkpoint_writes WHERE thread_id=%(key)s AND checkpoint_ns=''
 AND checkpoint_id >= %(from)s)
 DELETE FROM checkpoints WHERE thread_id=%(key)s AND checkpoint_ns='' AND checkpoint_id >= %(from)s"""
DELETE_WRITES = """DELETE FROM checkpoint_writes w USING (SELECT checkpoint_id, metadata->>'run_id' AS run_id
 FROM checkpoints WHERE thread_id=%(key)s AND checkpoint_ns='' ORDER BY checkpoint_id DESC LIMIT 1) newest
 WHERE w.thread_id=%(key)s AND w.checkpoint_ns='' AND w.checkpoint_id=newest.checkpoint_id
 AND w.task_id <> %(no_task)s AND (newest.run_id=%(run)s OR NOT %(elsewhere)s)"""


async def forget_step(pool: Pool, attempt: Attempt, checkpoint_id: str) -> None:
    """Undo the superstep of a run that ended with a state which cannot be told, as if its nodes had failed.

    `checkpoint_id` is the root checkpoint with that state, empty when none was made; it goes, and so does what the
    step's tasks wrote. A run that began at a checkpoint of the caller's choice undoes nothing but its own.
    Raises: Fenced, Unavailable.
    """
    run = attempt.run
    where = {"key": thread_key(attempt.scope, attempt.thread_id), "from": checkpoint_id, "run": run.run_id,
             "no_task": NULL_TASK_ID, "elsewhere": bool(run.checkpoint)}  # fmt: skip
    with failures(attempt.fence):
        async with pool.connection() as connection, connection.transaction():
            await connection.execute(CHECK, (where["key"], attempt.fence))
            if checkpoint_id:
                await connection.execute(DELETE_FROM, where)
            await connection.execute(DELETE_WRITES, where)
