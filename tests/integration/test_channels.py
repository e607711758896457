"""Events that LangGraph's own stream does not have: answered interrupts, a graph's own transformers, many questions."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from slipstream_schemas.limits import RECORD_LINES_MAX
from testkit.client import Client, Frame, new_thread
from testkit.servers import NatsServer
from testkit.stack import Stack, fresh_stack

GRAPHS = '''
import asyncio, operator
from typing import Annotated, TypedDict
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.stream import StreamChannel, StreamTransformer
from langgraph.types import Send, interrupt

class Letters(StreamTransformer):
    """Counts letters as they are said, and says the total at the end, after a task of its own."""
    required_stream_modes = ("messages",)

    def __init__(self, scope=()):
        super().__init__(scope)
        self.letters = StreamChannel("letters")
        self.quiet = StreamChannel()
        self.seen = set()
        self.count = 0

    def init(self):
        return {"letters": self.letters, "quiet": self.quiet}

    def process(self, event):
        self.seen.add(event["method"])
        if event["method"] == "messages":
            data, metadata = event["params"]["data"]
            if data["event"] == "content-block-delta":
                self.count += len(data["delta"]["text"])
                self.letters.push({"count": self.count, "node": metadata["langgraph_node"]})
        return True

    async def afinalize(self):
        await asyncio.sleep(0)
        self.letters.push({"total": self.count, "seen": sorted(self.seen)})

class Broken(Letters):
    def process(self, event):
        raise ValueError("the transformer broke")

async def speak(state):
    get_stream_writer()({"name": "letters", "said": "by the node"})
    model = GenericFakeChatModel(messages=iter([AIMessage("one two")]))
    return {"messages": [await model.ainvoke("?")]}

plain = StateGraph(MessagesState).add_node("speak", speak).add_edge(START, "speak")
speaks, breaks = plain.compile(transformers=[Letters]), plain.compile(transformers=[Broken])

class State(TypedDict, total=False):
    count: int
    answers: Annotated[list[str], operator.add]

def ask(state): return {"answers": [interrupt({"number": state["count"]})]}
def fan(state): return [Send("ask", {"count": number}) for number in range(state["count"])]
async def flood(state):
    for number in range(2000):
        get_stream_writer()({"number": number})
    return {"count": 1}
floods = (StateGraph(State).add_node("flood", flood).add_node("ask", ask).add_edge(START, "flood")
          .add_edge("flood", "ask").compile())
asks = StateGraph(State).add_node("ask", ask).add_conditional_edges(START, fan, ["ask"]).compile()
'''


DEADLINE_S = 40


@pytest.fixture(scope="module")
def channels(nats_server: NatsServer, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack on the graphs above."""
    folder = tmp_path_factory.mktemp("channels")
    (folder / "agent.py").write_text(GRAPHS)
    graphs = ",".join(f'"{name}": "./agent.py:{name}"' for name in ("speaks", "breaks", "asks", "floods"))
    (folder / "langgraph.json").write_text(f'{{"graphs": {{{graphs}}}}}')
    with fresh_stack(nats_server.url, postgres_dsn, folder / "stack", folder / "langgraph.json") as opened:
        yield opened.start()


def data_of(frames: list[Frame], method: str) -> list[Any]:
    return [frame.body["params"]["data"] for frame in frames if frame.event == method]


async def test_what_a_transformer_pushes_arrives_under_its_name(channels: Stack) -> None:
    thread_id = new_thread()
    async with Client(channels.url) as client:
        await client.start(thread_id, "speaks", {"messages": []})
        seen = await client.run_events(thread_id, channels=["custom:letters", "lifecycle"])
        *counts, total = [
            data for data in data_of(seen, "custom") if "count" in data["payload"] or "total" in data["payload"]
        ]
        assert counts == [{"name": "letters", "payload": {"count": count, "node": "speak"}} for count in (3, 4, 7)]
        methods = ["checkpoints", "custom", "messages", "tasks", "updates", "values"]
        assert total == {"name": "letters", "payload": {"total": 7, "seen": methods}}
        # Protocol v1 shows what nodes write, as ever.
        run = {"assistant_id": "speaks", "input": {"messages": []}, "stream_mode": "custom"}
        answer = await client.http.post(f"/threads/{thread_id}/runs/stream", json=run)
        assert answer.text.count("event: custom") == 1 and "by the node" in answer.text


