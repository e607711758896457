"""A streaming chat: watch `messages` for the tokens and `values` for the state."""

from collections.abc import Sequence
from typing import Any

from fake_model import FakeModel
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.graph import START, MessagesState, StateGraph


def answer(messages: Sequence[BaseMessage]) -> AIMessage:
    """A friendly answer that shows that the history is known."""
    said = str(messages[-1].content) if messages else "nothing"
    count = sum(1 for message in messages if message.type == "human")
    return AIMessage(f"You said: {said}. That was message {count} of our conversation, and the log keeps every word.")


model = FakeModel(script=answer)


async def chat(state: MessagesState) -> dict[str, Any]:
    """Ask the model."""
    return {"messages": [await model.ainvoke(state["messages"])]}


graph = StateGraph(MessagesState).add_node("chat", chat).add_edge(START, "chat").compile()
