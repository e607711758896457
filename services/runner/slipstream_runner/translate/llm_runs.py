"""Which model call a chunk belongs to: LangGraph's stream does not say, and ids of providers may repeat or change.

A side handler hears each chunk before LangGraph's own handler streams it, and remembers the call by the identity of the
chunk's message object. It does not stream, so it does not change how models are driven.
"""

from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage

REMEMBERED_MAX: Final = 20_000


class LlmRuns(BaseCallbackHandler):
    """Ties message chunks to model calls, and notes the calls that failed."""

    run_inline = True

    def __init__(self) -> None:
        self._run_of: dict[int, str] = {}
        self.failed: list[tuple[str, BaseException]] = []

    def take(self, message: BaseMessage) -> str | None:
        """The model call of a chunk; it is forgotten then."""
        return self._run_of.pop(id(message), None)

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **kwargs: Any) -> None:
        """Remember a chunk."""
        if chunk is not None:
            if len(self._run_of) > REMEMBERED_MAX:
                self._run_of.clear()
            self._run_of[id(chunk.message)] = str(run_id)

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Remember a whole message."""
        generations = getattr(response, "generations", None)
        if generations and generations[0]:
            message = getattr(generations[0][0], "message", None)
            if message is not None:
                self._run_of[id(message)] = str(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Note a failed call."""
        self.failed.append((str(run_id), error))
