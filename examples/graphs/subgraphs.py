"""Subgraphs two levels deep: watch `lifecycle` and the namespaces of `messages`."""

from collections.abc import Sequence
from typing import Any

from fake_model import FakeModel
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph


def report(messages: Sequence[BaseMessage]) -> AIMessage:
    """What the researcher found."""
    return AIMessage("The researcher found three sources and read them all.")


model = FakeModel(script=report)


async def research(state: MessagesState) -> dict[str, Any]:
    """Say what is going on, then report."""
    get_stream_writer()({"name": "progress", "sources": 3})
    return {"messages": [await model.ainvoke(state["messages"])]}


def review(state: MessagesState) -> dict[str, Any]:
    """The outer graph has the last word."""
    return {"messages": [AIMessage("Reviewed and approved.")]}


researcher = StateGraph(MessagesState).add_node("research", research).add_edge(START, "research").compile()
team = StateGraph(MessagesState).add_node("researcher", researcher).add_edge(START, "researcher").compile()
graph = (
    StateGraph(MessagesState)
    .add_node("team", team)
    .add_node("review", review)
    .add_edge(START, "team")
    .add_edge("team", "review")
    .compile()
)
