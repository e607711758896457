"""A chat model without a network: it streams what a script says, word by word."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

Script = Callable[[Sequence[BaseMessage]], AIMessage]


class FakeModel(BaseChatModel):
    """Says what `script` makes of the conversation, one word each `delay_s`."""

    script: Script
    delay_s: float = 0.03

    @property
    def _llm_type(self) -> str:
        return "fake"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> "FakeModel":
        """Accept tools; the script knows them."""
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.script(messages))])

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        answer = self.script(messages)
        pieces = [AIMessageChunk(content=word) for word in re.findall(r"\S+\s*", str(answer.content))]
        for number, call in enumerate(answer.tool_calls):
            text = "{" + ", ".join(f'"{k}": "{v}"' for k, v in call["args"].items()) + "}"
            for name, part in ((call["name"], ""), (None, text[: len(text) // 2]), (None, text[len(text) // 2 :])):
                piece = tool_call_chunk(name=name, args=part, id=call["id"] if name else None, index=number)
                pieces.append(AIMessageChunk(content="", tool_call_chunks=[piece]))
        for said in pieces:
            generation = ChatGenerationChunk(message=said)
            if run_manager is not None:
                await run_manager.on_llm_new_token(str(said.content), chunk=generation)
            yield generation
            await asyncio.sleep(self.delay_s)
