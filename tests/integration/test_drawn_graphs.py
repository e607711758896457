"""Graphs that are drawn, run by the services: every stream of a thread tells the same, and what LangGraph does.

`DRAWN_RUNS` sets how many are drawn, `DRAWN_SHRINK=1` looks for a shorter failure; `just drawn-graphs` draws many. What
is translated is held against LangGraph part by part in `tests/unit/test_drawn_graphs.py`; here the whole way is: log,
streams, filters, rows, answers.
"""

import asyncio
import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from langgraph_sdk import get_client
from langgraph_sdk.stream.subscription import matches_subscription

from slipstream_runner.translate import MODES, describe_error
from slipstream_schemas.codec import to_plain
from slipstream_schemas.state_forms import to_v2
from testkit.client import ALL_CHANNELS, Client, Frame, frames, new_thread
from testkit.graphs.planned import build
from testkit.plans import Plan, plans
from testkit.sdk import all_of, text_of
from testkit.sockets import Socket
from testkit.stack import Stack
from testkit.truths import (
    Event,
    check_checkpoints,
    check_messages,
    check_subgraphs,
    check_tasks,
    check_tools,
    is_shared,
    masked,
)

LIVE_ALONE = "input.answered"
"""Said to who is there, and in no replay."""
EXAMPLES = int(os.environ.get("DRAWN_RUNS", "12"))
RUNS_MAX = 3
DEADLINE_S = 60
PHASES = [Phase.explicit, Phase.generate, *([Phase.shrink] if os.environ.get("DRAWN_SHRINK") else [])]
"""Looking for a shorter failure takes minutes."""
SIZE = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    phases=PHASES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
INPUT: Any = {"messages": [{"type": "human", "content": "hi", "id": "h"}]}
V1_MODES = ["values", "updates", "messages-tuple", "custom", "tasks", "checkpoints"]
KEPT_METADATA = ("langgraph_node", "langgraph_step", "langgraph_path", "langgraph_checkpoint_ns", "lc_agent_name")
Told = list[tuple[str, Any]]
Answers = list[tuple[str, list[str]]]
"""Interrupts and their namespaces."""


def streams_of(told: Told) -> Counter[str]:
    """What each actor said, in its order: a mode's parts of one node in one namespace."""
    out: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for name, payload in told:
        mode, *namespace = name.split("|")
        if is_shared(tuple(namespace)):
            # Two of these at once come into each other's way, as LangGraph has it.
            continue
        actor = ""
        if mode == "messages":
            message, metadata = payload
            payload = [message, {key: metadata.get(key) for key in KEPT_METADATA}]
            actor = f"{metadata.get('langgraph_checkpoint_ns')} {message['id']}"
        elif mode == "updates":
            actor = next(iter(payload))
            if actor == "__interrupt__":
                actor = masked(payload)
        elif mode == "tasks":
            actor = payload["id"]
            payload = {key: value for key, value in payload.items() if key != "metadata"}
        elif mode == "checkpoints":
            payload = {key: payload[key] for key in ("values", "next")}
        out[name, actor].append(payload)
    return Counter(masked([name, some]) for (name, _), some in out.items())


async def alone(graph: Any, given: Any, options: dict[str, Any]) -> tuple[Told, BaseException | None]:
    """What the graph yields without a server."""
    told: Told = []
    config: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": 30}
    try:
        async for namespace, mode, payload in graph.astream(
            given, config, stream_mode=list(MODES), subgraphs=True, version="v1", **options
        ):
            if mode == "tasks" and isinstance(payload.get("error"), BaseException):
                payload = {**payload, "error": describe_error(payload["error"])}
            if mode != "tools":
                told.append(("|".join((mode, *namespace)), to_plain(payload)))
    except Exception as error:  # noqa: BLE001  a plan's error, or LangGraph's of the plan
        return told, error
    return told, None


