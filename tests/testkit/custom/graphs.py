"""A graph that shows what it was configured with."""

from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph


class State(TypedDict, total=False):
    """What it saw."""

    seen: dict[str, Any]


def look(state: State, config: RunnableConfig) -> State:
    """Keep the headers among the configurable values."""
    configurable = config.get("configurable", {})
    return {"seen": {name: value for name, value in configurable.items() if name.startswith(("x-", "author"))}}


builder = StateGraph(State)
builder.add_node("look", look)
builder.add_edge(START, "look")
graph = builder.compile()
