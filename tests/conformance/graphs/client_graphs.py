"""Graphs that show a client what the examples do not: interrupts side by side, nested subgraphs, a failure.

Where a test must act in the middle of a run, the run waits at a gate: a file that the test creates once it has seen
enough.
"""

import asyncio
import operator
import os
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, TypedDict

from fake_model import FakeModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt


async def opened(gate: str) -> None:
    """Wait until the file exists."""
    while not os.path.exists(gate):  # A file is what a test in any language can create.
        await asyncio.sleep(0.02)


class Answers(TypedDict, total=False):
    """What both humans said, and the gate at which an answer is worked on."""

    answers: Annotated[list[str], operator.add]
    gate: str


def ask(who: str) -> Any:
    """A node that waits for one of them."""

    def node(state: Answers) -> dict[str, Any]:
        return {"answers": [f"{who}: {interrupt({'who': who})}"]}

    return node


approvals = (
    StateGraph(Answers)
    .add_node("first", ask("first"))
    .add_node("second", ask("second"))
    .add_edge(START, "first")
    .add_edge(START, "second")
    .compile()
)


async def answer(state: Answers) -> dict[str, Any]:
    """Ask, and work on the answer until the gate is open."""
    said = interrupt({"question": "Sure?"})
    await opened(state.get("gate", ""))
    return {"answers": [str(said)]}


answering = StateGraph(Answers).add_node("answer", answer).add_edge(START, "answer").compile()


class Depth(TypedDict, total=False):
    """How often the innermost node ran, and the gate at which it waits."""

    count: int
    gate: str


def report(messages: Sequence[BaseMessage]) -> AIMessage:
    """What is heard from so deep."""
    return AIMessage("All is well down here.")


model = FakeModel(script=report, delay_s=0)


async def work(state: Depth) -> dict[str, Any]:
    """The innermost node. Behind the gate, a client has subscribed to each level before anything comes of it."""
    if "gate" in state:
        await opened(state["gate"])
    await model.ainvoke("report")
    return {"count": state.get("count", 0) + 1}


def host(name: str, inner: Any, state: Any = Depth) -> Any:
    """A graph of one node."""
    return StateGraph(state).add_node(name, inner).add_edge(START, name).compile()


deep = host("outer", host("middle", host("inner", host("work", work))))
buried = host("outer", host("middle", host("ask", ask("deep"), Answers), Answers), Answers)


class Halting(FakeModel):
    """Says two words, then waits at the gate that the human has named."""

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        said = 0
        async for piece in super()._astream(messages, stop, run_manager, **kwargs):
            yield piece
            said += 1
            if said == 2:
                await opened(str(messages[-1].content))


halting_model = Halting(script=report, delay_s=0)


async def halt(state: MessagesState) -> dict[str, Any]:
    """Ask the model."""
    return {"messages": [await halting_model.ainvoke(state["messages"])]}


halting = StateGraph(MessagesState).add_node("halt", halt).add_edge(START, "halt").compile()


def fail(state: Depth) -> dict[str, Any]:
    """Fail for a reason that may be told."""
    raise ValueError("the node failed")


failing = host("fail", fail)
