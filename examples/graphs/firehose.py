"""A firehose of custom events, to see what the log takes."""

import asyncio
from typing import Any

from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

FILLER = "x" * 160


class Flood(TypedDict, total=False):
    """How many events to send, and how many were sent."""

    count: int
    sent: int


async def pour(state: Flood) -> dict[str, Any]:
    """Send the events, giving way to others every hundred."""
    write, count = get_stream_writer(), state.get("count", 1000)
    for number in range(count):
        write({"number": number, "filler": FILLER})
        if number % 100 == 99:
            await asyncio.sleep(0)
    return {"sent": count}


graph = StateGraph(Flood).add_node("pour", pour).add_edge(START, "pour").compile()
