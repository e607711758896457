"""One execution for both protocols: v2 messages equal langchain-core's own derivation, v1 equals what LangGraph yields.

Known deviation from the protocol's CDDL, shared with langchain-core: blocks of a message may be open at the same time,
and all of them finish when the message does.
"""

import asyncio
import operator
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, TypedDict

import msgspec
import pydantic
import pytest
from langchain_core.language_models._compat_bridge import chunks_to_events, message_to_events
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import invalid_tool_call
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send, interrupt

from slipstream_api.render.v1 import V1Renderer
from slipstream_nats.tail import TailRecord
from slipstream_runner.translate import MODES, LlmRuns, Translator, assemble
from slipstream_runner.translate.messages import Messages
from slipstream_schemas.codec import loads, to_plain
from slipstream_schemas.lines import decode_line
from slipstream_schemas.record import RecordHeader
from slipstream_schemas.terminal import terminal_body

OURS = ("id", "message_id", "run_id")


def chunk(**fields: Any) -> AIMessageChunk:
    """A chunk of the message `m`."""
    return AIMessageChunk.model_validate({"content": "", "id": "m", **fields})


def call(index: int, **fields: Any) -> dict[str, Any]:
    """A piece of a tool call."""
    return {"name": None, "args": None, "id": None, "index": index, "type": "tool_call_chunk", **fields}


STREAMS: dict[str, list[AIMessageChunk]] = {
    "text": [chunk(content="Hel"), chunk(content="lo"), chunk(content=" wörld"), chunk(chunk_position="last")],
    "usage": [
        chunk(content="a", response_metadata={"model_provider": "openai", "model_name": "gpt"}),
        chunk(content="b", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
        chunk(response_metadata={"finish_reason": "stop"}, chunk_position="last"),
    ],
    "thinking and a tool": [
        chunk(
            content=[{"type": "thinking", "thinking": "hm", "index": 0}],
            response_metadata={"model_provider": "anthropic"},
        ),
        chunk(
            content=[{"type": "thinking", "thinking": " ok", "index": 0}],
            response_metadata={"model_provider": "anthropic"},
        ),
        chunk(
            content=[{"type": "text", "text": "Let me", "index": 1}], response_metadata={"model_provider": "anthropic"}
        ),
        chunk(
            content=[{"type": "tool_use", "id": "t1", "name": "search", "input": {}, "index": 2}],
            tool_call_chunks=[call(2, name="search", args="", id="t1")],
            response_metadata={"model_provider": "anthropic"},
        ),
        chunk(
            content=[{"type": "input_json_delta", "partial_json": '{"q": 1}', "index": 2}],
            tool_call_chunks=[call(2, args='{"q": 1}')],
            response_metadata={"model_provider": "anthropic"},
        ),
        chunk(chunk_position="last"),
    ],
    "parallel calls": [
        chunk(tool_call_chunks=[call(0, name="a", args='{"x"', id="t1")]),
        chunk(tool_call_chunks=[call(1, name="b", args="{", id="t2")]),
        chunk(tool_call_chunks=[call(0, args=": 1}")]),
        chunk(tool_call_chunks=[call(1, args="broken")]),
        chunk(chunk_position="last"),
    ],
    "empty": [chunk(), chunk(chunk_position="last")],
}


def without_ours(data: dict[str, Any]) -> dict[str, Any]:
    """An event without what we add: the routing keys, and the second form of a tool call's delta."""
    ours = (*OURS, "content") if data["event"] == "content-block-delta" else OURS
    kept = {key: value for key, value in data.items() if key not in ours}
    return {**kept, "id": data["id"]} if data["event"] == "message-start" else kept


def events_of(lines: list[Any]) -> list[dict[str, Any]]:
    """The v2 events of drafts."""
    views = [decode_line(line) for line in assemble(lines, "r", 1, 1).split(b"\n")] if lines else []
    return [without_ours(view.data) for view in views if view.kind == "event"]


@pytest.mark.parametrize("name", STREAMS)
def test_message_events_equal_those_of_langchain_core(name: str) -> None:
    messages = Messages()
    ours: list[dict[str, Any]] = []
    for piece in STREAMS[name]:
        ours.extend(events_of(messages.feed((), piece, {"langgraph_node": "n"}, "llm-1", 1)))
    theirs = chunks_to_events(ChatGenerationChunk(message=piece) for piece in STREAMS[name])
    assert ours == [loads(msgspec.json.encode(event)) for event in theirs]


def test_a_tool_call_grows_in_the_form_of_every_sdk() -> None:
    messages = Messages()
    lines = [line for piece in STREAMS["parallel calls"] for line in messages.feed((), piece, {}, "llm", 1)]
    data = [decode_line(raw).data for raw in assemble(lines, "r", 1, 1).split(b"\n")]
    grown = [(each["index"], each["delta"], each["content"]) for each in data if "delta" in each]
    assert grown == [
        (index, {"type": "tool-call-delta", "args": args}, {"type": "tool_call_chunk", "args": args})
        for index, args in ((0, '{"x"'), (1, "{"), (0, ": 1}"), (1, "broken"))
    ]


WHOLE = [
    AIMessage(content="done", id="m", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
    AIMessage(content="", id="m", tool_calls=[{"name": "a", "args": {"x": 1}, "id": "t1"}]),
    AIMessage(content="", id="m", invalid_tool_calls=[invalid_tool_call(name="a", args="{", id="t1", error="bad")]),
]  # fmt: skip


@pytest.mark.parametrize("message", WHOLE)
def test_whole_messages_equal_those_of_langchain_core(message: AIMessage) -> None:
    ours = events_of(Messages().feed((), message, {}, None, 1))
    assert ours == [loads(msgspec.json.encode(event)) for event in message_to_events(message)]


def test_every_message_event_carries_what_tells_messages_apart() -> None:
    messages = Messages()
    lines = [
        line for piece in STREAMS["text"] for line in messages.feed(("s:1",), piece, {"langgraph_node": "n"}, "llm", 1)
    ]
    for raw in assemble(lines, "r", 1, 1).split(b"\n"):
        view = decode_line(raw)
        assert (view.data["message_id"], view.data["run_id"], view.node, view.namespace) == ("m", "llm", "n", ("s:1",))


def test_tool_messages_are_for_v1_alone() -> None:
    assert events_of(Messages().feed((), ToolMessage("x", tool_call_id="t", id="m"), {}, None, 1)) == []


def test_a_failed_model_call_ends_its_message_with_an_error() -> None:
    messages = Messages()
    messages.feed((), STREAMS["text"][0], {}, "llm-1", 1)
    assert [event["event"] for event in events_of(messages.fail("llm-1", "boom", 2))] == ["error"]
    assert [each.llm_run_id for each in messages.ended] == ["llm-1"]
    assert messages.fail(None, "boom", 3) == []


# Whole graphs


class Fake(BaseChatModel):
    """A model that says what it is told, in pieces."""

    pieces: list[AIMessageChunk] = pydantic.Field(default_factory=lambda: list[AIMessageChunk]())
    whole: str | None = None

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=self.whole or ""))])

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        raise NotImplementedError

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for piece in self.pieces:
            generation = ChatGenerationChunk(message=piece.model_copy(update={"id": None}))
            if run_manager is not None:
                await run_manager.on_llm_new_token(str(piece.content), chunk=generation)
            yield generation


