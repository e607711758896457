"""A booking that waits for a human, made by a factory for each run."""

from typing import Any

from fares import fare
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict


class Booking(TypedDict, total=False):
    """A booking on its way."""

    city: str
    price: int
    booked: bool


def make_graph(config: RunnableConfig) -> Any:
    """A graph whose prices are those of the customer's class."""
    factor = 2 if config.get("configurable", {}).get("first_class") else 1

    def price(state: Booking) -> Booking:
        return {"price": factor * fare(state.get("city", "Vienna"))}

    def confirm(state: Booking) -> Booking:
        return {"booked": interrupt({"pay": state.get("price")}) == "yes"}

    builder = StateGraph(Booking)
    builder.add_node("price", price)
    builder.add_node("confirm", confirm)
    builder.add_edge(START, "price")
    builder.add_edge("price", "confirm")
    return builder.compile()
