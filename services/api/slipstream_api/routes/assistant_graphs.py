"""What an assistant's graph looks like: its drawing, its schemas, its subgraphs. A runner answers."""

from typing import Any

import msgspec
from litestar import Request, Response, get

from slipstream_api.bodies import flag
from slipstream_api.context import Context
from slipstream_api.drawings import ask
from slipstream_api.problems import as_json
from slipstream_api.routes.assistants import existing
from slipstream_schemas.drawings import GraphQuestion, SchemasQuestion, SubgraphsQuestion
from slipstream_schemas.errors import InvalidArgument
from slipstream_schemas.limits import GRAPH_XRAY_MAX

AnyRequest = Request[Any, Any, Any]
_TRUTHS = {"true": True, "false": False}


def _xray(request: AnyRequest) -> bool | int:
    """Whether to draw subgraphs, or how many levels of them. Raises: InvalidArgument."""
    text = (request.query_params.get("xray") or "false").lower()
    if text in _TRUTHS:
        return _TRUTHS[text]
    if text.isascii() and text.isdigit() and len(text) < 10 and 0 < int(text) <= GRAPH_XRAY_MAX:
        return int(text)
    raise InvalidArgument(f"Expected true, false or a number from 1 to {GRAPH_XRAY_MAX}", ("query", "xray"))


@get("/assistants/{assistant_id:str}/graph")
async def get_graph(request: AnyRequest, assistant_id: str) -> Response[bytes]:
    """Nodes and edges of the graph; with `xray` of its subgraphs too."""
    context: Context = request.state.context
    xray = _xray(request)
    row = await existing(context, assistant_id)
    return as_json(await ask(context, GraphQuestion(row.graph_id, msgspec.json.decode(row.config), xray)))


@get("/assistants/{assistant_id:str}/schemas")
async def get_schemas(request: AnyRequest, assistant_id: str) -> Response[bytes]:
    """JSON schemas of the graph's input, output, state, config and context."""
    context: Context = request.state.context
    row = await existing(context, assistant_id)
    return as_json(await ask(context, SchemasQuestion(row.graph_id, msgspec.json.decode(row.config))))


@get("/assistants/{assistant_id:str}/subgraphs")
async def get_subgraphs(request: AnyRequest, assistant_id: str) -> Response[bytes]:
    """Schemas of the subgraphs by namespace; with `recurse` of nested ones too."""
    return await _subgraphs(request, assistant_id, None)


@get("/assistants/{assistant_id:str}/subgraphs/{namespace:str}")
async def get_subgraph(request: AnyRequest, assistant_id: str, namespace: str) -> Response[bytes]:
    """Schemas of the subgraph at a namespace; a nested one, `outer|inner`, needs `recurse`."""
    return await _subgraphs(request, assistant_id, namespace)


async def _subgraphs(request: AnyRequest, assistant_id: str, namespace: str | None) -> Response[bytes]:
    context: Context = request.state.context
    row = await existing(context, assistant_id)
    config, recurse = msgspec.json.decode(row.config), flag(request, "recurse")
    return as_json(await ask(context, SubgraphsQuestion(row.graph_id, config, namespace, recurse)))


ROUTES = [get_graph, get_schemas, get_subgraphs, get_subgraph]
