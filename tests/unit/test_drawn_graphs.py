"""Graphs that are drawn, executed and translated: both protocols tell the truth about them.

The parts that LangGraph yields are compared with what the renderer of protocol v1 makes of the lines that came of them,
so no second execution has to go the same way. `DRAWN_GRAPHS` sets how many are drawn; `just drawn-graphs` draws many.
"""

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from slipstream_api.render.v1 import V1Renderer
from slipstream_nats.tail import TailRecord
from slipstream_runner.extensions import extensions_of
from slipstream_runner.translate import EXTENSION, MODES, LlmRuns, Translator, assemble, describe_error
from slipstream_schemas.codec import loads, to_plain
from slipstream_schemas.limits import RECORD_BYTES_MAX, RECORD_LINES_MAX
from slipstream_schemas.lines import EVENT, LineView, decode_line
from slipstream_schemas.record import RecordHeader
from slipstream_schemas.state_forms import to_v2
from slipstream_schemas.terminal import RootStatus, terminal_body
from testkit.graphs.planned import build
from testkit.plans import Plan, plans
from testkit.truths import (
    Event,
    check_checkpoints,
    check_companions,
    check_messages,
    check_subgraphs,
    check_tasks,
    check_tools,
    is_shared,
    masked,
)

EXAMPLES = int(os.environ.get("DRAWN_GRAPHS", "80"))
RUNS_MAX = 5
INPUT: Any = {"messages": [{"type": "human", "content": "hi", "id": "h"}]}
SIZE = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
V1_MODES = ("values", "updates", "messages-tuple", "custom", "tasks", "checkpoints", "debug")


class Told:
    """One run: the parts of the graph, and the lines that were made of them."""

    def __init__(self) -> None:
        self.parts: list[tuple[tuple[str, ...], str, Any]] = []
        self.lines: list[LineView] = []
        self.frames: list[tuple[str, Any]] = []
        self.error: BaseException | None = None
        self.translator = Translator(1, LlmRuns())

    @property
    def events(self) -> list[Event]:
        """What protocol v2 shows."""
        return [Event(line.method, line.namespace, line.data) for line in self.lines if line.kind == EVENT]