class Thread:
    """A thread on the server, followed over both transports from before its first run."""

    def __init__(self, client: Client, plan: Plan) -> None:
        self.client, self.id = client, new_thread()
        self.options: dict[str, Any] = plan.get("options", {})
        self.config: Any = {"configurable": {"plan": plan}, "recursion_limit": 30}
        self.runs: list[tuple[str, list[Frame]]] = []

    async def run(self, answers: Answers | None, *, by_v1: bool) -> list[Frame]:
        """Start the thread, answer it or go on; the frames of protocol v1."""
        if by_v1 or self.options:
            return await self._run_v1(answers)
        if answers is None:
            run_id = await self.client.start(self.id, "planned", INPUT, config=self.config)
        else:
            responses = [{"interrupt_id": key, "namespace": ns, "response": "yes"} for key, ns in answers]
            answer = await self.client.command(self.id, "input.respond", responses=responses, config=self.config)
            assert answer["type"] == "success", answer
            run_id = answer["result"]["run_id"]
        found = await self.replay_v1(run_id)
        self.runs.append((run_id, found))
        return found

    async def _run_v1(self, answers: Answers | None) -> list[Frame]:
        given: Any = {"input": INPUT if answers is None else None, **self.options}
        if answers:
            given["command"] = {"resume": {key: "yes" for key, _ in answers}}
        body = {"assistant_id": "planned", "config": self.config, "stream_mode": V1_MODES, "stream_subgraphs": True,
                "if_not_exists": "create", "on_disconnect": "continue", **given}  # fmt: skip
        async with self.client.http.stream("POST", f"/threads/{self.id}/runs/stream", json=body) as answer:
            assert answer.status_code == 200, await answer.aread()
            found = [frame async for frame in frames(answer.aiter_bytes()) if frame.event != ":"]
        self.runs.append((found[0].body["run_id"], found))
        return found

    async def replay_v1(self, run_id: str, last: str = "-1") -> list[Frame]:
        """A run's frames of protocol v1 from a cursor on."""
        query = {"stream_mode": json.dumps(V1_MODES), "stream_subgraphs": "true"}
        path = f"/threads/{self.id}/runs/{run_id}/stream"
        async with self.client.http.stream("GET", path, params=query, headers={"last-event-id": last}) as answer:
            assert answer.status_code == 200, await answer.aread()
            return [frame async for frame in frames(answer.aiter_bytes()) if frame.event != ":"]

    async def replay(self, since: int | None = None, **body: Any) -> list[Frame]:
        """The thread's frames of protocol v2 until the stream has caught up."""
        out: list[Frame] = []
        async with asyncio.timeout(DEADLINE_S), self.client.stream(self.id, since, **body) as found:
            async for frame in found:
                if frame.event == ":" and frame.data.startswith("caught-up"):
                    return out
                if frame.event != ":":
                    out.append(frame)
        raise AssertionError("the stream ended")


def events_of(found: Sequence[Frame]) -> list[Event]:
    """Frames as the checks take them."""
    params = [(frame.event, frame.body["params"]) for frame in found]
    return [Event(method, tuple(each["namespace"]), each["data"]) for method, each in params]


def check_run(run: list[Event], known: set[str], answers: Answers | None) -> list[Event]:
    """One run's events, its root's included. Gives what it asks."""
    roots = [event.data["event"] for event in run if event.method == "lifecycle" and not event.namespace]
    assert len(roots) == 2 and roots[0] == "running", roots
    assert (run[0].method, run[-1].method) == ("lifecycle", "lifecycle")
    answered = [event.data["interrupt_id"] for event in run if event.method == "input.responded"]
    assert sorted(answered) == sorted(key for key, _ in answers or ())
    asked = [event for event in run if event.method == "input.requested"]
    assert len({event.data["interrupt_id"] for event in asked}) == len(asked)
    assert not asked or roots[-1] == "interrupted"
    inner = [event for event in run if not event.method.startswith("input.")]
    known_namespaces = {event.namespace for event in inner}
    assert all(event.namespace in known_namespaces for event in asked), asked
    check_subgraphs(inner)
    check_messages(inner)
    check_checkpoints(inner, known)
    check_tools(inner, is_whole=roots[-1] == "completed")
    check_tasks(inner)
    return asked


