"""A concierge that remembers where a customer likes to go, over all of the customer's threads."""

import os
from dataclasses import dataclass
from typing import Any

from fares import FARES, fare
from langchain_core.language_models import FakeListChatModel
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime


@dataclass
class Context:
    """Who is asking."""

    customer: str = "somebody"


def wanted_city(text: str) -> str | None:
    """The first city that the text names."""
    return next((city for city in FARES if city.lower() in text.lower()), None)


async def answer(state: MessagesState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Answer with a price, and keep the city for the next time."""
    assert runtime.store is not None
    place = ("customers", runtime.context.customer)
    known = await runtime.store.aget(place, "city")
    city = wanted_city(str(state["messages"][-1].content)) or (known.value["name"] if known else None)
    if city is None:
        reply = "Where would you like to go?"
    else:
        await runtime.store.aput(place, "city", {"name": city})
        reply = f"{os.environ['AGENCY_NAME']}: {city} is {fare(city)} euros."
    model = FakeListChatModel(responses=[reply])
    return {"messages": [await model.ainvoke(state["messages"])]}


builder = StateGraph(MessagesState, context_schema=Context)
builder.add_node("answer", answer)
builder.add_edge(START, "answer")
graph = builder.compile()
