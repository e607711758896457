"""Spans of a real graph, through the SDK's own exporter in memory."""

import asyncio
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from slipstream_runner.spans import traced
from slipstream_schemas.traceparent import trace_id_of
from slipstream_telemetry.otel import RecordingTracing
from slipstream_telemetry.tracing import Tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class State(TypedDict, total=False):
    said: str


class Recorded:
    """Tracing, and what it has recorded."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = RecordingTracing(provider)

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """The spans that have ended, by name."""
        return {span.name: span for span in self._exporter.get_finished_spans()}


@pytest.fixture
def recorded() -> Recorded:
    """Tracing in memory."""
    return Recorded()


def graph_of(node: Any) -> Any:
    """A graph with a subgraph of one node."""
    inner = StateGraph(State).add_node("inner", node).add_edge(START, "inner").compile()
    outer = StateGraph(State).add_node("outer", inner).add_edge(START, "outer")
    return outer.compile(checkpointer=InMemorySaver())


async def run(recorded: Recorded, node: Any) -> dict[str, ReadableSpan]:
    """The spans of one execution, however it ends."""
    with traced(recorded.tracing, PARENT) as callbacks:
        config = {"callbacks": callbacks, "configurable": {"thread_id": "t"}}
        try:
            await graph_of(node).ainvoke({}, config)
        except ValueError:
            pass
    return recorded.spans


async def test_nodes_of_subgraphs_lie_below_theirs(recorded: Recorded) -> None:
    spans = await run(recorded, lambda state: {"said": "x"})
    assert set(spans) == {"node outer", "node inner"}
    inner, outer = spans["node inner"], spans["node outer"]
    assert inner.parent is not None and outer.parent is not None and outer.context is not None
    assert inner.parent.span_id == outer.context.span_id
    assert f"{outer.parent.span_id:016x}" == PARENT[36:52]
    assert f"{outer.parent.trace_id:032x}" == trace_id_of(PARENT)
    assert all(span.status.is_unset for span in spans.values())


async def test_a_failure_is_seen_and_an_interrupt_is_none(recorded: Recorded) -> None:
    def fail(state: State) -> State:
        raise ValueError("secret words")

    spans = await run(recorded, fail)
    assert [span.status.description for span in spans.values()] == ["ValueError", "ValueError"]
    assert "secret words" not in str([span.to_json() for span in spans.values()])
    other = Recorded()
    spans = await run(other, lambda state: {"said": interrupt("ok?")})
    assert spans and all(span.status.is_unset for span in spans.values())


async def test_a_cancelled_graph_leaves_no_span_open(recorded: Recorded) -> None:
    begun = asyncio.Event()

    async def wait(state: State) -> State:
        begun.set()
        await asyncio.sleep(60)
        return {}

    task = asyncio.create_task(run(recorded, wait))
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert set(recorded.spans) == {"node outer", "node inner"}
    assert not any(span.status.is_ok for span in recorded.spans.values())


async def test_what_the_users_libraries_record_lies_below_the_attempt(recorded: Recorded) -> None:
    span = recorded.tracing.start("run g", PARENT, {"slipstream.attempt": 1}, kind="consumer")
    with span.entered():
        current = trace.get_current_span().get_span_context()
    assert span.traceparent == f"00-{trace_id_of(PARENT)}-{current.span_id:016x}-01"
    span.end("error")
    span.end()
    assert recorded.spans["run g"].status.description == "error"


def test_without_a_collector_no_callback_is_added() -> None:
    with traced(Tracing(), PARENT) as callbacks:
        assert callbacks == []