def check_frames(found: list[Frame]) -> None:
    """Cursors grow; ids are unique; the envelope's `seq` is the cursor."""
    seqs = [frame.seq for frame in found]
    assert seqs == sorted(set(seqs))
    assert all(frame.body["seq"] == frame.seq for frame in found)
    ids = [frame.body["event_id"] for frame in found]
    assert len(set(ids)) == len(ids)


async def check_replays(thread: Thread, live: list[Frame], cut: float) -> None:
    """Replays and resumed streams are what was seen live, byte for byte."""
    assert await thread.replay() == live
    at = int(cut * len(live))
    assert await thread.replay(live[at].seq) == live[at + 1 :]
    for run_id, told in thread.runs:
        assert await thread.replay_v1(run_id) == told
        at = int(cut * len(told))
        rest = await thread.replay_v1(run_id, told[at].id) if told[at].id else told[at + 1 :]
        assert rest == told[at + 1 :]


async def check_filter(thread: Thread, live: list[Frame], chosen: dict[str, Any]) -> None:
    """A filtered stream is what the SDK's own matcher leaves of the whole one."""
    bodies = [(frame, frame.body) for frame in live]
    namespaces = sorted({tuple(body["params"]["namespace"]) for _, body in bodies})
    request: Any = {"channels": chosen["channels"]}
    if chosen["prefixes"]:
        request["namespaces"] = [
            [segment.partition(":")[0] if bare else segment for segment in namespaces[at % len(namespaces)][:length]]
            for at, length, bare in chosen["prefixes"]
        ]
        if chosen["depth"] is not None:
            request["depth"] = chosen["depth"]
    # `input.responded` is ours, on the channel `input`.
    known: list[Any] = [{**body, "method": body["method"].replace("responded", "requested")} for _, body in bodies]
    expected = [frame for frame, event in zip(live, known, strict=True) if matches_subscription(event, request)]
    assert await thread.replay(**request) == expected


filters = st.fixed_dictionaries(
    {
        # Without content it would be a watcher, which begins elsewhere.
        "channels": st.lists(st.sampled_from([*ALL_CHANNELS, "custom:progress"]), max_size=4).map(
            lambda drawn: [*drawn, "values"]
        ),
        "prefixes": st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3), st.booleans()), max_size=2),
        "depth": st.none() | st.integers(0, 2),
    }
)


async def tell(stack: Stack, plan: Plan, ways: list[bool], cut: float, chosen: dict[str, Any]) -> None:
    """Run a plan on the server and without it, answering what it asks, and compare."""
    graph = build(plan).copy(update={"checkpointer": InMemorySaver()})
    given: Any = INPUT
    answers: Answers | None = None
    known: set[str] = set()
    live: list[Frame] = []
    async with Client(stack.url) as client, asyncio.timeout(DEADLINE_S):
        thread = Thread(client, plan)
        async with client.events(thread.id) as stream, Socket(stack.url, thread.id) as socket:
            await socket.subscribe()
            for by_v1 in ways:
                told, error = await alone(graph, given, thread.options)
                seen = await thread.run(answers, by_v1=by_v1)
                begun = len(live)
                async for frame in stream:
                    if frame.event == LIVE_ALONE:
                        continue
                    live.append(frame)
                    if frame.ends_root:
                        break
                asked = check_run(events_of(live[begun:]), known, answers)
                shown = [(frame.event, frame.body) for frame in seen if frame.event not in ("metadata", "error")]
                assert ("error" in [frame.event for frame in seen]) == (error is not None), seen[-1]
                if error is not None:
                    break
                ours, theirs = streams_of(shown), streams_of(told)
                assert ours == theirs, f"{ours - theirs} instead of {theirs - ours}"
                state = await graph.aget_state({"configurable": {"thread_id": "t"}})
                asked_alone = {each.id for each in state.interrupts}
                await check_rows(thread, graph, asked)
                assert len(asked) == len(asked_alone)
                if not state.next:
                    break
                answers = [(event.data["interrupt_id"], list(event.namespace)) for event in asked]
                given = Command(resume=dict.fromkeys(asked_alone, "yes")) if asked else None
            check_frames(live)
            await socket.until_ended(len(thread.runs))
            assert [each for each in socket.events if each["method"] != LIVE_ALONE] == [frame.body for frame in live]
            await check_replays(thread, live, cut)
            await check_filter(thread, live, chosen)


