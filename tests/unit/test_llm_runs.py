"""Each streamed message is tied to its model call, however the model is driven and whatever its messages' ids are.

The oracle hears every chunk before LangGraph streams it, which costs too much outside of a test.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Send

from slipstream_runner.translate import MODES, LlmRuns, Translator, assemble
from slipstream_schemas.limits import MODEL_CALLS_REMEMBERED_MAX
from slipstream_schemas.lines import decode_line

PIECES = 3


class Provider(BaseChatModel):
    """Says `PIECES` words. The id of its messages is `fixed`, or changes with each chunk, or is left to LangChain."""

    word: str = "w"
    fixed: str | None = None
    changing: bool = False
    breaks: bool = False

    @property
    def _llm_type(self) -> str:
        return "provider"

    def _chunks(self) -> Iterator[ChatGenerationChunk]:
        for number in range(PIECES):
            named = f"{self.word}{number}" if self.changing else self.fixed
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"{self.word} ", id=named))
            if self.breaks:
                raise ConnectionError("the provider is away")

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=self.word, id=self.fixed))])

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        yield from self._chunks()

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._chunks():
            yield chunk
            await asyncio.sleep(0)


class Heard(BaseCallbackHandler):
    """The oracle: the model call of every message object, heard before it is streamed."""

    run_inline = True

    def __init__(self) -> None:
        self.messages: dict[int, tuple[BaseMessage, str]] = {}

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **kwargs: Any) -> None:
        """Remember a chunk."""
        self.messages[id(chunk.message)] = (chunk.message, str(run_id))

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Remember a whole message."""
        message = response.generations[0][0].message
        self.messages[id(message)] = (message, str(run_id))


def one_node(node: Any) -> Any:
    """A graph of one node."""
    return StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile()


async def streams(state: MessagesState) -> dict[str, Any]:
    """An async node; the model streams because somebody listens."""
    return {"messages": [await Provider().ainvoke("go")]}


async def streams_itself(state: MessagesState) -> dict[str, Any]:
    """The node consumes the stream."""
    return {"messages": [AIMessage("".join([str(piece.content) async for piece in Provider().astream("go")]))]}


def in_a_thread(state: MessagesState) -> dict[str, Any]:
    """A sync node, which LangGraph runs in a thread."""
    return {"messages": [Provider().invoke("go")]}


async def whole(state: MessagesState) -> dict[str, Any]:
    """A model that does not stream, twice."""
    model = Provider(disable_streaming=True)
    return {"messages": [await model.ainvoke("go"), await model.ainvoke("again")]}


async def after_a_failure(state: MessagesState) -> dict[str, Any]:
    """A model that breaks off, and the one in its place."""
    model = Provider(breaks=True).with_fallbacks([Provider(breaks=True), Provider(word="fallback")])
    return {"messages": [await model.ainvoke("go")]}


async def tried_again(state: MessagesState) -> dict[str, Any]:
    """The same model twice; it breaks off both times, and the node goes on."""
    model = Provider(breaks=True).with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    try:
        await model.ainvoke("go")
    except ConnectionError:
        pass
    return {"messages": [await Provider().ainvoke("go")]}


async def batched(state: MessagesState) -> dict[str, Any]:
    """Several inputs at once."""
    return {"messages": await Provider(fixed="same").abatch(["a", "b", "c"])}


def batched_in_threads(state: MessagesState) -> dict[str, Any]:
    """Several inputs at once, each in a thread."""
    return {"messages": Provider(fixed="same").batch(["a", "b", "c"])}


def subgraph() -> Any:
    """A subgraph as a node, and another one that a node calls."""
    inner = one_node(streams)

    async def calls(state: MessagesState) -> dict[str, Any]:
        return {"messages": (await inner.ainvoke({"messages": [HumanMessage("hi")]}))["messages"][-1:]}

    graph = StateGraph(MessagesState).add_node("within", inner).add_node("calls", calls)
    return graph.add_edge(START, "within").add_edge("within", "calls").compile()


def streams_of_its_own() -> Any:
    """A node that streams the messages of a graph itself."""
    inner = one_node(streams)

    async def consumes(state: MessagesState) -> dict[str, Any]:
        async for _ in inner.astream({"messages": [HumanMessage("hi")]}, stream_mode="messages"):
            pass
        return {}

    return one_node(consumes)


@tool
async def ask_a_model(question: str) -> str:
    """Ask a model."""
    return str((await Provider(word="tool").ainvoke(question)).content)