def model(name: str) -> Fake:
    """A model that streams one of the recorded streams, its end left to langchain-core."""
    return Fake(pieces=[piece for piece in STREAMS[name] if piece.chunk_position is None])


class Notes(TypedDict, total=False):
    """A small state."""

    log: Annotated[list[str], operator.add]
    n: int


def chat(name: str) -> Any:
    """A graph that calls a model."""

    async def say(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model(name).ainvoke(state["messages"])]}

    return StateGraph(MessagesState).add_node("say", say).add_edge(START, "say")


def nested() -> Any:
    """Two levels of subgraphs, the inner one with a model and a custom event."""

    async def inner(state: MessagesState) -> dict[str, Any]:
        get_stream_writer()({"name": "progress", "at": "inner"})
        return {"messages": [await model("text").ainvoke(state["messages"])]}

    deep = StateGraph(MessagesState).add_node("inner", inner).add_edge(START, "inner").compile()
    middle = StateGraph(MessagesState).add_node("middle", deep).add_edge(START, "middle").compile()
    return StateGraph(MessagesState).add_node("outer", middle).add_edge(START, "outer")


def parallel() -> Any:
    """Fan out over `Send`, sync nodes, a custom event without a name."""

    def one(state: Notes) -> dict[str, Any]:
        get_stream_writer()(["plain", state.get("n")])
        return {"log": [f"n{state.get('n')}"]}

    def nothing(state: Notes) -> None:
        return None

    graph = StateGraph(Notes).add_node("one", one).add_node("nothing", nothing)
    graph.add_conditional_edges(START, lambda _: [Send("one", {"n": 1}), Send("one", {"n": 2})], ["one"])
    return graph.add_edge("one", "nothing")