async def check_rows(thread: Thread, graph: Any, asked: list[Event]) -> None:
    """The thread's state and row are what the graph has come to."""
    state = await graph.aget_state({"configurable": {"thread_id": "t"}})
    on_server = (await thread.client.http.get(f"/threads/{thread.id}/state")).json()
    row = (await thread.client.http.get(f"/threads/{thread.id}")).json()
    if state.values is not None:
        assert masked(on_server["values"]) == masked(to_plain(state.values))
        assert row["values"] == on_server["values"]
    shown = sorted(each["id"] for some in row["interrupts"].values() for each in some)
    assert shown == sorted(event.data["interrupt_id"] for event in asked)
    # LangGraph's own state tells a question several times that nested tasks ask.
    assert shown == sorted({each["id"] for each in on_server["interrupts"]})
    assert row["status"] == ("interrupted" if state.next else "idle")


@SIZE
@given(plans, st.lists(st.booleans(), min_size=RUNS_MAX, max_size=RUNS_MAX), st.floats(0, 0.999), filters)
async def test_every_stream_of_a_drawn_graph_tells_the_same(
    live: Stack, plan: Plan, ways: list[bool], cut: float, chosen: dict[str, Any]
) -> None:
    try:
        await tell(live, plan, ways, cut, chosen)
    except BaseException as error:
        error.add_note(f"the example: {json.dumps([plan, ways, cut, chosen])}")
        raise


async def texts_told(messages: Any) -> list[str]:
    """The texts of all messages that come to their end; those that fail raise."""
    reading = [asyncio.create_task(text_of(message)) async for message in messages]
    texts = await asyncio.gather(*reading, return_exceptions=True)
    return [text for text in texts if isinstance(text, str)]


async def told_by_sdk(stack: Stack, plan: Plan) -> None:
    """Run a plan with the stock SDK and compare what it shows with the thread's state."""
    sdk = get_client(url=stack.url)
    config: Any = {"configurable": {"plan": plan}, "recursion_limit": 30}
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="planned") as thread:
        reading = asyncio.gather(all_of(thread.values), texts_told(thread.messages))
        await thread.run.start(input=INPUT, config=config)
        values, texts = await reading
        async with Client(stack.url) as client:
            found = await client.run_events(thread.thread_id)
            events = events_of(found)
            state = (await client.http.get(f"/threads/{thread.thread_id}/state")).json()
        told = [event.data for event in events if event.method == "values"]
        # The SDK begins with the state of the thread before the run, and shows those of subgraphs too.
        assert values[-len(told) :] == told or not told
        told = [event.data for event in events if event.method == "values" and not event.namespace]
        finished = check_messages([event for event in events if not event.namespace])
        whole = ["".join(b["text"] for b in each if b["type"] == "text") for some in finished.values() for each in some]
        assert Counter(whole) <= Counter(texts)
        if events[-1].data["event"] == "completed" and isinstance(told[-1], dict):
            output: Any = await thread.output
            assert output == state["values"]
            assert to_v2(output)[0] == told[-1]
        asked = [event.data["interrupt_id"] for event in events if event.method == "input.requested"]
        assert sorted(each["interrupt_id"] for each in thread.interrupts) == sorted(asked)


@settings(SIZE, max_examples=max(EXAMPLES // 5, 1))
@given(plans)
async def test_the_stock_sdk_shows_what_a_drawn_graph_came_to(live: Stack, plan: Plan) -> None:
    try:
        await told_by_sdk(live, plan)
    except BaseException as error:
        error.add_note(f"the plan: {json.dumps(plan)}")
        raise
