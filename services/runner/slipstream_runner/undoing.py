"""Undoing what was checkpointed: a whole run, or the superstep whose state no record can hold.

A run that goes on from a checkpoint (with a command, or without input) writes to it: the answers, and what the tasks
made of them. So what lies there is remembered before it begins, beside the thread's fence, and its rollback puts it
back.
"""

from slipstream_runner.checkpoints import CHECK, NULL_TASK_ID, Pool, failures
from slipstream_runner.runtime import Attempt
from slipstream_schemas.subjects import Scope, thread_key

REMEMBER = """UPDATE fences SET undo=jsonb_build_object('run', %(run)s::text, 'from', %(from)s::text, 'writes',
 (SELECT coalesce(jsonb_agg(to_jsonb(w)), '[]') FROM checkpoint_writes w
 WHERE w.thread_id=%(key)s AND w.checkpoint_id >= %(from)s)) WHERE thread_key=%(key)s"""
DELETE_OF_RUN = """WITH gone AS (DELETE FROM checkpoints WHERE thread_id=%(key)s AND metadata->>'run_id'=%(run)s
 RETURNING thread_id, checkpoint_ns, checkpoint_id)
 DELETE FROM checkpoint_writes w USING gone g WHERE w.thread_id=g.thread_id AND w.checkpoint_ns=g.checkpoint_ns
 AND w.checkpoint_id=g.checkpoint_id"""
DELETE_LATER = """DELETE FROM checkpoint_writes w USING fences f WHERE f.thread_key=%(key)s AND f.undo->>'run'=%(run)s
 AND w.thread_id=%(key)s AND w.checkpoint_id >= f.undo->>'from'"""
PUT_BACK = """INSERT INTO checkpoint_writes SELECT r.* FROM fences f,
 jsonb_populate_recordset(NULL::checkpoint_writes, f.undo->'writes') r
 WHERE f.thread_key=%(key)s AND f.undo->>'run'=%(run)s"""

DELETE_FROM = """WITH gone AS (DELETE FROM checkpoint_writes WHERE thread_id=%(key)s AND checkpoint_ns=''
 AND checkpoint_id >= %(from)s)
 DELETE FROM checkpoints WHERE thread_id=%(key)s AND checkpoint_ns='' AND checkpoint_id >= %(from)s"""
DELETE_WRITES = """DELETE FROM checkpoint_writes w USING (SELECT checkpoint_id, metadata->>'run_id' AS run_id
 FROM checkpoints WHERE thread_id=%(key)s AND checkpoint_ns='' ORDER BY checkpoint_id DESC LIMIT 1) newest
 WHERE w.thread_id=%(key)s AND w.checkpoint_ns='' AND w.checkpoint_id=newest.checkpoint_id
 AND w.task_id <> %(no_task)s AND (newest.run_id=%(run)s OR NOT %(elsewhere)s)"""


async def remember(pool: Pool, scope: Scope, thread_id: str, run_id: str, checkpoint_id: str, fence: int) -> None:
    """Remember what lies at the checkpoint from which a run goes on, and at those of its subgraphs, which are younger.

    Raises: Fenced, Unavailable.
    """
    where = {"key": thread_key(scope, thread_id), "run": run_id, "from": checkpoint_id}
    with failures(fence):
        async with pool.connection() as connection, connection.transaction():
            await connection.execute(CHECK, (where["key"], fence))
            await connection.execute(REMEMBER, where)


async def forget_run(pool: Pool, scope: Scope, thread_id: str, run_id: str, fence: int) -> None:
    """Delete what a run checkpointed, and put back what it found, for its rollback. Raises: Fenced, Unavailable."""
    where = {"key": thread_key(scope, thread_id), "run": run_id}
    with failures(fence):
        async with pool.connection() as connection, connection.transaction():
            await connection.execute(CHECK, (where["key"], fence))
            for statement in (DELETE_OF_RUN, DELETE_LATER, PUT_BACK):
                await connection.execute(statement, where)


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
