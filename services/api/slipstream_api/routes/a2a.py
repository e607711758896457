"""The Agent2Agent protocol over JSON-RPC, and the cards by which agents are found."""

from collections.abc import AsyncGenerator
from typing import Any

from litestar import Request, Response, get, post
from litestar.types import ASGIApp

from slipstream_api import a2a, jsonrpc
from slipstream_api.context import Context
from slipstream_api.problems import as_json
from slipstream_api.render.a2a import TaskView, frame
from slipstream_api.render.outcome import Outcome
from slipstream_api.route_groups import AGENT_CARD
from slipstream_api.routes.events import SSE_HEADERS
from slipstream_api.routes.runs import waiting
from slipstream_api.sse import Empty, Stream
from slipstream_postgres.rows import AssistantRow
from slipstream_schemas.errors import Conflict, InvalidArgument, Rejected, TooLarge
from slipstream_schemas.seq import last_of

AnyRequest = Request[Any, Any, Any]
UNFINISHED = ("pending", "running")


@get(AGENT_CARD)
async def get_card(request: AnyRequest) -> Response[bytes]:
    """What the agent of an assistant says of itself."""
    assistant_id = request.query_params.get("assistant_id")
    if not assistant_id:
        raise InvalidArgument("Field required", ("query", "assistant_id"), "missing")
    row = await a2a.agent(request.state.context, assistant_id)
    return as_json(a2a.card(row, str(request.base_url)))


@post("/a2a/{assistant_id:str}", status_code=200)
async def receive(request: AnyRequest, assistant_id: str) -> ASGIApp:
    """A call of another agent."""
    context: Context = request.state.context
    try:
        call = await jsonrpc.read(request)
    except jsonrpc.Failed as error:
        return jsonrpc.refused(error).to_asgi_response(None, request)
    row = await a2a.agent(context, assistant_id)
    if not call.wants_answer:
        return Empty(202)
    try:
        return await _answer(request, call, row)
    except TooLarge:
        raise
    except (Rejected, Conflict) as error:
        return jsonrpc.refused(error, call).to_asgi_response(None, request)


async def _answer(request: AnyRequest, call: jsonrpc.Call, row: AssistantRow) -> ASGIApp:
    context: Context = request.state.context
    match call.method:
        case "message/send" | "message/stream":
            return await _send(request, call, row)
        case "tasks/get":
            place = await a2a.place_of(context, row, jsonrpc.params_of(call, a2a.TaskParams).id)
            if place.status in UNFINISHED:
                return _told(request, call, _view(place.run_id, place.thread_id), place.status)
        case "tasks/resubscribe":
            place = await a2a.place_of(context, row, jsonrpc.params_of(call, a2a.TaskParams).id)
            return _stream(context, call, _view(place.run_id, place.thread_id), place.thread_id, place.log_seq)
        case "tasks/cancel":
            place = await a2a.place_of(context, row, jsonrpc.params_of(call, a2a.TaskParams).id, "update")
            await a2a.cancel(context, place)
        case _:
            raise jsonrpc.Failed(jsonrpc.METHOD_NOT_FOUND, f"Unknown method: {str(call.method)[:80]}")
    return _finished(context, call, place.thread_id, place.run_id, place.log_seq)


async def _send(request: AnyRequest, call: jsonrpc.Call, row: AssistantRow) -> ASGIApp:
    context: Context = request.state.context
    params: a2a.SendParams = jsonrpc.params_of(call, a2a.SendParams)
    accepted = await a2a.send(context, row, params)
    view = _view(accepted.run_id, accepted.thread_id)
    if call.method == "message/stream":
        return _stream(context, call, view, accepted.thread_id, accepted.log_seq)
    if params.configuration is not None and params.configuration.blocking is False:
        return _told(request, call, view, "pending")
    return _finished(context, call, accepted.thread_id, accepted.run_id, accepted.log_seq)


def _view(run_id: str, thread_id: str) -> TaskView:
    return TaskView(Outcome(run_id), thread_id)


def _told(request: AnyRequest, call: jsonrpc.Call, view: TaskView, status: str) -> ASGIApp:
    """A task as it is now."""
    return as_json(jsonrpc.result(call, view.task(status))).to_asgi_response(None, request)


def _finished(context: Context, call: jsonrpc.Call, thread_id: str, run_id: str, log_seq: int) -> ASGIApp:
    """A task when it is over."""

    def shape(outcome: Outcome) -> dict[str, Any]:
        return jsonrpc.result(call, TaskView(outcome, thread_id).task())

    return waiting(context, thread_id, run_id, log_seq, {}, shape=shape)


def _stream(context: Context, call: jsonrpc.Call, view: TaskView, thread_id: str, log_seq: int) -> ASGIApp:
    """A task from its beginning to its end."""

    async def pieces() -> AsyncGenerator[bytes]:
        yield frame(call.id, view.task("pending"))
        async with context.tails.open(context.scope, thread_id, last_of(log_seq)) as tail:
            async for batch in tail:
                frames = [frame(call.id, event) for record in batch for event in view.feed(record)]
                if frames:
                    yield b"".join(frames)
                if view.run.done:
                    return

    return Stream(pieces(), context.heart, SSE_HEADERS)


ROUTES = [get_card, receive]
