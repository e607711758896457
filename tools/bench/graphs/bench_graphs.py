"""The graphs that are measured: message tokens, custom events, one node."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypedDict

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph

CHUNK = "x" * 199 + " "


class State(TypedDict, total=False):
    """How many chunks, how long to wait before the first of them, and how long after each."""

    count: int
    wait_s: float
    pause_s: float


class Tokens(BaseChatModel):
    """Streams `count` chunks of 200 bytes, as fast as they are taken or with a pause behind each."""

    count: int
    pause_s: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "bench"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=CHUNK * self.count))])

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for number in range(self.count):
            piece = ChatGenerationChunk(message=AIMessageChunk(content=CHUNK))
            if run_manager is not None:
                await run_manager.on_llm_new_token(CHUNK, chunk=piece)
            yield piece
            if self.pause_s or number % 20 == 19:
                await asyncio.sleep(self.pause_s)


async def say(state: State) -> dict[str, Any]:
    """Stream a model."""
    await asyncio.sleep(state.get("wait_s", 0.0))
    await Tokens(count=state.get("count", 20), pause_s=state.get("pause_s", 0.0)).ainvoke("go")
    return {}


async def pour(state: State) -> dict[str, Any]:
    """Write custom events."""
    write = get_stream_writer()
    for number in range(state.get("count", 20)):
        write(CHUNK)
        if number % 20 == 19:
            await asyncio.sleep(0)
    return {}


async def nothing(state: State) -> dict[str, Any]:
    """One node."""
    return {"count": 1}


tokens = StateGraph(State).add_node("say", say).add_edge(START, "say").compile()
customs = StateGraph(State).add_node("pour", pour).add_edge(START, "pour").compile()
one = StateGraph(State).add_node("nothing", nothing).add_edge(START, "nothing").compile()
