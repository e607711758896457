"""A thread's state: read, listed and written by a runner that has its graph.

`get_state`, `history` and `update_state` serve the v1 routes and the v2 commands alike.
"""

from typing import Any, NamedTuple

import msgspec

from slipstream_api import newest_state
from slipstream_api.bodies import bounded
from slipstream_api.context import Context
from slipstream_api.runs import now_ms
from slipstream_api.thread_rows import graph_of, row_of
from slipstream_nats import rpc
from slipstream_schemas import run_state as rs
from slipstream_schemas import subjects
from slipstream_schemas.errors import InvalidArgument, NoResponder, Rejected, TooLarge, Unavailable
from slipstream_schemas.ids import new_run_id
from slipstream_schemas.limits import (
    CREATE_PROJECTION_WAIT_S,
    GRAPH_ID_CHARS_MAX,
    HISTORY_BYTES_MAX,
    HISTORY_LIMIT_MAX,
    REQUEST_DEADLINE_S,
    SELECT_FIELDS_MAX,
    STATE_ANSWER_DEADLINE_S,
    SUPERSTEPS_MAX,
)

EMPTY_STATE: dict[str, Any] = {
    "values": {}, "next": [], "tasks": [], "metadata": {}, "created_at": None, "checkpoint": None,
    "parent_checkpoint": None, "interrupts": [], "checkpoint_id": None, "parent_checkpoint_id": None,
}  # fmt: skip


class Checkpoint(msgspec.Struct, omit_defaults=True):
    """Where a checkpoint lies in its thread. A `thread_id` beside these is ignored: the path names the thread."""

    checkpoint_id: str | None = None
    checkpoint_ns: str | None = None
    checkpoint_map: dict[str, Any] | None = None


class Update(msgspec.Struct, omit_defaults=True):
    """What one node would have written: values, or a command."""

    values: Any = None
    as_node: str | None = None
    command: dict[str, Any] | None = None


class _Page(msgspec.Struct):
    states: list[msgspec.Raw]
    before: str | None = None


class _Config(msgspec.Struct):
    configurable: dict[str, Any] = {}


class _Graph(NamedTuple):
    """A thread's graph, and the `configurable` of its last run: a factory may build by it."""

    graph_id: str
    configurable: dict[str, Any]


class _Updated(msgspec.Struct):
    configurable: dict[str, Any]
    control_seq: int


def check_select(select: list[str] | None) -> list[str]:
    """The fields that an answer shall hold; empty for all. Raises: InvalidArgument."""
    asked = select or []
    if len(asked) > SELECT_FIELDS_MAX:
        raise InvalidArgument(f"select has more than {SELECT_FIELDS_MAX} fields", ("body", "select"))
    for name in asked:
        if name not in EMPTY_STATE and not name.startswith("values."):
            expected = f"Expected values.<key> or one of {', '.join(EMPTY_STATE)}"
            raise InvalidArgument(expected, ("body", "select"), "literal_error")
    return asked


def _located(checkpoint: Checkpoint | None) -> dict[str, Any]:
    if checkpoint is None:
        return {}
    plain: dict[str, Any] = msgspec.to_builtins(checkpoint)
    return {key: value for key, value in plain.items() if value}


async def _graph_of(context: Context, thread_id: str) -> _Graph | None:
    """The graph of the thread's last run, or the one that its creator named. Raises: NotFound, Unavailable."""
    row = await row_of(context, thread_id)
    graph_id = graph_of(row)
    return None if graph_id is None else _Graph(graph_id, msgspec.json.decode(row.config, type=_Config).configurable)


async def _ask(context: Context, graph: _Graph, question: dict[str, Any], deadline_s: float) -> bytes:
    """Raises: Unavailable when no runner has the graph, Rejected when none can, and what the runner raised."""
    graph_id = graph.graph_id
    if len(graph_id) > GRAPH_ID_CHARS_MAX:
        raise Rejected(f"the thread's graph_id has more than {GRAPH_ID_CHARS_MAX} characters")
    whole = {"graph_id": graph_id, "configurable": graph.configurable, "tenant": context.scope.tenant, **question}
    subject = subjects.graph_rpc(context.settings.region, graph_id)
    try:
        return await rpc.call(context.connection, subject, msgspec.json.encode(whole), deadline_s)
    except NoResponder as error:
        raise Unavailable(f"no runner that has the graph {graph_id!r} is up") from error