def asking() -> Any:
    """A graph that waits for an answer."""

    def ask(state: Notes) -> dict[str, Any]:
        return {"log": [str(interrupt({"q": "sure?"}))]}

    return StateGraph(Notes).add_node("ask", ask).add_edge(START, "ask")


def returned() -> Any:
    """A node that returns messages which no model has made."""

    def give(state: MessagesState) -> dict[str, Any]:
        call_ = {"name": "a", "args": {}, "id": "t"}
        return {"messages": [AIMessage("", id="x", tool_calls=[call_]), ToolMessage("42", tool_call_id="t", id="y")]}

    return StateGraph(MessagesState).add_node("give", give).add_edge(START, "give")


def whole_model() -> Any:
    """A model that does not stream."""

    async def say(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await Fake(whole="all at once", disable_streaming=True).ainvoke(state["messages"])]}

    return StateGraph(MessagesState).add_node("say", say).add_edge(START, "say")


GRAPHS: dict[str, Any] = {
    **{name: (lambda name=name: chat(name)) for name in STREAMS if name != "empty"},
    "nested": nested, "parallel": parallel, "asking": asking, "returned": returned, "whole": whole_model,
}  # fmt: skip


def stable(value: Any) -> Any:
    """A value without what clients must not see of a checkpoint's config."""
    return to_plain(value)


async def both(build: Any, mode: str) -> tuple[list[Any], list[Any]]:
    """What LangGraph yields in a mode, and what our renderer makes of the same execution."""
    graph = build().compile(checkpointer=InMemorySaver())
    runs = LlmRuns()
    translator = Translator(1, runs)
    yielded: list[Any] = []
    given = {"messages": [HumanMessage("hi", id="h")]} if "messages" in graph.channels else {"log": ["in"], "n": 0}
    config: Any = {"callbacks": [runs], "configurable": {"thread_id": "t"}}
    async for namespace, name, payload in graph.astream(
        given, config, stream_mode=list(MODES), subgraphs=True, version="v1"
    ):
        translator.feed(namespace, name, payload, 1)
        if name == mode:
            yielded.append(["|".join((name, *namespace)), stable(payload)])
    translator.finish("completed", None, 2)
    records: list[TailRecord] = []
    while len(translator):
        drafts, _, _ = translator.drain()
        body = assemble(drafts, "r", 1, len(records) + 1)
        records.append(as_tail(len(records) + 1, body))
    records.append(as_tail(99, terminal_body("r", "completed", 3, graph_name="g", run_status="success")))
    wanted = "messages-tuple" if mode == "messages" else mode
    renderer = V1Renderer("r", [wanted], subgraphs=True)
    frames = b"".join(renderer.feed(record) for record in records).split(b"\n\n")[:-1]
    assert renderer.done
    rendered: list[Any] = []
    for frame in frames:
        fields = dict(line.split(": ", 1) for line in frame.decode().strip().split("\n"))
        rendered.append([fields["event"], loads(fields["data"])])
    return yielded, rendered


def without_asked(rendered: list[Any], mode: str) -> list[Any]:
    """Without the `values` frame that tells those who did not ask for updates or values that the run waits."""
    return [each for each in rendered if each[0].split("|")[0] == mode]


def as_tail(stream_seq: int, body: bytes) -> TailRecord:
    """A record as a tail delivers it."""
    return TailRecord(stream_seq, RecordHeader("r", 1, stream_seq), body)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("mode", ["values", "updates", "messages", "tasks", "custom"])
def test_v1_is_what_langgraph_yields(name: str, mode: str) -> None:
    yielded, rendered = asyncio.run(both(GRAPHS[name], mode))
    assert without_asked(rendered, mode) == yielded


@pytest.mark.parametrize("name", ["text", "nested", "asking"])
def test_v1_checkpoints_are_langgraphs_with_a_light_config(name: str) -> None:
    yielded, rendered = asyncio.run(both(GRAPHS[name], "checkpoints"))
    rendered = without_asked(rendered, "checkpoints")
    assert [event for event, _ in rendered] == [event for event, _ in yielded]
    for (_, ours), (_, theirs) in zip(rendered, yielded, strict=True):
        for key in ("values", "metadata", "next", "tasks"):
            assert ours[key] == theirs[key], key
        assert ours["config"]["configurable"]["checkpoint_id"] == theirs["config"]["configurable"]["checkpoint_id"]


@pytest.mark.parametrize(("mode", "events"), [("custom", ["values"]), ("updates", ["updates"]), ("values", ["values"])])
def test_every_mode_learns_of_an_interrupt(mode: str, events: list[str]) -> None:
    _, rendered = asyncio.run(both(asking, mode))
    assert [event for event, data in rendered if "__interrupt__" in data] == events
