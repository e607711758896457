"""The Model Context Protocol over streamable HTTP."""

from typing import Any

from litestar import Request, post
from litestar.types import ASGIApp

from slipstream_api import jsonrpc, mcp
from slipstream_api.context import Context
from slipstream_api.problems import as_json
from slipstream_api.render.outcome import Outcome
from slipstream_api.routes.runs import waiting
from slipstream_api.sse import Empty
from slipstream_schemas.errors import Conflict, Rejected, TooLarge

AnyRequest = Request[Any, Any, Any]


@post("/mcp", status_code=200)
async def receive(request: AnyRequest) -> ASGIApp:
    """A message of a client: requests are answered, all else is taken in."""
    try:
        call = await jsonrpc.read(request)
    except jsonrpc.Failed as error:
        return jsonrpc.refused(error).to_asgi_response(None, request)
    if not call.wants_answer:
        return Empty(202)
    try:
        return await _answer(request, call)
    except TooLarge:
        raise
    except (Rejected, Conflict) as error:
        return jsonrpc.refused(error, call).to_asgi_response(None, request)


async def _answer(request: AnyRequest, call: jsonrpc.Call) -> ASGIApp:
    context: Context = request.state.context
    match call.method:
        case "initialize":
            value = mcp.initialized(jsonrpc.params_of(call, mcp.InitializeParams))
        case "ping":
            value = {}
        case "tools/list":
            value = await mcp.tools(context, jsonrpc.params_of(call, mcp.ListParams))
        case "tools/call":
            return await _call_tool(context, call)
        case _:
            raise jsonrpc.Failed(jsonrpc.METHOD_NOT_FOUND, f"Unknown method: {str(call.method)[:80]}")
    return as_json(jsonrpc.result(call, value)).to_asgi_response(None, request)


async def _call_tool(context: Context, call: jsonrpc.Call) -> ASGIApp:
    accepted = await mcp.call(context, jsonrpc.params_of(call, mcp.CallParams))

    def shape(outcome: Outcome) -> dict[str, Any]:
        return jsonrpc.result(call, mcp.answered(outcome))

    return waiting(context, accepted.thread_id, accepted.run_id, accepted.log_seq, {}, shape=shape)


ROUTES = [receive]
