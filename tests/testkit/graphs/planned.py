"""A graph from a plan: what the property tests draw, built in the test and in the runner alike.

A plan is JSON: `{"steps": [...]}` or `{"tasks": [...]}` (functional API), and perhaps `keep` (the subgraph's own
checkpointer), `transformers` and `options` of its runs. A step is a node, `{"fan": [nodes]}`, `{"send": n, "node": …}`
or `{"loop": n, "node": …}`. A node is `{"acts": [...]}` with `sync`, `defer`, `retry`, `goto` or `up`, or
`{"graph": plan}`, or `{"agent": [[tools], …]}`. An act is `{"do": name, …}`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain.tools import ToolRuntime
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, RemoveMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.config import get_config, get_stream_writer
from langgraph.errors import GraphBubbleUp
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES, add_messages
from langgraph.stream import StreamChannel, StreamTransformer
from langgraph.types import Command, RetryPolicy, Send, interrupt

Plan = dict[str, Any]
ASIDE = "aside"
PAUSE_S = 0.005


class Planned(ValueError):
    """What a plan raises."""


def most(left: Mapping[str, int] | None, right: Mapping[str, int] | None) -> dict[str, int]:
    """The larger count of each name: the order of what is merged does not matter."""
    left, right = left or {}, right or {}
    return {name: max(left.get(name, 0), right.get(name, 0)) for name in sorted({*left, *right})}


class State(TypedDict, total=False):
    """What every planned graph works on."""

    messages: Annotated[list[Any], add_messages]
    done: Annotated[dict[str, int], most]


class Model(BaseChatModel):
    """Says its pieces, each a chunk's fields; `fails` after them."""

    pieces: list[Any]
    fails: bool = False

    @property
    def _llm_type(self) -> str:
        return "planned"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        if self.fails:
            raise Planned("the model failed")
        text = "".join(piece["content"] for piece in self.pieces if isinstance(piece.get("content"), str))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=text))])

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        for piece in self.pieces:
            yield ChatGenerationChunk(message=AIMessageChunk.model_validate({"content": "", **piece}))
        if self.fails:
            raise Planned("the model failed")

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages):
            await asyncio.sleep(0)
            yield chunk


class Caller(BaseChatModel):
    """Calls the tools of one round after another, then answers."""

    rounds: list[list[Any]]
    streams: bool = True

    @property
    def _llm_type(self) -> str:
        return "caller"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        """The plan knows the tools."""
        return self

    def _said(self, messages: list[BaseMessage]) -> AIMessage:
        number = sum(message.type == "ai" for message in messages)
        if number >= len(self.rounds):
            return AIMessage("All done.")
        calls: list[Any] = [
            {"name": name, "args": {"text": name}, "id": f"call-{number}-{at}"}
            for at, name in enumerate(self.rounds[number])
        ]
        return AIMessage("Let me see.", tool_calls=calls)

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._said(messages))])

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        said = self._said(messages)
        yield ChatGenerationChunk(message=AIMessageChunk(content=str(said.content)))
        for at, call in enumerate(said.tool_calls):
            for name, part in ((call["name"], '{"text": "'), (None, call["args"]["text"] + '"}')):
                piece: Any = {"name": name, "args": part, "id": call["id"] if name else None, "index": at,
                              "type": "tool_call_chunk"}  # fmt: skip
                yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[piece]))


# Tools


@tool
async def plain(text: str) -> str:
    """Answer."""
    return f"{text}: fine"


@tool
async def aloud(text: str, runtime: ToolRuntime[Any, Any]) -> str:
    """Stream output and custom data."""
    get_stream_writer()({"name": "aloud", "text": text})
    for number in range(3):
        runtime.emit_output_delta(f"{text} {number}")
    return text


@tool
async def breaks(text: str) -> str:
    """Raise."""
    raise Planned(text)


@tool
async def commands(text: str, runtime: ToolRuntime[Any, Any]) -> Any:
    """Return a command."""
    answer = ToolMessage(text, tool_call_id=runtime.tool_call_id)
    return Command(update={"messages": [answer]})


@tool
async def asks(text: str) -> str:
    """Ask."""
    return str(interrupt({"tool": text}))


@tool
async def delegates(text: str) -> str:
    """Have a subgraph do it, which says something."""
    inner = build({"steps": [{"acts": [{"do": "say", "pieces": [{"content": "sub"}]}]}]})
    return str((await inner.ainvoke({"messages": []}))["messages"][-1].text)


@tool
def waits(text: str) -> str:
    """Answer from a thread."""
    get_stream_writer()({"name": "waits", "text": text})
    return text


TOOLS: dict[str, Any] = {
    each.name: each for each in (plain, aloud, breaks, commands, asks, delegates, waits)
}  # fmt: skip

