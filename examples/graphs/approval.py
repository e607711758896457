"""A human in the loop: the run stops with `input.requested` and goes on with the answer."""

from typing import Any

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict


class Refund(TypedDict, total=False):
    """A refund on its way."""

    amount: int
    approved: bool
    result: str


def ask(state: Refund) -> dict[str, Any]:
    """Ask a human; the run waits here, for days if need be."""
    answer = interrupt({"question": f"Refund {state.get('amount', 100)}?", "answers": ["yes", "no"]})
    return {"approved": answer in ("yes", True)}


def act(state: Refund) -> dict[str, Any]:
    """Do what was decided."""
    return {"result": "refunded" if state.get("approved") else "refused"}


graph = (
    StateGraph(Refund).add_node("ask", ask).add_node("act", act).add_edge(START, "ask").add_edge("ask", "act").compile()
)
