"""`threads.stream`: tool calls, subgraphs and custom events, as the SDK's projections show them."""

import asyncio
from typing import Any, Literal

import pytest
from langgraph_sdk.client import LangGraphClient, SyncLangGraphClient

from testkit.sdk import DEADLINE_S, HELLO, all_of, all_within, one_instance, texts_of

Transport = Literal["sse", "websocket"]
PAGES = ["page one", "page two", "page three"]
VERSES = ["one two three four five six", "uno due tre quattro cinque sei"]


def asks(tool: str) -> dict[str, Any]:
    """Input that makes the toolbox call a tool."""
    return {"messages": [{"role": "user", "content": tool}]}


@pytest.mark.promise(
    "tool-started, tool-output-delta, tool-finished",
    reference="only where a transformer asks for tools, as create_agent's does",
    aegra="not recorded",
)
async def test_a_tool_shows_its_output_as_it_comes(sdk: LangGraphClient, transport: Transport) -> None:
    """A tool call shows its name, its input, each delta of its output, and its result."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="toolbox", transport=transport) as thread:
        await thread.run.start(input=asks("read_aloud"))
        reading: list[tuple[Any, asyncio.Task[list[Any]]]] = []
        async for call in thread.tool_calls:
            reading.append((call, asyncio.create_task(all_of(call.deltas))))
        ((call, deltas),) = reading
        output: Any = await call.output
        assert (call.name, call.input) == ("read_aloud", {"book": "Emma"})
        assert await deltas == PAGES
        assert output["content"] == "Emma: the end"


@pytest.mark.promise("tool-error", reference="not recorded", aegra="not recorded")
async def test_a_tool_that_fails_says_why(sdk: LangGraphClient, transport: Transport) -> None:
    """The output of a tool call that fails raises with the tool's own text."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="toolbox", transport=transport) as thread:
        await thread.run.start(input=asks("burn"))
        calls = await all_of(thread.tool_calls)
        with pytest.raises(RuntimeError, match="Emma does not burn"):
            await calls[0].output


@pytest.mark.promise("content-block-delta", reference="not recorded", aegra="not recorded")
async def test_a_message_carries_its_tool_calls(sdk: LangGraphClient, transport: Transport) -> None:
    """The message that calls tools has both calls, with their arguments whole."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="agent", transport=transport) as thread:
        await thread.run.start(input=HELLO)
        reading: list[asyncio.Task[Any]] = []

        async def calls_of(message: Any) -> Any:
            return await message.tool_calls

        async for message in thread.messages:
            reading.append(asyncio.create_task(calls_of(message)))
        first, second = await asyncio.gather(*reading)
    assert [(call["name"], call["args"]) for call in first] == [
        ("weather", {"city": "Lisbon"}),
        ("population", {"city": "Lisbon"}),
    ]
    assert not second


@pytest.mark.promise(
    "lifecycle started, tasks",
    reference="the child's values before `started`",
    aegra="the child's values before `started`",
)
async def test_subgraphs_at_once_each_have_their_messages(sdk: LangGraphClient, transport: Transport) -> None:
    """Two subgraphs that run at once are discovered, each with the tokens of its own message, and both end."""
    async with (
        asyncio.timeout(DEADLINE_S),
        sdk.threads.stream(assistant_id="delegation", transport=transport) as thread,
    ):
        await thread.run.start(input=HELLO)
        reading: list[tuple[Any, asyncio.Task[list[str]]]] = []
        async for child in thread.subgraphs:
            reading.append((child, asyncio.create_task(texts_of(child.messages))))
        texts = {child.graph_name: await task for child, task in reading}
        assert texts == {"digger": [VERSES[0]], "clerk": [VERSES[1]]}
        assert [child.status for child, _ in reading] == ["completed", "completed"]
        assert all(child.path == (f"{child.graph_name}:{child.trigger_call_id}",) for child, _ in reading)


@pytest.mark.promise("tasks", reference="never sent", aegra="never sent")
async def test_a_subgraph_in_a_subgraph(sdk: LangGraphClient, transport: Transport) -> None:
    """A subgraph's handle discovers the one inside of it, with its messages; the parents' task results end both."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="subgraphs", transport=transport) as thread:
        await thread.run.start(input=HELLO)
        reading: list[tuple[Any, Any]] = []
        async for child in thread.subgraphs:
            reading.append((child, asyncio.gather(all_of(child.subgraphs), texts_of(child.messages))))
        ((outer, both),) = reading
        (inner,), texts = await both
        assert (outer.graph_name, outer.status, texts) == ("team", "completed", [])
        assert (inner.graph_name, inner.status) == ("researcher", "completed")
        assert await texts_of(inner.messages) == ["The researcher found three sources and read them all."]


