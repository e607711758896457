"""Thinning out a thread's checkpoints: the newest of each namespace stays."""

import logging

import msgspec
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

from slipstream_runner.checkpoints import failures
from slipstream_runner.runtime import Runtime
from slipstream_schemas import run_state as rs
from slipstream_schemas.subjects import Scope, thread_key

log = logging.getLogger("slipstream.runner")

HOLD = "SELECT 1 FROM fences WHERE thread_key=%s FOR UPDATE"
"""Nobody writes meanwhile: a state that is written at an older checkpoint shares what is stored of it."""


class PruneQuestion(msgspec.Struct, tag_field="ask", tag="prune"):
    """Keep the latest state of a thread and forget how it came to be."""

    graph_id: str
    tenant: str
    thread_id: str


async def keep_latest(runtime: Runtime, question: PruneQuestion) -> bool:
    """Delete every checkpoint but the newest ones; False, and nothing is deleted, where they are needed.

    They are needed by a run that executes or waits, whose rollback leads back to them, and by a graph whose state is
    stored as changes. Raises: NotFound, Unavailable (a second prune at the same time, too).
    """
    scope = Scope(runtime.settings.region, question.tenant)
    key = thread_key(scope, question.thread_id)
    with failures(None):
        async with runtime.checkpoints.connection() as connection, connection.transaction():
            # A run or an update that begins from now on waits for this row; one that began before shows in the head, or
            # holds the row.
            await connection.execute(HOLD, (key,))
            if rs.is_busy(rs.existing((await runtime.control.head(scope, question.thread_id)).state)):
                return False
            try:
                await AsyncPostgresSaver(runtime.checkpoints).aprune([key], strategy="keep_latest")
            except NotImplementedError:
                log.info("thread %s keeps its checkpoints: its state is stored as changes", question.thread_id)
                return False
    return True