# Acts

FAILED: set[tuple[str, str]] = set()
"""Where something failed once already."""


def _message(act: Plan) -> Any:
    match act.get("kind", "ai"):
        case "ai":
            return AIMessage(act.get("content", "given"), id=act.get("id"))
        case "human":
            return {"role": "user", "content": act.get("content", "given"), "id": act.get("id")}
        case "tool":
            return ToolMessage("told", tool_call_id="t", id=act.get("id"))
        case "system":
            return {"type": "system", "content": "be brief", "id": act.get("id")}
        case _:
            return RemoveMessage(id=REMOVE_ALL_MESSAGES)


def _at_once(act: Plan, state: State, said: list[Any]) -> None:
    """What needs no waiting."""
    match act["do"]:
        case "write":
            for _ in range(act.get("times", 1)):
                get_stream_writer()(act.get("value"))
        case "give":
            said.append(_message(act))
        case "ask":
            said.append(AIMessage(f"answered: {interrupt(act.get('value'))}"))
        case "raise":
            raise Planned(act.get("text", "planned"))
        case "fail_once":
            config = get_config().get("configurable", {})
            key = (str(config["thread_id"]), str(config["checkpoint_ns"]))
            if key not in FAILED:
                FAILED.add(key)
                raise Planned("once")
        case _:
            pass


def _model(act: Plan) -> Any:
    options: dict[str, Any] = {"disable_streaming": True} if act.get("whole") else {}
    made = Model(pieces=act["pieces"], fails=act.get("fails", False), **options)
    return made.with_config(tags=["nostream"]) if act.get("nostream") else made


def _say(act: Plan, said: list[Any]) -> None:
    for _ in range(act.get("times", 1)):
        try:
            answer = _model(act).invoke("?")
        except Planned:
            if not act.get("caught"):
                raise
            continue
        if act.get("kept", True):
            said.append(answer)


async def _asay(act: Plan, said: list[Any]) -> None:
    if act.get("abandoned"):
        async for _ in _model(act).astream("?"):
            return
    for _ in range(act.get("times", 1)):
        calls = (_model(act).ainvoke("?") for _ in range(act.get("parallel", 1)))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                if not act.get("caught"):
                    raise answer
            elif act.get("kept", True):
                said.append(answer)


def _given() -> Any:
    return {"messages": [{"type": "human", "content": "inner", "id": "h"}]}


def _call(act: Plan) -> None:
    for _ in range(act.get("times", 1)):
        try:
            build(act["graph"], sync=True).invoke(_given())
        except GraphBubbleUp:
            raise
        except Exception:
            if not act.get("caught"):
                raise


async def _acall(act: Plan) -> None:
    graph = build(act["graph"])
    for _ in range(act.get("times", 1)):
        try:
            if act.get("how") == "astream":
                async for _ in graph.astream(_given(), stream_mode=["values", "updates"]):
                    pass
            elif act.get("how") == "gather":
                await asyncio.gather(graph.ainvoke(_given()), graph.ainvoke(_given()))
            else:
                await graph.ainvoke(_given())
        except GraphBubbleUp:
            raise
        except Exception:
            if not act.get("caught"):
                raise


def _result(node: Plan, name: str, state: State, said: list[Any]) -> Any:
    if node.get("nothing"):
        return None
    update = {"messages": said, "done": {name: (state.get("done") or {}).get(name, 0) + 1}}
    if node.get("up"):
        return Command(update=update, goto=ASIDE, graph=Command.PARENT)
    if node.get("goto"):
        return Command(update=update, goto=ASIDE)
    if node.get("commands"):
        return [Command(update=update), Command(update={"messages": []})]
    return update


def _function(node: Plan, name: str, *, sync: bool) -> Any:
    def work(state: State) -> Any:
        said: list[Any] = []
        for act in node["acts"]:
            if act["do"] == "say":
                _say(act, said)
            elif act["do"] == "call":
                _call(act)
            else:
                _at_once(act, state, said)
        return _result(node, name, state, said)

    async def awork(state: State) -> Any:
        said: list[Any] = []
        for act in node["acts"]:
            if act["do"] == "say":
                await _asay(act, said)
            elif act["do"] == "call":
                await _acall(act)
            elif act["do"] == "pause":
                await asyncio.sleep(PAUSE_S)
            else:
                _at_once(act, state, said)
        return _result(node, name, state, said)

    return work if sync or node.get("sync") else awork


# Graphs


