"""A thread's row, as new as the log."""

from typing import Any

import msgspec

from slipstream_api.context import Context
from slipstream_postgres import threads
from slipstream_postgres.rows import ThreadRow
from slipstream_schemas import run_state as rs
from slipstream_schemas.errors import NotFound, Unavailable
from slipstream_schemas.limits import PROJECTION_WAIT_S


async def row_of(context: Context, thread_id: str) -> ThreadRow:
    """The thread's row, as new as its control head. Raises: NotFound, Unavailable."""
    head = await context.control.head(context.scope, thread_id)
    rs.existing(head.state)
    if not await context.projected(head.stream_seq, PROJECTION_WAIT_S):
        raise Unavailable("the read model lags behind the log; try again")
    row = await threads.get(context.database, context.scope.tenant, thread_id)
    if row is None:
        raise NotFound("Thread not found.")
    return row


def graph_of(row: ThreadRow) -> str | None:
    """The graph of the thread's last run, or the one that its creator named."""
    metadata: dict[str, Any] = msgspec.json.decode(row.metadata)
    found = metadata.get("graph_id")
    return found if isinstance(found, str) else None
