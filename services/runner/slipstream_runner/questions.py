"""Questions about graphs, asked by the API over request and reply: user code never runs there."""

import contextlib
from typing import Any

import msgspec

from slipstream_nats import rpc
from slipstream_runner import drawings
from slipstream_runner.checkpoints import FencedSaver
from slipstream_runner.runtime import Runtime
from slipstream_schemas import subjects
from slipstream_schemas.codec import dumps, to_plain
from slipstream_schemas.drawings import DrawingQuestion
from slipstream_schemas.errors import Rejected
from slipstream_schemas.subjects import Scope


class StateQuestion(msgspec.Struct, tag_field="ask", tag="state"):
    """The state of a thread, or of one of its checkpoints."""

    graph_id: str
    tenant: str
    thread_id: str
    checkpoint: dict[str, Any] = {}
    subgraphs: bool = False


class HasQuestion(msgspec.Struct, tag_field="ask", tag="has"):
    """Whether anybody has the graph; to be answered is the answer."""

    graph_id: str


Question = StateQuestion | HasQuestion | DrawingQuestion
_decode = msgspec.json.Decoder(Question).decode


async def serve(runtime: Runtime) -> None:
    """Answer questions on every graph of this runner. Raises: Unavailable."""

    async def answer(body: bytes) -> bytes:
        question = _decode(body)
        if isinstance(question, HasQuestion):
            return b"true"
        if isinstance(question, DrawingQuestion):
            return await drawings.answer(runtime.graphs, question)
        return dumps(await read_state(runtime, question))

    for graph_id in runtime.graphs.ids:
        await rpc.serve(runtime.connection, subjects.graph_rpc(runtime.settings.region, graph_id), answer, "runners")


async def read_state(runtime: Runtime, question: StateQuestion) -> dict[str, Any]:
    """The state in the shape of `GET /threads/{thread_id}/state`. Raises: NotFound, Rejected."""
    scope = Scope(runtime.settings.region, question.tenant)
    saver = FencedSaver(runtime.checkpoints, scope, question.thread_id, None)
    configurable = {"checkpoint_ns": "", **question.checkpoint, "thread_id": question.thread_id}
    config: dict[str, Any] = {"configurable": configurable}
    async with runtime.graphs.use(question.graph_id, config, saver) as graph:
        try:
            snapshot = await graph.aget_state(config, subgraphs=question.subgraphs)  # type: ignore[arg-type]
        except ValueError as error:
            raise Rejected(str(error)) from error
    return shape(snapshot)


def _place(config: Any) -> dict[str, Any] | None:
    if not config:
        return None
    where = config.get("configurable", {})
    return {key: where.get(key, "") for key in ("checkpoint_id", "thread_id", "checkpoint_ns")}


def _interrupt(interrupt: Any) -> dict[str, Any]:
    return {"id": interrupt.id, "value": to_plain(interrupt.value)}


def _task(task: Any) -> dict[str, Any]:
    state = task.state
    nested = None
    with contextlib.suppress(AttributeError):
        nested = (
            shape(state) if state is not None and hasattr(state, "values") and not isinstance(state, dict) else None
        )
    return {
        "id": task.id, "name": task.name, "path": to_plain(task.path),
        "error": None if task.error is None else repr(task.error),
        "interrupts": [_interrupt(each) for each in task.interrupts],
        "checkpoint": _place(state) if isinstance(state, dict) else None,
        "state": nested, "result": to_plain(task.result),
    }  # fmt: skip


def shape(snapshot: Any) -> dict[str, Any]:
    """A snapshot as the wire has it."""
    place, parent = _place(snapshot.config), _place(snapshot.parent_config)
    tasks = [_task(task) for task in snapshot.tasks]
    return {
        "values": to_plain(snapshot.values),
        "next": list(snapshot.next),
        "tasks": tasks,
        "metadata": to_plain(snapshot.metadata),
        "created_at": snapshot.created_at,
        "checkpoint": place,
        "parent_checkpoint": parent,
        "interrupts": [each for task in tasks for each in task["interrupts"]],
        "checkpoint_id": place.get("checkpoint_id") if place else None,
        "parent_checkpoint_id": parent.get("checkpoint_id") if parent else None,
    }
