"""Answers on a graph's shape: its drawing, its schemas, its subgraphs.

Making schemas takes tens of milliseconds and runs the code of the user's types, so it happens in a thread: the runs of
this process go on meanwhile.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from langgraph.pregel import Pregel
from langgraph.pregel.protocol import PregelProtocol

from slipstream_runner.graphs import Graphs
from slipstream_schemas.codec import dumps
from slipstream_schemas.drawings import Drawing, DrawingQuestion, GraphQuestion, SchemasQuestion, SubgraphsQuestion
from slipstream_schemas.errors import InvalidArgument, SlipstreamError

log = logging.getLogger("slipstream.drawings")


async def answer(graphs: Graphs, question: DrawingQuestion) -> bytes:
    """A `Drawing` as JSON. Raises: NotFound, InvalidArgument for a graph that cannot be made or drawn."""
    config: dict[str, Any] = {"configurable": {}, **question.config}
    try:
        async with graphs.use(question.graph_id, config, None) as graph:
            drawn = await asyncio.to_thread(draw, graph, question)
    except SlipstreamError:
        raise
    except Exception as error:
        # A factory and the types of a state are the user's code, and fail as they like.
        log.warning("graph %s cannot be drawn", question.graph_id, exc_info=error)
        text = f"the graph {question.graph_id!r} cannot be drawn ({type(error).__name__}); the runner's log says why"
        raise InvalidArgument(text, ("path", "assistant_id")) from error
    return dumps(Drawing(graphs.version, msgspec.Raw(dumps(drawn))))


def draw(graph: "Pregel[Any, Any]", question: DrawingQuestion) -> dict[str, Any]:
    """What the question asks, in the shape of the wire. Raises: NotImplementedError."""
    match question:
        case GraphQuestion():
            return drawing(graph, question.xray)
        case SchemasQuestion():
            return {"graph_id": question.graph_id, **schemas(graph)}
        case SubgraphsQuestion():
            found = graph.get_subgraphs(namespace=question.namespace, recurse=question.recurse)
            return {namespace: schemas(subgraph) for namespace, subgraph in found}


def drawing(graph: "Pregel[Any, Any]", xray: bool | int) -> dict[str, Any]:
    """Nodes and edges, without the modules in which the nodes' classes lie."""
    drawn = graph.get_graph(xray=xray).to_json()
    for node in drawn["nodes"]:
        if isinstance(node.get("data"), dict):
            node["data"].pop("id", None)
    return drawn


def schemas(graph: "PregelProtocol[Any, Any]") -> dict[str, Any]:
    """A graph's JSON schemas; null for one that its types do not have."""
    if not isinstance(graph, Pregel):
        return dict.fromkeys(("input_schema", "output_schema", "state_schema", "config_schema", "context_schema"))
    return {
        "input_schema": _schema(graph, "input", graph.get_input_jsonschema),
        "output_schema": _schema(graph, "output", graph.get_output_jsonschema),
        "state_schema": _schema(graph, "state", lambda: _state_schema(graph)),
        # `configurable` is what became the context, so its schema is the same.
        "config_schema": _schema(graph, "config", lambda: graph.get_context_jsonschema() or {}),
        "context_schema": _schema(graph, "context", graph.get_context_jsonschema),
    }


def _schema(graph: "Pregel[Any, Any]", name: str, make: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
    try:
        return make()
    except Exception as error:
        # The user's types decide whether they can be described, and how they fail.
        log.warning("graph %s has no %s schema: %s: %s", graph.name, name, type(error).__name__, error)
        log.debug("why the graph %s has no %s schema", graph.name, name, exc_info=error)
        return None


def _state_schema(graph: "Pregel[Any, Any]") -> dict[str, Any]:
    """All channels of the state, whatever input and output show of it."""
    whole = graph.copy(update={"output_channels": list(graph.stream_channels_list)})
    # Called on the base class: a compiled StateGraph would describe its output type instead.
    return {**Pregel.get_output_schema(whole).model_json_schema(), "title": graph.get_name("State")}
