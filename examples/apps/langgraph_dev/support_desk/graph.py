"""A support desk: looks for the help page that comes nearest to the question, and streams its answer."""

import os
from typing import Any

from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.store.base import BaseStore

PAGES = ("help", "pages")


class Desk(MessagesState, total=False):
    """A conversation, and the page that was found."""

    page: str


async def look(state: Desk, store: BaseStore) -> dict[str, Any]:
    """Find a page."""
    get_stream_writer()({"looking": True})
    found = await store.asearch(PAGES, query=_question(state["messages"]), limit=1)
    return {"page": found[0].value["text"] if found else "nothing"}


async def answer(state: Desk, config: RunnableConfig) -> dict[str, Any]:
    """Say what it says, to the customer by name."""
    name = config.get("configurable", {}).get("x-customer-name", "customer")
    text = f"Dear {name}, our pages say: {state.get('page')}. {os.environ['SUPPORT_SIGNATURE']}"
    return {"messages": [await FakeListChatModel(responses=[text]).ainvoke(state["messages"])]}


def _question(messages: list[AnyMessage]) -> str:
    return str(messages[-1].content)


builder = StateGraph(Desk)
builder.add_node("look", look)
builder.add_node("answer", answer)
builder.add_edge(START, "look")
builder.add_edge("look", "answer")
graph = builder.compile()
