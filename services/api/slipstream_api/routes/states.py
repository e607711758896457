"""Threads: their state and its history."""

from typing import Any

import msgspec
from litestar import Request, Response, get, post

from slipstream_api import access, states
from slipstream_api.bodies import flag, integer, read
from slipstream_api.context import Context
from slipstream_api.problems import as_json
from slipstream_schemas.errors import InvalidArgument
from slipstream_schemas.ids import check_thread_id
from slipstream_schemas.limits import HISTORY_LIMIT_MAX

AnyRequest = Request[Any, Any, Any]


class StateAt(msgspec.Struct):
    """Body of `POST /threads/{thread_id}/state/checkpoint`."""

    checkpoint: states.Checkpoint
    subgraphs: bool | None = None
    select: list[str] | None = None


class StateUpdate(msgspec.Struct):
    """Body of `POST /threads/{thread_id}/state`."""

    values: dict[str, Any] | list[Any] | None = None
    as_node: str | None = None
    checkpoint: states.Checkpoint | None = None
    checkpoint_id: str | None = None


class History(msgspec.Struct):
    """Body of `POST /threads/{thread_id}/history`. `before` is a checkpoint's id, a checkpoint or a config."""

    limit: int = 1
    before: str | dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    checkpoint: states.Checkpoint | None = None
    select: list[str] | None = None


def checkpoint_id_of(before: str | dict[str, Any] | None, loc: tuple[str, ...] = ("body", "before")) -> str | None:
    """The checkpoint id in any of the forms that clients send. Raises: InvalidArgument."""
    if isinstance(before, dict):
        inner = before.get("configurable", before)
        found = inner.get("checkpoint_id") if isinstance(inner, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        if not isinstance(found, str):
            raise InvalidArgument("Expected a checkpoint id, a checkpoint or a config", loc)
        return found
    return before or None


@get("/threads/{thread_id:str}/state")
async def get_state(request: AnyRequest, thread_id: str) -> Response[bytes]:
    """The newest state."""
    context: Context = request.state.context
    await access.thread(context, check_thread_id(thread_id))
    select = request.query_params.getall("select", [])
    return as_json(await states.get_state(context, thread_id, subgraphs=flag(request, "subgraphs"), select=select))


@get("/threads/{thread_id:str}/state/{checkpoint_id:str}")
async def get_state_at(request: AnyRequest, thread_id: str, checkpoint_id: str) -> Response[bytes]:
    """The state at a checkpoint."""
    context: Context = request.state.context
    await access.thread(context, check_thread_id(thread_id))
    select = request.query_params.getall("select", [])
    where = states.Checkpoint(checkpoint_id)
    return as_json(
        await states.get_state(context, thread_id, where, subgraphs=flag(request, "subgraphs"), select=select)
    )


@post("/threads/{thread_id:str}/state/checkpoint", status_code=200)
async def post_state_at(request: AnyRequest, thread_id: str) -> Response[bytes]:
    """The state at a checkpoint, which may be a subgraph's."""
    context: Context = request.state.context
    await access.thread(context, check_thread_id(thread_id))
    body = await read(request, StateAt)
    found = await states.get_state(
        context, thread_id, body.checkpoint, subgraphs=bool(body.subgraphs), select=body.select
    )
    return as_json(found)


@post("/threads/{thread_id:str}/state", status_code=200)
async def update_state(request: AnyRequest, thread_id: str) -> Response[bytes]:
    """Write the state as if a node had."""
    context: Context = request.state.context
    await access.thread(context, check_thread_id(thread_id), "update")
    body = await read(request, StateUpdate)
    where = body.checkpoint or states.Checkpoint()
    if body.checkpoint_id is not None and where.checkpoint_id is None:
        where.checkpoint_id = body.checkpoint_id
    update = states.Update(body.values, body.as_node)
    return as_json(await states.update_state(context, thread_id, [[update]], where))


@post("/threads/{thread_id:str}/history", status_code=200)
async def post_history(request: AnyRequest, thread_id: str) -> Response[bytes]:
    """The states of a thread, newest first."""
    context: Context = request.state.context
    await access.thread(context, check_thread_id(thread_id))
    body = await read(request, History)
    found = await states.history(
        context, thread_id, limit=body.limit, before=checkpoint_id_of(body.before), metadata=body.metadata,
        at=body.checkpoint, select=body.select,
    )  # fmt: skip
    return as_json(found)


@get("/threads/{thread_id:str}/history")
async def get_history(request: AnyRequest, thread_id: str) -> Response[bytes]:
    """The states of a thread, newest first."""
    context: Context = request.state.context
    await access.thread(context, check_thread_id(thread_id))
    limit = integer(request, "limit", 1, 1, HISTORY_LIMIT_MAX)
    select = request.query_params.getall("select", [])
    before = request.query_params.get("before")
    return as_json(await states.history(context, thread_id, limit=limit, before=before, select=select))


ROUTES = [get_state, get_state_at, post_state_at, update_state, post_history, get_history]