@pytest.mark.promise("lifecycle failed", reference="not recorded", aegra="not recorded")
async def test_a_failing_subgraph_fails_its_handle(sdk: LangGraphClient, transport: Transport) -> None:
    """A subgraph whose node fails ends as failed, and so does the run."""
    async with (
        asyncio.timeout(DEADLINE_S),
        sdk.threads.stream(assistant_id="nested_boom", transport=transport) as thread,
    ):
        await thread.run.start(input=HELLO)
        (child,) = await all_of(thread.subgraphs)
        assert child.graph_name == "kitchen" and child.status == "failed"
        with pytest.raises(RuntimeError, match="the stove is on fire"):
            await thread.output


@one_instance
@pytest.mark.promise(
    "custom", reference="only if the graph registers a transformer; raw", aegra="the name inside of the payload"
)
async def test_custom_events_by_their_name(sdk: LangGraphClient, transport: Transport) -> None:
    """`extensions[name]` yields the writer's payloads of that name, from the root and from subgraphs, in order."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="notes", transport=transport) as thread:
        await thread.run.start(input={"count": 0})
        progress, cost = await asyncio.gather(all_of(thread.extensions["progress"]), all_of(thread.extensions["cost"]))
    assert [each["payload"]["number"] for each in progress] == [0, 1, 2, 99]
    assert [each["payload"]["cents"] for each in cost] == [0, 10, 20]


@pytest.mark.promise(
    "custom", reference="only if the graph registers a transformer", aegra="sent, the name inside of the payload"
)
async def test_custom_events_without_a_name(sdk: LangGraphClient, transport: Transport) -> None:
    """The channel `custom` carries all of a writer's payloads, named or not, whatever their type."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="notes", transport=transport) as thread:
        await thread.run.start(input={"count": 0})
        events: list[Any] = await all_of(thread.subscribe(["custom"], namespaces=[[]], depth=0))
    payloads = [event["params"]["data"]["payload"] for event in events]
    assert len(payloads) == 8
    assert payloads[-2:] == [{"unnamed": True}, "just a text"]


@pytest.mark.promise("tools, lifecycle", reference="not recorded", aegra="not recorded")
def test_the_blocking_client_shows_tools_and_subgraphs(sync_sdk: SyncLangGraphClient, transport: Transport) -> None:
    """The blocking client's tool calls, subgraphs and extensions say what the asynchronous one's do."""

    def tools() -> Any:
        with sync_sdk.threads.stream(assistant_id="toolbox", transport=transport) as thread:
            thread.run.start(input=asks("read_aloud"))
            return [(call.name, list(call.deltas), call.output) for call in list(thread.tool_calls)]

    def children() -> Any:
        with sync_sdk.threads.stream(assistant_id="delegation", transport=transport) as thread:
            thread.run.start(input=HELLO)
            return [(each.graph_name, each.status) for each in list(thread.subgraphs)]

    def notes() -> Any:
        with sync_sdk.threads.stream(assistant_id="notes", transport=transport) as thread:
            thread.run.start(input={"count": 0})
            return [each["payload"]["number"] for each in thread.extensions["progress"]]

    ((name, deltas, output),), found, numbers = all_within(tools, children, notes)
    assert (name, deltas, output["content"]) == ("read_aloud", PAGES, "Emma: the end")
    assert sorted(found) == [("clerk", "completed"), ("digger", "completed")]
    assert numbers == [0, 1, 2, 99]
