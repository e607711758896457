"""Graphs whose messages are hard to tell apart."""

import asyncio
from collections.abc import Sequence
from typing import Any

from fake_model import FakeModel
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.graph import START, MessagesState, StateGraph

VERSES = ("one two three four five six", "uno due tre quattro cinque sei")


def first(messages: Sequence[BaseMessage]) -> AIMessage:
    """What the first voice sings."""
    return AIMessage(VERSES[0])


def second(messages: Sequence[BaseMessage]) -> AIMessage:
    """What the second voice sings."""
    return AIMessage(VERSES[1])


voices = (FakeModel(script=first, delay_s=0.005), FakeModel(script=second, delay_s=0.005))


async def sing(state: MessagesState) -> dict[str, Any]:
    """Two models at once, in one node: their tokens interleave."""
    sung = await asyncio.gather(*(voice.ainvoke(state["messages"]) for voice in voices))
    return {"messages": list(sung)}


duet = StateGraph(MessagesState).add_node("sing", sing).add_edge(START, "sing").compile()


async def dig(state: MessagesState) -> dict[str, Any]:
    """A worker's message, inside of its subgraph."""
    return {"messages": [await voices[0].ainvoke(state["messages"])]}


async def file_away(state: MessagesState) -> dict[str, Any]:
    """Another worker's message, inside of its subgraph."""
    return {"messages": [await voices[1].ainvoke(state["messages"])]}


digger = StateGraph(MessagesState).add_node("dig", dig).add_edge(START, "dig").compile()
clerk = StateGraph(MessagesState).add_node("file", file_away).add_edge(START, "file").compile()
delegation = (
    StateGraph(MessagesState)
    .add_node("digger", digger)
    .add_node("clerk", clerk)
    .add_edge(START, "digger")
    .add_edge(START, "clerk")
    .compile()
)
