"""Reading a thread's state: at its newest checkpoint, at a named one, and its history. Answers questions of the API."""

import contextlib
from typing import Any

import msgspec
from langgraph.errors import InvalidUpdateError
from langgraph.types import StateSnapshot

from slipstream_runner.checkpoints import FencedSaver
from slipstream_runner.runtime import Runtime
from slipstream_schemas.codec import dumps, to_plain
from slipstream_schemas.errors import NotFound, Rejected
from slipstream_schemas.limits import HISTORY_PAGE_BYTES_MAX, HISTORY_PAGE_STATES
from slipstream_schemas.subjects import Scope


class StateQuestion(msgspec.Struct, tag_field="ask", tag="state"):
    """The state of a thread, or of one of its checkpoints. `configurable` is that of the thread's last run."""

    graph_id: str
    tenant: str
    thread_id: str
    configurable: dict[str, Any] = {}
    checkpoint: dict[str, Any] = {}
    subgraphs: bool = False
    select: list[str] = []


class HistoryQuestion(msgspec.Struct, tag_field="ask", tag="history"):
    """A page of the states of a thread, newest first; those of a subgraph with `namespace`.

    `before` is the checkpoint that the page lies behind; `metadata` is matched by containment; `checkpoint_id` names
    the only one that is wanted.
    """

    graph_id: str
    tenant: str
    thread_id: str
    configurable: dict[str, Any] = {}
    namespace: str = ""
    checkpoint_id: str | None = None
    before: str | None = None
    metadata: dict[str, Any] = {}
    limit: int = 1
    select: list[str] = []


class HistoryPage(msgspec.Struct):
    """The states of a page. `before` is where the next page begins, None when there is none."""

    states: list[msgspec.Raw]
    before: str | None = None


async def read_state(runtime: Runtime, question: StateQuestion) -> dict[str, Any]:
    """The state in the shape of `GET /threads/{thread_id}/state`. Raises: NotFound, Rejected, Unavailable."""
    scope = Scope(runtime.settings.region, question.tenant)
    saver = FencedSaver(runtime.checkpoints, scope, question.thread_id, None)
    configurable = {"checkpoint_ns": "", **question.checkpoint, "thread_id": question.thread_id}
    config: Any = {"configurable": configurable}
    async with (
        runtime.stores.for_graph(question.tenant) as store,
        runtime.graphs.use(question.graph_id, for_factory(config, question.configurable), saver, store) as graph,
    ):
        with refusals():
            try:
                snapshot = await graph.aget_state(config, subgraphs=question.subgraphs)
            except InvalidUpdateError:
                # What the tasks of the last superstep wrote does not go together, which failed their run. LangGraph
                # applies it to the newest checkpoint, but to none that is named.
                newest = await saver.aget_tuple(config)
                if newest is None:
                    raise
                snapshot = await graph.aget_state(newest.config, subgraphs=question.subgraphs)
    if snapshot.created_at is None and question.checkpoint.get("checkpoint_id"):
        raise NotFound("Checkpoint not found.")
    return pick(shape(snapshot), question.select)


async def read_history(runtime: Runtime, question: HistoryQuestion) -> HistoryPage:
    """One page of `POST /threads/{thread_id}/history`. Raises: NotFound, Rejected, Unavailable."""
    scope = Scope(runtime.settings.region, question.tenant)
    saver = FencedSaver(runtime.checkpoints, scope, question.thread_id, None)
    configurable = {"checkpoint_ns": question.namespace, "thread_id": question.thread_id}
    if question.checkpoint_id:
        configurable["checkpoint_id"] = question.checkpoint_id
    config: Any = {"configurable": configurable}
    before: Any = {"configurable": {"checkpoint_id": question.before}} if question.before else None
    wanted = min(question.limit, HISTORY_PAGE_STATES)
    states: list[msgspec.Raw] = []
    size, last = 0, ""
    is_full = False
    async with (
        runtime.stores.for_graph(question.tenant) as store,
        runtime.graphs.use(question.graph_id, for_factory(config, question.configurable), saver, store) as graph,
    ):
        with refusals():
            found = graph.aget_state_history(
                config,
                filter=question.metadata or None, before=before, limit=wanted,
            )  # fmt: skip
            async with contextlib.aclosing(found) as snapshots:  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
                async for snapshot in snapshots:
                    shown = shape(snapshot)
                    state = dumps(pick(shown, question.select))
                    size += len(state)
                    is_full = bool(states) and size > HISTORY_PAGE_BYTES_MAX
                    if is_full:
                        break
                    states.append(msgspec.Raw(state))
                    last = shown["checkpoint_id"]
    return HistoryPage(states, last if is_full or len(states) == wanted else None)