async def get_state(
    context: Context, thread_id: str, checkpoint: Checkpoint | None = None, *, subgraphs: bool = False,
    select: list[str] | None = None,
) -> Any:  # fmt: skip
    """The thread's state, at a checkpoint or now; the empty shape for a thread without a graph.

    Raises: NotFound (thread, checkpoint), Rejected, InvalidArgument, Unavailable.
    """
    fields = check_select(select)
    where = _located(checkpoint)
    graph = await _graph_of(context, thread_id)
    if graph is None:
        return {name: EMPTY_STATE[name] for name in fields if name in EMPTY_STATE} if fields else EMPTY_STATE
    is_newest = not where and newest_state.tells_more(fields)
    asked = newest_state.needed(fields) if is_newest else fields
    question = {"ask": "state", "thread_id": thread_id, "checkpoint": where, "subgraphs": subgraphs, "select": asked}
    found = await _ask(context, graph, question, REQUEST_DEADLINE_S)
    if not is_newest:
        return msgspec.Raw(found)
    newest = newest_state.read(found)
    if newest.next and not newest.asked:
        return newest_state.shown(found, fields)
    # Read behind the state: a run that began and ended before does not count.
    thread = (await context.control.head(context.scope, thread_id)).state
    if thread is None:
        return newest_state.shown(found, fields)
    if not rs.is_busy(thread) and newest.asked - newest_state.open_in(thread):
        # The state is older than the end of the run that has answered.
        found = await _ask(context, graph, question, REQUEST_DEADLINE_S)
        newest = newest_state.read(found)
    return newest_state.shown(
        found, fields, newest_state.next_of(thread, newest, now_ms()), newest_state.answered_in(thread, newest)
    )


async def history(
    context: Context, thread_id: str, *, limit: int = 1, before: str | None = None,
    metadata: dict[str, Any] | None = None, at: Checkpoint | None = None, select: list[str] | None = None,
) -> list[msgspec.Raw]:  # fmt: skip
    """The thread's states, newest first; none for a thread without a graph. `at` names a subgraph by its namespace, and
    with an id that one state alone.

    Raises: NotFound, Rejected, InvalidArgument, TooLarge, Unavailable.
    """
    bounded(limit, 1, HISTORY_LIMIT_MAX, ("body", "limit"))
    fields = check_select(select)
    graph = await _graph_of(context, thread_id)
    out: list[msgspec.Raw] = []
    where = at or Checkpoint()
    size = 0
    while graph is not None and len(out) < limit:
        question = {"ask": "history", "thread_id": thread_id, "namespace": where.checkpoint_ns or "",
                    "checkpoint_id": where.checkpoint_id, "before": before, "metadata": metadata or {},
                    "limit": limit - len(out), "select": fields}  # fmt: skip
        answer = await _ask(context, graph, question, STATE_ANSWER_DEADLINE_S)
        page = msgspec.json.decode(answer, type=_Page)
        out.extend(page.states)
        size += len(answer)
        if size > HISTORY_BYTES_MAX:
            text = f"the history is larger than {HISTORY_BYTES_MAX} bytes: ask with a smaller limit, and page by before"
            raise TooLarge(text)
        before = page.before
        if before is None:
            break
    return out


async def update_state(
    context: Context, thread_id: str, supersteps: list[list[Update]], checkpoint: Checkpoint | None = None
) -> dict[str, Any]:
    """Write the thread's state behind a checkpoint, or the newest one; returns where the new checkpoint lies.

    Raises: NotFound, Rejected (no graph, or the graph refuses), Conflict (a run executes or waits, or somebody else was
    first), Unavailable (the state may have been written).
    """
    check_supersteps(supersteps)
    graph = await _graph_of(context, thread_id)
    if graph is None:
        raise Rejected("The thread has no graph: run one on it, or create it with metadata.graph_id.")
    question = {"ask": "update", "thread_id": thread_id, "command_id": new_run_id(), "supersteps": supersteps,
                "checkpoint": _located(checkpoint)}  # fmt: skip
    where = await _write(context, graph, question)
    return {"checkpoint": where, "configurable": where, "checkpoint_id": where["checkpoint_id"]}


def check_supersteps(supersteps: list[list[Update]]) -> None:
    """Raises: InvalidArgument."""
    if not 0 < len(supersteps) <= SUPERSTEPS_MAX or not all(supersteps):
        raise InvalidArgument(f"Expected 1 to {SUPERSTEPS_MAX} supersteps with updates", ("body", "supersteps"))


async def check_runner(context: Context, graph_id: str) -> None:
    """Raises: Unavailable when no runner has the graph."""
    await _ask(context, _Graph(graph_id, {}), {"ask": "has"}, REQUEST_DEADLINE_S)


async def _write(context: Context, graph: _Graph, question: dict[str, Any]) -> dict[str, Any]:
    answer = await _ask(context, graph, question, STATE_ANSWER_DEADLINE_S)
    updated = msgspec.json.decode(answer, type=_Updated)
    context.written = max(context.written, updated.control_seq)
    await context.projected(updated.control_seq, CREATE_PROJECTION_WAIT_S)
    return updated.configurable


async def copy_state(context: Context, source_id: str, thread_id: str) -> None:
    """Give a new thread the checkpoints and the state of another. Raises: NotFound, Conflict, Unavailable."""
    graph = await _graph_of(context, source_id)
    if graph is not None:
        question = {"ask": "update", "thread_id": thread_id, "command_id": new_run_id(), "supersteps": [],
                    "source": source_id}  # fmt: skip
        await _write(context, graph, question)


async def keep_latest(context: Context, thread_id: str) -> bool:
    """Forget every checkpoint but the newest ones; False for a thread that runs or waits, which keeps them.

    Raises: NotFound, Rejected, Unavailable.
    """
    graph = await _graph_of(context, thread_id)
    if graph is None:
        return True
    answer = await _ask(context, graph, {"ask": "prune", "thread_id": thread_id}, STATE_ANSWER_DEADLINE_S)
    return msgspec.json.decode(answer, type=bool)