def within_a_tool() -> Any:
    """A model that a tool calls, twice at a time."""

    def wants(state: MessagesState) -> dict[str, Any]:
        calls: Any = [{"name": "ask_a_model", "args": {"question": "?"}, "id": f"t{n}"} for n in range(2)]
        return {"messages": [AIMessage("", id="wants", tool_calls=calls)]}

    graph = StateGraph(MessagesState).add_node("wants", wants).add_node("tools", ToolNode([ask_a_model]))
    return graph.add_edge(START, "wants").add_edge("wants", "tools").compile()


def parallel(**provider: Any) -> Any:
    """Three calls at a time."""

    async def say(state: MessagesState) -> dict[str, Any]:
        await Provider(**provider).ainvoke("go")
        return {}

    graph = StateGraph(MessagesState).add_node("say", say)
    return graph.add_conditional_edges(START, lambda _: [Send("say", {"messages": []})] * 3, ["say"]).compile()


GRAPHS: dict[str, Any] = {
    **{node.__name__: one_node(node) for node in (
        streams, streams_itself, in_a_thread, whole, after_a_failure, tried_again, batched, batched_in_threads)},
    "subgraph": subgraph(), "streams of its own": streams_of_its_own(), "within a tool": within_a_tool(),
    "parallel, equal ids": parallel(fixed="same"), "parallel, changing ids": parallel(changing=True),
}  # fmt: skip


async def listen(graph: Any, *, events: bool = False) -> tuple[LlmRuns, Heard, list[tuple[Any, ...]]]:
    """The `messages` parts of an execution."""
    runs, heard = LlmRuns(), Heard()
    config: Any = {"callbacks": [runs, heard]}
    options: Any = {"stream_mode": list(MODES), "subgraphs": True}
    given = {"messages": [HumanMessage("hi", id="h")]}
    parts: list[tuple[Any, ...]] = []
    if events:
        async for event in graph.astream_events(given, config, version="v2", **options):
            if event["event"] == "on_chain_stream" and not event["parent_ids"]:
                parts.append(event["data"]["chunk"])
    else:
        parts.extend([part async for part in graph.astream(given, config, version="v1", **options)])
    return runs, heard, [part for part in parts if part[1] == "messages"]


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_message_is_tied_to_its_call(name: str, events: bool) -> None:
    runs, heard, parts = asyncio.run(listen(GRAPHS[name], events=events))
    said = [(message, metadata) for _, _, (message, metadata) in parts]
    assert any(id(message) in heard.messages for message, _ in said)
    for message, metadata in said:
        expected = heard.messages.get(id(message))
        assert runs.run_of(metadata) == (None if expected is None else expected[1])


def test_prompts_of_one_generate_are_told_apart_by_their_messages_ids() -> None:
    async def generates(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        await Provider().agenerate([[HumanMessage("a")], [HumanMessage("b")]], callbacks=config.get("callbacks"))
        return {}

    runs, heard, parts = asyncio.run(listen(one_node(generates)))
    assert [runs.run_of(metadata) for _, _, (_, metadata) in parts] == [None] * len(parts)
    ids = {heard.messages[id(message)][1]: message.id for _, _, (message, _) in parts}
    assert len(set(ids.values())) == 2


@pytest.mark.parametrize("provider", [{"fixed": "same"}, {"changing": True}])
def test_parallel_messages_with_equal_or_changing_ids_are_told_apart(provider: dict[str, Any]) -> None:
    runs, _, parts = asyncio.run(listen(parallel(**provider)))
    translator = Translator(1, runs)
    for namespace, mode, payload in parts:
        translator.feed(namespace, mode, payload, 1)
    views = [decode_line(line) for line in assemble(translator.drain()[0], "r", 1, 1).split(b"\n")]
    by_call: dict[str, list[Any]] = {}
    for view in views:
        by_call.setdefault(view.data["run_id"], []).append(view)
    assert len(by_call) == 3
    for said in by_call.values():
        assert len({view.data["message_id"] for view in said}) == 1
        assert [view.data["event"] for view in said if view.kind == "event"] == [
            "message-start", "content-block-start", *["content-block-delta"] * PIECES, "content-block-finish",
            "message-finish",
        ]  # fmt: skip
        assert next(view.data["content"]["text"] for view in said if view.data["event"] == "content-block-finish") == (
            "w " * PIECES
        )


def test_the_calls_that_are_remembered_are_bounded() -> None:
    runs = LlmRuns()
    all_metadata: list[dict[str, Any]] = [{} for _ in range(MODEL_CALLS_REMEMBERED_MAX + 1)]
    for number, metadata in enumerate(all_metadata):
        runs.on_chat_model_start({}, [], run_id=UUID(int=number), metadata=metadata)
    assert runs.run_of(all_metadata[0]) is None
    assert runs.run_of(all_metadata[1]) == str(UUID(int=1))
    assert runs.run_of(all_metadata[-1]) == str(UUID(int=MODEL_CALLS_REMEMBERED_MAX))