async def run(graph: Any, given: Any, thread_id: str, **options: Any) -> Told:
    """Execute a graph once, as the runner does, and render what came of it."""
    told, runs = Told(), LlmRuns()
    translator = told.translator = Translator(1, runs)
    config: Any = {"callbacks": [runs], "configurable": {"thread_id": thread_id}, "recursion_limit": 30}
    extensions = extensions_of(graph)
    bodies: list[bytes] = []

    def drain() -> None:
        while len(translator):
            bodies.append(assemble(translator.drain()[0], "r", 1, len(bodies) + 1))

    async for namespace, mode, payload in _parts(
        graph.astream(given, config, stream_mode=[*MODES, "debug"], subgraphs=True, version="v1", **options), told
    ):
        told.parts.append((namespace, mode, to_plain(_described(mode, payload))))
        if mode == "debug":
            continue
        translator.feed(namespace, mode, payload, 1)
        if extensions is not None:
            await extensions.feed(namespace, mode, payload, translator.message_lines)
            for item in extensions.take():
                translator.feed((), EXTENSION, item, 1)
    translator.check()
    if extensions is not None:
        await (extensions.fail(told.error) if told.error else extensions.close())
    status: RootStatus = "failed" if told.error else "interrupted" if translator.interrupts else "completed"
    translator.finish(status, str(told.error) if told.error else None, 2)
    drain()
    ended = terminal_body("r", status, 3, graph_name="g", run_status="success")
    renderer = V1Renderer("r", V1_MODES, subgraphs=True)
    for number, body in enumerate([*bodies, ended], 1):
        record = TailRecord(number, RecordHeader("r", 1, number), body)
        told.lines += map(decode_line, record.lines)
        for frame in renderer.feed(record).split(b"\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in frame.decode().strip().split("\n"))
            told.frames.append((fields["event"], loads(fields["data"])))
    told.lines.pop()
    return told


async def _parts(stream: Any, told: Told) -> AsyncIterator[tuple[tuple[str, ...], str, Any]]:
    """What LangGraph yields; how it fails is told, and no failure of ours."""
    while True:
        try:
            part = await anext(stream)
        except StopAsyncIteration:
            return
        except Exception as error:  # noqa: BLE001  a plan's error, or LangGraph's of the plan
            told.error = error
            return
        yield part


def _described(mode: str, payload: Any) -> Any:
    if mode == "debug" and isinstance(payload["payload"].get("error"), BaseException):
        return {**payload, "payload": _described("tasks", payload["payload"])}
    if mode == "tasks" and isinstance(payload.get("error"), BaseException):
        return {**payload, "error": describe_error(payload["error"])}
    return payload


# What both protocols must say


def _without_config(mode: str, payload: Any) -> Any:
    """Without what clients must not see of a checkpoint's config."""
    inner = payload["payload"] if mode == "debug" else payload
    if mode == "debug":
        payload = {key: payload[key] for key in ("step", "type", "payload")}
    if mode not in ("checkpoints", "debug") or "parent_config" not in inner:
        return payload
    light = {**inner, "config": _light(inner["config"]), "parent_config": _light(inner["parent_config"])}
    return {**payload, "payload": light} if mode == "debug" else light


def _light(config: Any) -> Any:
    if not config:
        return None
    kept = ("checkpoint_id", "checkpoint_ns", "thread_id")
    return {"configurable": {key: value for key, value in config["configurable"].items() if key in kept}}


def _grouped(pairs: list[tuple[str, Any]]) -> dict[str, list[Any]]:
    out: dict[str, list[Any]] = defaultdict(list)
    for name, payload in pairs:
        out[name].append(_without_config(name.partition("|")[0], payload))
    return out


def check_v1(told: Told) -> None:
    """Protocol v1 shows each mode of each namespace as LangGraph yields it, in order."""
    parts = [("|".join((mode, *namespace)), payload) for namespace, mode, payload in told.parts if mode != "tools"]
    yielded, rendered = _grouped(parts), _grouped(told.frames)
    for name in sorted({*yielded, *rendered}):
        if name.startswith("debug"):
            # LangGraph tells each thing twice, and threads may come between.
            for some in (yielded, rendered):
                if is_shared(tuple(name.split("|")[1:])):
                    some[name] = [{**each, "step": 0} for each in some[name]]
                some[name].sort(key=json.dumps)
        assert rendered.get(name, []) == yielded.get(name, []), name


def check_v2(told: Told, known: set[str]) -> None:
    """Protocol v2 keeps its order."""
    events = told.events
    check_subgraphs(events)
    finished = check_messages(events)
    check_checkpoints(events, known)
    check_companions(events, told.parts)
    check_tools(events, is_whole=told.error is None and not told.translator.interrupts)
    check_tasks(events)
    states = [event.data for event in events if event.method == "values" and not event.namespace]
    messages = states[-1].get("messages", []) if states and isinstance(states[-1], dict) else []
    for message in messages:
        blocks = finished.get(message.get("id"))
        # Messages of the plan's own ids are given several times over.
        if blocks and str(message["id"]).startswith("lc_run"):
            text = "".join(block["text"] for block in blocks[0] if block["type"] == "text")
            assert text == _text(message["content"]), message


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") if isinstance(block, dict) else block for block in content)


async def check_state(graph: Any, told: Told, thread_id: str) -> list[Any]:
    """The last state, the interrupts and the next nodes are those of the thread. Gives the interrupts."""
    config: Any = {"configurable": {"thread_id": thread_id}}
    state = await graph.aget_state(config)
    if told.error is not None:
        return []
    shown = [event.data for event in told.events if event.method == "values" and not event.namespace]
    if shown:
        # Reading the state gives new ids to messages without one that a task has given and no checkpoint holds.
        assert masked(shown[-1]) == masked(to_v2(to_plain(state.values))[0])
    waiting = {each.id: each.value for each in state.interrupts}
    assert {key: each.value for key, each in told.translator.interrupts.items()} == to_plain(waiting)
    namespaces = {event.namespace for event in told.events if event.method == "lifecycle"} | {()}
    for each in told.translator.interrupts.values():
        assert each.namespace in namespaces, each
        assert each.task_id in {task.id for task in state.tasks}, each
    assert bool(told.translator.next_nodes) == bool(state.next)
    return list(state.interrupts)


async def tell(plan: Plan) -> None:
    """Run a plan's graph to its end, answering what it asks, and check each run."""
    graph = build(plan).copy(update={"checkpointer": InMemorySaver(), "name": "planned"})
    given, known = INPUT, set[str]()
    for _ in range(RUNS_MAX):
        told = await run(graph, given, "t", **plan.get("options", {}))
        check_v1(told)
        check_v2(told, known)
        interrupts = await check_state(graph, told, "t")
        given = None
        if told.error is not None or not (interrupts or told.translator.next_nodes):
            return
        if not interrupts:
            continue
        # All but the first one, where there are several: then the superstep is run once more for it.
        given = Command(resume={each.id: "yes" for each in interrupts[min(1, len(interrupts) - 1) :]})


SAY: Plan = {"do": "say", "pieces": [{"content": "one"}, {"content": " two"}]}
FIXED: Plan = {"do": "say", "pieces": [{"content": "one", "id": "fixed"}, {"content": " two", "id": "fixed"}]}
ASKS: Plan = {"tasks": [{"acts": [{"do": "ask"}]}]}
FOUND: dict[str, Plan] = {
    "a result that is not computed again": {"steps": [{"agent": [["plain", "asks"]]}]},
    "a question in the place of a state": ASKS,
    "two questions of one task": {"tasks": [{"acts": [{"do": "call", "graph": ASKS, "how": "gather"}]}]},
    "parallel messages of one id": {"steps": [{"send": 2, "node": {"acts": [FIXED]}}]},
    "a call that fails while its chunks wait": {
        "tasks": [
            {"acts": [SAY]},
            {"acts": [{"do": "call", "graph": {"steps": [{"acts": [{**SAY, "fails": True}]}]}}]},
        ],
        "parallel": True,
    },
    "a message that nobody listens to": {
        "steps": [{"graph": {"steps": [{"acts": [{**SAY, "abandoned": True}]}]}}, {"acts": [SAY]}],
    },
    "a subgraph that keeps its state": {
        "steps": [
            {"loop": 2, "node": {"graph": {"steps": [{"acts": [SAY]}], "keep": True}}},
            {"acts": [{"do": "ask"}]},
        ],
    },
    "a subgraph that a task calls": {
        "tasks": [{"acts": [{"do": "call", "graph": {"steps": [{"acts": [SAY]}]}}]}, {"acts": [{"do": "ask"}]}],
    },
    "a state that fills a record": {"steps": [{"acts": [{"do": "give", "content": "x" * RECORD_BYTES_MAX}]}]},
}


@pytest.mark.parametrize("name", FOUND)
def test_what_drawn_graphs_have_found(name: str) -> None:
    asyncio.run(tell(FOUND[name]))


def test_a_checkpoint_at_the_end_of_a_record_takes_its_values_along() -> None:
    for times in range(RECORD_LINES_MAX - 16, RECORD_LINES_MAX):
        asyncio.run(tell({"steps": [{"acts": [{"do": "write", "value": 1, "times": times}]}]}))


@pytest.mark.parametrize("name", ["a subgraph that keeps its state", "a subgraph that a task calls"])
def test_a_subgraph_ends_with_the_task_that_called_it(name: str) -> None:
    """And not with the run, which ends otherwise: it asks."""
    graph = build(FOUND[name]).copy(update={"checkpointer": InMemorySaver()})
    told = asyncio.run(run(graph, INPUT, "t"))
    lifecycle = [event for event in told.events if event.method == "lifecycle"]
    inner = max((event.namespace for event in lifecycle), key=len)
    states = [event.data["event"] for event in lifecycle if event.namespace == inner]
    assert set(zip(states[::2], states[1::2], strict=True)) == {("started", "completed")}
    assert all(event.data["trigger_call_id"] for event in lifecycle if event.data["event"] == "started")


@SIZE
@given(plans)
def test_both_protocols_tell_the_truth_about_any_graph(plan: Plan) -> None:
    try:
        asyncio.run(tell(plan))
    except BaseException as error:
        error.add_note(f"the plan: {json.dumps(plan)}")
        raise
