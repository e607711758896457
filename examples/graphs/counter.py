"""A slow counter: kill whatever you like while it counts, and resume with `since`."""

import asyncio
from typing import Any

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict


class Count(TypedDict, total=False):
    """How far it is, and how far and how fast it goes."""

    count: int
    steps: int
    delay_s: float


async def step(state: Count) -> dict[str, Any]:
    """One step, one checkpoint."""
    count = state.get("count", 0) + 1
    get_stream_writer()({"name": "progress", "count": count})
    await asyncio.sleep(state.get("delay_s", 0.5))
    return {"count": count}


def more(state: Count) -> str:
    """Whether to go on."""
    return "step" if state.get("count", 0) < state.get("steps", 20) else END


graph = StateGraph(Count).add_node("step", step).add_edge(START, "step").add_conditional_edges("step", more).compile()
