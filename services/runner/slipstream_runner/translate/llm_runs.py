"""Which model call a chunk belongs to: LangGraph's stream does not say, and ids of providers may repeat or change.

A side handler hears each model call begin, with the metadata that LangGraph then streams beside each of the call's
messages: the very same object, one for each call, so its identity names the call. Hearing every chunk instead would
cost as much as translating it. The handler does not stream, so it does not change how models are driven.

Prompts given to one `agenerate` share an object; their messages are then told apart by their own ids.
"""

from collections import OrderedDict
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from slipstream_schemas.limits import MODEL_CALLS_REMEMBERED_MAX


class LlmRuns(BaseCallbackHandler):
    """Ties messages to model calls, and notes the calls that failed."""

    run_inline = True

    def __init__(self) -> None:
        # The objects are held, so that no other one gets their identity. Threads call in, so each change is one step.
        self._calls: OrderedDict[int, tuple[dict[str, Any], str | None]] = OrderedDict()
        self.failed: list[tuple[str, BaseException]] = []

    def run_of(self, metadata: dict[str, Any]) -> str | None:
        """The model call whose messages are streamed with this metadata object; None: no call's, or several calls'."""
        known = self._calls.get(id(metadata))
        return None if known is None else known[1]

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[Any],
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Remember a call."""
        if metadata is None:
            return  # LangGraph streams nothing of it.
        shared = id(metadata) in self._calls
        self._calls[id(metadata)] = (metadata, None if shared else str(run_id))
        if len(self._calls) > MODEL_CALLS_REMEMBERED_MAX:
            self._calls.popitem(last=False)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Note a failed call."""
        self.failed.append((str(run_id), error))
