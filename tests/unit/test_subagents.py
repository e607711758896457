"""Agents that are called by tools: how they are told is what LangGraph's own stream says of them."""

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

from slipstream_runner.translate import MODES, LlmRuns, Translator, assemble
from slipstream_schemas.lines import LineView, decode_line

GIVEN: Any = {"messages": [HumanMessage("go")]}
CALLS: Any = [{"name": "delegate", "args": {"task": task}, "id": f"call-{task}"} for task in ("dig", "fill")]


class Model(FakeMessagesListChatModel):
    """It has its tools already."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


def boss(name: str | None) -> Any:
    """An agent, with or without a name, whose tool asks a named agent, which runs beside a plain graph."""

    @tool
    async def delegate(task: str) -> str:
        """Have it done."""
        model = Model(responses=[AIMessage(f"{task}: done")])
        helper = create_agent(model, [], name="helper")
        return str((await helper.ainvoke({"messages": [HumanMessage(task)]}))["messages"][-1].text)

    said: list[Any] = [AIMessage("", tool_calls=CALLS), AIMessage("All done.")]
    return create_agent(Model(responses=said), [delegate], name=name)


def team(name: str | None) -> Any:
    """The agent as a node."""
    return StateGraph(MessagesState).add_node("office", boss(name)).add_edge(START, "office").compile()


def told(namespace: Any, data: Any) -> tuple[Any, ...]:
    """What of a `started` does not change from one execution to the next."""
    names = tuple(segment.partition(":")[0] for segment in namespace)
    return names, data["graph_name"], data.get("cause")


async def of_langgraph(graph: Any) -> list[tuple[Any, ...]]:
    stream = await graph.astream_events(GIVEN, version="v3")
    events = [event["params"]["data"] async for event in stream if event["method"] == "lifecycle"]
    return [told(data["namespace"], data) for data in events if data["event"] == "started"]


async def ours(graph: Any) -> list[LineView]:
    calls = LlmRuns()
    translator = Translator(1, calls)
    stream = graph.astream(GIVEN, {"callbacks": [calls]}, stream_mode=list(MODES), subgraphs=True, version="v1")
    async for namespace, mode, payload in stream:
        translator.feed(namespace, mode, payload, 1)
        translator.settle(1)
    translator.finish("completed", None, 2)
    out: list[LineView] = []
    while len(translator):
        out += map(decode_line, assemble(translator.drain()[0], "r", 1, 1).split(b"\n"))
    return out


@pytest.mark.parametrize("build", [boss, team])
@pytest.mark.parametrize("name", [None, "boss"])
async def test_subagents_are_told_as_langgraph_tells_them(build: Any, name: str | None) -> None:
    lines = await ours(build(name))
    lifecycle = [line for line in lines if line.method == "lifecycle"]
    started = [told(line.namespace, line.data) for line in lifecycle if line.data["event"] == "started"]
    assert sorted(started, key=repr) == sorted(await of_langgraph(build(name)), key=repr)
    helpers = [cause["tool_call_id"] for _, graph_name, cause in started if graph_name == "helper"]
    assert sorted(helpers) == ["call-dig", "call-fill"]
    first = {line.namespace: line for line in reversed(lines) if line.namespace}
    assert all(line.method == "lifecycle" and line.data["event"] == "started" for line in first.values())
    ends = [line.data for line in lifecycle if line.data["event"] == "completed"]
    assert sorted(end["graph_name"] for end in ends) == sorted(graph_name for _, graph_name, _ in started)
