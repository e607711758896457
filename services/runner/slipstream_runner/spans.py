"""Spans of nodes, model calls and tools, below that of their attempt. Names only: what was said stays in the log."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langgraph.errors import GraphBubbleUp

from slipstream_telemetry.tracing import Span, Tracing

NODE_TAG: Final = "graph:step:"
"""LangGraph tags the execution of a node with its step."""


class NodeSpans(BaseCallbackHandler):
    """Begins and ends a span for each node, model call and tool of one attempt."""

    run_inline = True

    def __init__(self, tracing: Tracing, traceparent: str) -> None:
        self._tracing, self._root = tracing, traceparent
        self._spans: dict[UUID, Span] = {}
        self._above: dict[UUID, str] = {}
        """The traceparent below which the children of a step belong, recorded or not."""

    def _begin(self, name: str, run_id: UUID, parent_run_id: UUID | None) -> None:
        span = self._tracing.start(name, self._parent(parent_run_id))
        self._spans[run_id] = span
        self._above[run_id] = span.traceparent

    def _parent(self, parent_run_id: UUID | None) -> str:
        return self._root if parent_run_id is None else self._above.get(parent_run_id, self._root)

    def _end(self, run_id: UUID, error: str = "") -> None:
        self._above.pop(run_id, None)
        span = self._spans.pop(run_id, None)
        if span is not None:
            span.end(error)

    def close(self) -> None:
        """End what is left, when the graph was cancelled."""
        for run_id in list(self._spans):
            self._end(run_id, "cancelled")

    def on_chain_start(
        self, serialized: dict[str, Any] | None, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None,
        tags: list[str] | None = None, metadata: Mapping[str, Any] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """A node begins, or one of the steps in between, which pass their parent on."""
        if any(tag.startswith(NODE_TAG) for tag in tags or ()):
            self._begin(f"node {(metadata or {}).get('langgraph_node', '')}", run_id, parent_run_id)
        else:
            self._above[run_id] = self._parent(parent_run_id)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A node is done."""
        self._end(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A node failed; an interrupt is none."""
        self._end(run_id, "" if isinstance(error, GraphBubbleUp) else type(error).__name__)

    def on_chat_model_start(
        self, serialized: dict[str, Any] | None, messages: Any, *, run_id: UUID, parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """A chat model is called."""
        self._begin(f"model {_name(serialized, kwargs)}", run_id, parent_run_id)

    def on_llm_start(
        self, serialized: dict[str, Any] | None, prompts: Any, *, run_id: UUID, parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """A model is called."""
        self._begin(f"model {_name(serialized, kwargs)}", run_id, parent_run_id)

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A model has answered."""
        self._end(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A call of a model failed."""
        self._end(run_id, type(error).__name__)

    def on_tool_start(
        self, serialized: dict[str, Any] | None, input_str: str, *, run_id: UUID, parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """A tool is called."""
        self._begin(f"tool {_name(serialized, kwargs)}", run_id, parent_run_id)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A tool has answered."""
        self._end(run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A tool failed; an interrupt is none."""
        self._end(run_id, "" if isinstance(error, GraphBubbleUp) else type(error).__name__)


@contextlib.contextmanager
def traced(tracing: Tracing, traceparent: str) -> Iterator[list[NodeSpans]]:
    """The callbacks that trace a graph; none when nobody collects traces."""
    if not tracing.is_recording:
        yield []
        return
    spans = NodeSpans(tracing, traceparent)
    try:
        yield [spans]
    finally:
        spans.close()


def _name(serialized: dict[str, Any] | None, options: dict[str, Any]) -> str:
    known = serialized or {}
    return str(options.get("name") or known.get("name") or (known.get("id") or ["unknown"])[-1])