async def test_a_transformer_that_raises_fails_its_run(channels: Stack) -> None:
    thread_id = new_thread()
    async with Client(channels.url) as client:
        await client.start(thread_id, "breaks", {"messages": []})
        last = (await client.run_events(thread_id))[-1].body["params"]["data"]
        assert last["event"] == "failed" and "the transformer broke" in last["error"]


async def test_a_replay_shows_which_interrupts_were_answered(channels: Stack) -> None:
    thread_id = new_thread()
    async with Client(channels.url) as client:
        await client.start(thread_id, "asks", {"count": 2})
        asked = data_of(await client.run_events(thread_id), "input.requested")
        first, second = (each["interrupt_id"] for each in asked)
        responses = [{"interrupt_id": each, "namespace": [], "response": each[:4]} for each in (second, first)]
        await client.command(thread_id, "input.respond", responses=responses)
        seen = await client.run_events(thread_id, ends=2, channels=["input", "lifecycle"])
        answered = data_of(seen, "input.responded")
        assert sorted(map(str, answered)) == sorted(
            str({"interrupt_id": each, "response": each[:4]}) for each in (first, second)
        )
        assert len(data_of(seen, "input.requested")) == 2
        # The answers are the first that the answering run says.
        running = max(n for n, frame in enumerate(seen) if frame.body["params"]["data"].get("event") == "running")
        assert [frame.event for frame in seen[running + 1 : running + 3]] == ["input.responded"] * 2


async def test_one_question_may_be_answered_without_its_id(channels: Stack) -> None:
    thread_id = new_thread()
    async with Client(channels.url) as client:
        await client.start(thread_id, "asks", {"count": 1})
        asked = data_of(await client.run_events(thread_id), "input.requested")
        await client.start(thread_id, "asks", "yes")
        seen = await client.run_events(thread_id, ends=2)
        assert data_of(seen, "input.responded") == [{"interrupt_id": asked[0]["interrupt_id"], "response": "yes"}]
        assert data_of(seen, "values")[-1]["answers"] == ["yes"]


async def test_a_watcher_learns_of_a_question_when_its_client_has_what_came_before(channels: Stack) -> None:
    thread_id = new_thread()
    arrived: list[str] = []

    async def read(name: str, **body: Any) -> None:
        async with client.events(thread_id, **body) as stream:
            async for frame in stream:
                if frame.event == "input.requested":
                    arrived.append(name)
                    return

    async with Client(channels.url) as client:
        # A burst takes the wide stream longer than the narrow one, which carries two events.
        await client.start(thread_id, "floods", {"count": 1})
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            group.create_task(read("narrow", channels=["lifecycle", "input"]))
            group.create_task(read("wide"))
    assert arrived == ["wide", "narrow"]


async def test_a_stuck_stream_keeps_a_watcher_waiting_for_a_moment_only(channels: Stack) -> None:
    thread_id = new_thread()
    async with Client(channels.url) as client, client.stream(thread_id) as stuck:
        await anext(stuck)
        await client.start(thread_id, "floods", {"count": 1})
        async with asyncio.timeout(DEADLINE_S), client.events(thread_id, channels=["input"]) as narrow:
            assert (await anext(narrow)).event == "input.requested"


async def test_more_questions_than_a_record_has_lines_are_all_asked(channels: Stack) -> None:
    thread_id, count = new_thread(), RECORD_LINES_MAX + 44
    async with Client(channels.url) as client:
        await client.start(thread_id, "asks", {"count": count})
        seen = await client.run_events(thread_id, channels=["input", "lifecycle"])
        asked = {data["interrupt_id"]: data["value"]["number"] for data in data_of(seen, "input.requested")}
        assert sorted(asked.values()) == list(range(count))
        assert len(data_of(seen, "input.requested")) == count, "each is asked once"
        assert [frame.seq for frame in seen] == sorted({frame.seq for frame in seen})
        responses = [{"interrupt_id": each, "namespace": [], "response": "x"} for each in asked]
        answer = await client.command(thread_id, "input.respond", responses=responses)
        assert answer["type"] == "success"
        seen = await client.run_events(thread_id, since=seen[-1].seq, channels=["input", "lifecycle"])
        assert len(data_of(seen, "input.responded")) == count
        assert seen[-1].body["params"]["data"]["event"] == "completed"
