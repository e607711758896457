"""Graphs that ask humans: after streaming, two at once, inside of a subgraph, and one question after the other."""

import asyncio
import operator
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from fake_model import FakeModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

SUMMARY = "The refund is due because the parcel never arrived."
DRAFTS = 5


class Answers(TypedDict, total=False):
    """What was answered."""

    answers: Annotated[list[str], operator.add]


def summarise(messages: Sequence[BaseMessage]) -> AIMessage:
    """A message that must be there in full before the question."""
    return AIMessage(SUMMARY)


model = FakeModel(script=summarise, delay_s=0.0)


async def draft(state: MessagesState) -> dict[str, Any]:
    """Stream custom events and a message, right before the question."""
    write = get_stream_writer()
    for number in range(DRAFTS):
        write({"name": "draft", "number": number})
    return {"messages": [await model.ainvoke(state["messages"])]}


def sign(state: MessagesState) -> dict[str, Any]:
    """Ask for a signature."""
    return {"messages": [AIMessage(f"Signed by {interrupt({'question': 'Who signs?'})}")]}


async def send(state: MessagesState) -> dict[str, Any]:
    """Stream once more after the answer."""
    get_stream_writer()({"name": "draft", "number": DRAFTS})
    return {"messages": [await model.ainvoke(state["messages"])]}


briefing = (
    StateGraph(MessagesState)
    .add_node("draft", draft)
    .add_node("sign", sign)
    .add_node("send", send)
    .add_edge(START, "draft")
    .add_edge("draft", "sign")
    .add_edge("sign", "send")
    .compile()
)


def left(state: Answers) -> dict[str, Any]:
    """One of two questions at once."""
    return {"answers": [f"left={interrupt({'question': 'left?'})}"]}


def right(state: Answers) -> dict[str, Any]:
    """The other one."""
    return {"answers": [f"right={interrupt({'question': 'right?'})}"]}


panel = (
    StateGraph(Answers)
    .add_node("left", left)
    .add_node("right", right)
    .add_edge(START, "left")
    .add_edge(START, "right")
    .compile()
)

asker = StateGraph(Answers).add_node("left", left).add_edge(START, "left").compile()
nested = StateGraph(Answers).add_node("asker", asker).add_edge(START, "asker").compile()

two_in_a_row = (
    StateGraph(Answers)
    .add_node("left", left)
    .add_node("right", right)
    .add_edge(START, "left")
    .add_edge("left", "right")
    .compile()
)

failed: set[str] = set()


def moody(state: Answers, config: RunnableConfig) -> dict[str, Any]:
    """One of two questions at once, which fails on the first answer that is no."""
    answer = interrupt({"question": "left?"})
    thread_id = str(config.get("configurable", {}).get("thread_id"))
    if answer == "no" and thread_id not in failed:
        failed.add(thread_id)
        raise ValueError("no is no answer")
    return {"answers": [f"left={answer}"]}


moody_panel = (
    StateGraph(Answers)
    .add_node("left", moody)
    .add_node("right", right)
    .add_edge(START, "left")
    .add_edge(START, "right")
    .compile()
)


async def reluctant(state: Answers) -> dict[str, Any]:
    """A question whose answer "slow" keeps the run busy for as long as nobody stops it."""
    answer = interrupt({"question": "left?"})
    if answer == "slow":
        get_stream_writer()({"name": "held"})
        await asyncio.Event().wait()
    return {"answers": [f"left={answer}"]}


below = StateGraph(Answers).add_node("reluctant", reluctant).add_edge(START, "reluctant").compile()
reluctant_panel = (
    StateGraph(Answers)
    .add_node("below", below)
    .add_node("right", right)
    .add_edge(START, "below")
    .add_edge(START, "right")
    .compile()
)