def for_factory(config: dict[str, Any], of_run: dict[str, Any]) -> dict[str, Any]:
    """The config with which a factory builds the graph of a question: it gets what the thread's last run gave it."""
    kept = {key: value for key, value in of_run.items() if not key.startswith("checkpoint")}
    return {**config, "configurable": {**kept, **config["configurable"]}}


@contextlib.contextmanager
def refusals() -> Any:
    """LangGraph says with a ValueError what is wrong with a request: a namespace without a subgraph, for one."""
    try:
        yield
    except ValueError as error:
        raise Rejected(str(error)) from error


def pick(state: dict[str, Any], select: list[str]) -> dict[str, Any]:
    """The named fields of a state; `values.<key>` is one key of the values."""
    if not select:
        return state
    out = {name: state[name] for name in select if name in state}
    keys = [name.removeprefix("values.") for name in select if name.startswith("values.")]
    values = state["values"]
    if keys and "values" not in out:
        out["values"] = {key: values[key] for key in keys if key in values} if isinstance(values, dict) else values
    return out


def place(config: Any) -> dict[str, Any] | None:
    """Where a checkpoint lies, as the wire has it."""
    if not config:
        return None
    where = config.get("configurable", {})
    known = {key: where[key] for key in ("checkpoint_id", "checkpoint_map") if where.get(key)}
    return {"thread_id": where.get("thread_id", ""), "checkpoint_ns": where.get("checkpoint_ns", ""), **known}


def interrupt_of(interrupt: Any) -> dict[str, Any]:
    """An interrupt as the wire has it."""
    return {"id": interrupt.id, "value": to_plain(interrupt.value)}


def _error_of(error: Any) -> str | None:
    """How a task failed. LangGraph stores the exception's `repr`, and a checkpoint gives back that text."""
    return error if error is None or isinstance(error, str) else repr(error)


def _task(task: Any) -> dict[str, Any]:
    below: Any = task.state
    is_snapshot = isinstance(below, StateSnapshot)
    return {
        "id": task.id, "name": task.name, "path": to_plain(task.path),
        "error": _error_of(task.error),
        "interrupts": [interrupt_of(each) for each in task.interrupts],
        "checkpoint": place(below.config if is_snapshot else below),
        "state": shape(below) if is_snapshot else None, "result": to_plain(task.result),
    }  # fmt: skip


def shape(snapshot: Any) -> dict[str, Any]:
    """A snapshot as the wire has it."""
    here, parent = place(snapshot.config), place(snapshot.parent_config)
    tasks = [_task(task) for task in snapshot.tasks]
    return {
        "values": to_plain(snapshot.values),
        "next": list(snapshot.next),
        "tasks": tasks,
        "metadata": to_plain(snapshot.metadata),
        "created_at": snapshot.created_at,
        "checkpoint": here,
        "parent_checkpoint": parent,
        "interrupts": [each for task in tasks for each in task["interrupts"]],
        "checkpoint_id": here.get("checkpoint_id") if here else None,
        "parent_checkpoint_id": parent.get("checkpoint_id") if parent else None,
    }
