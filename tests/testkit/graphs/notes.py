"""Custom events: two names, one without a name, and one inside of a subgraph."""

from typing import Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph


class Notes(TypedDict, total=False):
    """How many were written."""

    count: int


def write(state: Notes) -> dict[str, Any]:
    """Write all kinds."""
    note = get_stream_writer()
    for number in range(3):
        note({"name": "progress", "number": number})
        note({"name": "cost", "cents": number * 10})
    note({"unnamed": True})
    note("just a text")
    return {"count": 8}


def inside(state: Notes) -> dict[str, Any]:
    """Write in a subgraph."""
    get_stream_writer()({"name": "progress", "number": 99})
    return {"count": state.get("count", 0) + 1}


child = StateGraph(Notes).add_node("inside", inside).add_edge(START, "inside").compile()
graph = (
    StateGraph(Notes)
    .add_node("write", write)
    .add_node("child", child)
    .add_edge(START, "write")
    .add_edge("write", "child")
    .compile()
)
