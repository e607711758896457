"""Graphs that fail in a node, at the root and in a subgraph."""

from collections.abc import Sequence
from typing import Any, TypedDict

from fake_model import FakeModel
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.graph import START, MessagesState, StateGraph

COMPLAINT = "boom: the stove is on fire"


def promise(messages: Sequence[BaseMessage]) -> AIMessage:
    """What is said before it fails."""
    return AIMessage("Dinner is nearly ready.")


model = FakeModel(script=promise, delay_s=0.0)


async def cook(state: MessagesState) -> dict[str, Any]:
    """Say something that goes well."""
    return {"messages": [await model.ainvoke(state["messages"])]}


def serve(state: MessagesState) -> dict[str, Any]:
    """Fail with a text that a developer wants to read."""
    raise ValueError(COMPLAINT)


boom = (
    StateGraph(MessagesState)
    .add_node("cook", cook)
    .add_node("serve", serve)
    .add_edge(START, "cook")
    .add_edge("cook", "serve")
    .compile()
)
nested = StateGraph(MessagesState).add_node("kitchen", boom).add_edge(START, "kitchen").compile()


class Votes(TypedDict, total=False):
    """Where two cannot have their way."""

    asked: str
    winner: str


clash = (
    StateGraph(Votes)
    .add_node("left", lambda state: {"winner": "left"})
    .add_node("right", lambda state: {"winner": "right"})
    .add_edge(START, "left")
    .add_edge(START, "right")
    .compile()
)
