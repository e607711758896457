"""LangGraph's `RemoteGraph`: a graph that runs on the server, used like one of this process."""

import asyncio
import uuid
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.pregel.remote import RemoteException, RemoteGraph
from langgraph.types import Command
from langgraph_sdk.client import LangGraphClient, SyncLangGraphClient

from testkit.sdk import DEADLINE_S, HELLO, all_of, texts_of, within
from testkit.wait import until

CHAT = "You said: hello. That was message 1 of our conversation, and the log keeps every word."


@pytest.fixture
def config(sync_sdk: SyncLangGraphClient) -> RunnableConfig:
    """The configuration of a thread that exists."""
    return {"configurable": {"thread_id": sync_sdk.threads.create()["thread_id"]}}


@pytest.mark.promise("RemoteGraph.ainvoke", reference="not recorded", aegra="not recorded")
async def test_it_is_invoked(url: str, config: RunnableConfig) -> None:
    """`ainvoke` answers with the final state, and a second call goes on from there."""
    graph = RemoteGraph("chat", url=url)
    first: Any = await graph.ainvoke(HELLO, config)
    second: Any = await graph.ainvoke(HELLO, config)
    assert first["messages"][-1]["content"] == CHAT
    assert len(second["messages"]) == 4


@pytest.mark.promise("RemoteGraph.astream", reference="not recorded", aegra="not recorded")
async def test_it_streams(url: str, config: RunnableConfig) -> None:
    """`astream` yields the modes that were asked for, with the namespaces of subgraphs."""
    graph = RemoteGraph("subgraphs", url=url)
    modes: list[Any] = ["updates", "custom"]
    parts: list[Any] = await all_of(graph.astream(HELLO, config, stream_mode=modes, subgraphs=True))
    assert {(len(namespace), mode) for namespace, mode, _ in parts} >= {(0, "updates"), (2, "updates"), (2, "custom")}
    assert [data["review"]["messages"][0]["content"] for _, _, data in parts if "review" in data] == [
        "Reviewed and approved."
    ]


@pytest.mark.promise("RemoteGraph.ainvoke", reference="not recorded", aegra="not recorded")
async def test_its_failure_is_raised(url: str, config: RunnableConfig) -> None:
    """A node's failure is raised with its text."""
    with pytest.raises(RemoteException, match="the stove is on fire"):
        await RemoteGraph("boom", url=url).ainvoke(HELLO, config)


@pytest.mark.promise("RemoteGraph.ainvoke Command", reference="not recorded", aegra="not recorded")
async def test_it_asks_and_goes_on(url: str, config: RunnableConfig) -> None:
    """A question stops `ainvoke`, which names it, and `Command(resume)` goes on."""
    graph = RemoteGraph("approval", url=url)
    asked: Any = await graph.ainvoke({"amount": 5}, config)
    assert asked["__interrupt__"][0]["value"]["question"] == "Refund 5?"
    done: Any = await graph.ainvoke(Command(resume="yes"), config)
    assert done["result"] == "refunded"


@pytest.mark.promise("RemoteGraph.astream_events version v3", reference="not recorded", aegra="not recorded")
async def test_its_protocol_events(url: str) -> None:
    """`astream_events(version="v3")` yields messages and the output."""
    graph = RemoteGraph("chat", url=url)
    async with asyncio.timeout(DEADLINE_S), await graph.astream_events(HELLO, version="v3") as run:
        assert await texts_of(run.messages) == [CHAT]
        output: Any = await run.output()
    assert output["messages"][-1]["content"] == CHAT


@pytest.mark.promise("RemoteGraph.astream_events version v3", reference="not recorded", aegra="not recorded")
async def test_its_question_over_protocol_events(url: str) -> None:
    """A run of v3 stops at a question, and the next one, given a `Command`, answers it."""
    graph = RemoteGraph("approval", url=url)
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid.uuid4())}}
    async with asyncio.timeout(DEADLINE_S), await graph.astream_events({"amount": 5}, config, version="v3") as run:
        await until(run.interrupted)
        (asked,) = await run.interrupts()
        assert asked["value"]["question"] == "Refund 5?"
    async with (
        asyncio.timeout(DEADLINE_S),
        await graph.astream_events(Command(resume="yes"), config, version="v3") as run,
    ):
        output: Any = await run.output()
    assert output["result"] == "refunded"


@pytest.mark.promise("RemoteGraph.astream_events version v3", reference="not recorded", aegra="not recorded")
async def test_it_is_aborted(url: str, sdk: LangGraphClient) -> None:
    """`abort` cancels the run on the server."""
    graph = RemoteGraph("counter", url=url)
    thread_id = str(uuid.uuid4())
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    endless = {"steps": 10_000, "delay_s": 0.01}
    async with asyncio.timeout(DEADLINE_S), await graph.astream_events(endless, config, version="v3") as run:
        async for _ in run.values:
            break
        await run.abort()

        async def has_ended() -> bool:
            return [each["status"] for each in await sdk.runs.list(thread_id)] == ["interrupted"]

        await until(has_ended)


@pytest.mark.promise("RemoteGraph.invoke", reference="not recorded", aegra="not recorded")
def test_it_is_invoked_blocking(url: str, config: RunnableConfig) -> None:
    """`invoke` and `stream` of the blocking surface say the same."""
    graph = RemoteGraph("chat", url=url)

    def flow() -> tuple[Any, list[Any]]:
        answer = graph.invoke(HELLO, config)
        return answer, list(graph.stream(HELLO, config, stream_mode="values"))

    answer, values = within(flow)
    assert answer["messages"][-1]["content"] == CHAT
    assert len(values[-1]["messages"]) == 4
