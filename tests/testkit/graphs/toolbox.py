"""An agent whose tools stream their output, fail, and ask."""

from collections.abc import Sequence
from typing import Any

from fake_model import FakeModel
from langchain.agents import create_agent
from langchain.tools import ToolRuntime
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool

PAGES = ("page one", "page two", "page three")


@tool
def read_aloud(book: str, runtime: ToolRuntime[Any, Any]) -> str:
    """Read a book, page by page."""
    for page in PAGES:
        runtime.emit_output_delta(page)
    return f"{book}: the end"


@tool
def burn(book: str) -> str:
    """Refuse."""
    raise ValueError(f"{book} does not burn")


def choose(messages: Sequence[BaseMessage]) -> AIMessage:
    """Call the tool that the last human message names, then answer."""
    if messages[-1].type == "tool":
        return AIMessage("Done.")
    name = str(messages[-1].content)
    return AIMessage("Let me see.", tool_calls=[{"name": name, "args": {"book": "Emma"}, "id": f"call-{name}"}])


graph = create_agent(FakeModel(script=choose, delay_s=0.0), [read_aloud, burn])