class Letters(StreamTransformer):
    """Counts the letters of messages."""

    required_stream_modes = ("messages",)

    def __init__(self, scope: tuple[str, ...] = ()) -> None:
        super().__init__(scope)
        self.letters: StreamChannel[Any] = StreamChannel("letters")

    def init(self) -> Any:
        """The channel."""
        return {"letters": self.letters}

    def process(self, event: Any) -> bool:
        """Count."""
        if event["method"] == "messages":
            said = event["params"]["data"][0].get("delta", {}).get("text", "")
            self.letters.push({"letters": len(said)})
        return True


def _add(graph: Any, node: Plan, name: str, *, sync: bool) -> None:
    options: dict[str, Any] = {}
    if node.get("defer"):
        options["defer"] = True
    if node.get("retry"):
        options["retry_policy"] = RetryPolicy(
            initial_interval=0.001, max_attempts=2, jitter=False, retry_on=lambda error: isinstance(error, Planned)
        )
    if "graph" in node:
        graph.add_node(name, build(node["graph"], sync=sync), **options)
    elif "agent" in node and not sync:
        names = sorted({each for some in node["agent"] for each in some})
        agent = create_agent(
            Caller(rounds=node["agent"]), [TOOLS[each] for each in names] or [plain], name=node.get("name")
        )
        graph.add_node(name, agent, **options)
    else:
        graph.add_node(name, _function({"acts": [], **node}, name, sync=sync), **options)


def _steps(graph: Any, steps: list[Plan], *, sync: bool) -> None:
    """Add the nodes of each step, and the edges from the step before it."""
    behind: list[str] = [START]

    def hub(number: int) -> None:
        graph.add_node(f"hub{number}", lambda state: {})
        join(f"hub{number}")
        behind[:] = [f"hub{number}"]

    def join(name: str) -> None:
        graph.add_edge(behind[0] if len(behind) == 1 else list(behind), name)

    for number, step in enumerate(steps):
        name = f"n{number}"
        if "fan" in step:
            names = [f"{name}{letter}" for letter, _ in zip("abc", step["fan"], strict=False)]
            for each, node in zip(names, step["fan"], strict=False):
                _add(graph, node, each, sync=sync)
                join(each)
            behind[:] = names
        elif "send" in step:
            if len(behind) > 1:
                hub(number)
            _add(graph, step["node"], name, sync=sync)
            count = step["send"]
            graph.add_conditional_edges(
                behind[0], lambda state, name=name, count=count: [Send(name, state) for _ in range(count)], [name]
            )
            behind[:] = [name]
        elif "loop" in step:
            _add(graph, step["node"], name, sync=sync)
            join(name)
            after = f"after{number}"
            graph.add_node(after, lambda state: None)
            graph.add_conditional_edges(
                name,
                lambda state, name=name, after=after, bound=step["loop"]: (
                    name if 0 < (state.get("done") or {}).get(name, 0) < bound else after
                ),
                [name, after],
            )
            behind[:] = [after]
        else:
            _add(graph, step, name, sync=sync)
            join(name)
            behind[:] = [name]
    join(END)


def _functional(plan: Plan, *, sync: bool) -> Any:
    """An entrypoint that runs its tasks one by one, or all at once."""
    made: list[Any] = [
        task(name=f"t{number}")(_function({**node, "goto": False, "up": False}, f"t{number}", sync=sync))
        for number, node in enumerate(plan["tasks"])
    ]

    def gathered(results: list[Any]) -> Any:
        said = [message for result in results if isinstance(result, dict) for message in result["messages"]]
        return {"messages": [message for message in said if not isinstance(message, RemoveMessage)]}

    def flow(state: Any) -> Any:
        if plan.get("parallel"):
            futures = [each(state) for each in made]
            return gathered([future.result() for future in futures])
        return gathered([each(state).result() for each in made])

    async def aflow(state: Any) -> Any:
        if plan.get("parallel"):
            return gathered(list(await asyncio.gather(*(each(state) for each in made))))
        return gathered([await each(state) for each in made])

    return entrypoint()(flow if sync else aflow)


def build(plan: Plan, *, sync: bool = False) -> Any:
    """The graph of a plan; with `sync` one that runs without an event loop, agents left out."""
    if "tasks" in plan:
        return _functional(plan, sync=sync)
    graph = StateGraph(State)
    _steps(graph, plan["steps"], sync=sync)
    graph.add_node(ASIDE, lambda state: {"done": {ASIDE: 1}})
    options: dict[str, Any] = {}
    if plan.get("keep"):
        options["checkpointer"] = True
    if plan.get("transformers"):
        options["transformers"] = [Letters]
    return graph.compile(**options)


def planned(config: Mapping[str, Any]) -> Any:
    """The factory that the runner knows: the plan comes with the run."""
    plan = (config.get("configurable") or {}).get("plan")
    return build(plan if isinstance(plan, dict) else {"steps": [{"acts": []}]})
