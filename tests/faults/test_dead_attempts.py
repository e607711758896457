"""An attempt that dies with a message and a subgraph open: its successor says first that they failed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from testkit.client import Client, Frame, new_thread
from testkit.stack import Stack

DEADLINE_S = 60
GRAPHS = '''
import asyncio
from pathlib import Path
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langgraph.graph import START, MessagesState, StateGraph

HOLD = Path(__file__).with_name("hold")

class Halting(GenericFakeChatModel):
    """Says a word, and the next when it may."""

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        for word in ("one ", "two"):
            chunk = ChatGenerationChunk(message=AIMessageChunk(word))
            if run_manager is not None:
                await run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk
            while HOLD.exists():
                await asyncio.sleep(0.02)

async def say(state):
    return {"messages": [await Halting(messages=iter([AIMessage("-")])).ainvoke("?")]}

inner = StateGraph(MessagesState).add_node("say", say).add_edge(START, "say").compile()
graph = StateGraph(MessagesState).add_node("inner", inner).add_edge(START, "inner").compile()
'''


@pytest.fixture
async def hold(stack: Stack, tmp_path: Path) -> AsyncIterator[Path]:
    """The stack runs the graph above, which waits as long as this file is there."""
    (tmp_path / "agent.py").write_text(GRAPHS)
    (tmp_path / "langgraph.json").write_text('{"graphs": {"halting": "./agent.py:graph"}}')
    stack.config = tmp_path / "langgraph.json"
    found = tmp_path / "hold"
    found.touch()
    await asyncio.to_thread(lambda: stack.start(slipstream_ack_wait_s="1", slipstream_sweep_s="0.5"))
    yield found
    found.unlink(missing_ok=True)


async def until_said(client: Client, thread_id: str, mark: str) -> None:
    """Wait until the log has it."""
    async with client.events(thread_id) as stream:
        async for frame in stream:
            if mark in frame.data:
                return


def below(frames: list[Frame], method: str) -> list[dict[str, Any]]:
    """What happened below the root."""
    found = [frame.body["params"] for frame in frames if frame.event == method]
    return [params["data"] for params in found if params["namespace"]]


@pytest.mark.parametrize("other", [None, "told", "owed"])
async def test_the_next_attempt_closes_what_is_open(stack: Stack, hold: Path, other: str | None) -> None:
    """`other`: a run that waits is cancelled, and its end is the last that the log holds: by the one that dies, or by
    its successor, which finds it owed."""
    thread_id = new_thread()
    async with Client(stack.url) as client, asyncio.timeout(DEADLINE_S):
        await client.start(thread_id, "halting", {"messages": []})
        await until_said(client, thread_id, '"one "')
        waiting = None if other is None else await client.start(thread_id, "halting", {"messages": []})
        if other == "told":
            await client.http.post(f"/threads/{thread_id}/runs/{waiting}/cancel")
            await client.http.get(f"/threads/{thread_id}/runs/{waiting}/join")
        stack.runners[0].kill()
        hold.unlink()
        if other == "owed":
            await client.http.post(f"/threads/{thread_id}/runs/{waiting}/cancel")
        await stack.spawn_runner(slipstream_ack_wait_s="1", slipstream_sweep_s="0.5").ready()
        whole = await client.run_events(thread_id, ends=1 if other is None else 2)
    # A machine that is very slow may cost the run more than one attempt.
    life = [data["event"] for data in below(whole, "lifecycle")]
    assert life == ["started", "failed"] * (len(life) // 2 - 1) + ["started", "completed"] and "failed" in life
    said = below(whole, "messages")
    frame = [data for data in said if not data["event"].startswith("content-block")]
    starts, ends = frame[::2], frame[1::2]
    assert [data["event"] for data in starts] == ["message-start"] * len(ends)
    assert [data["event"] for data in ends] == ["error"] * (len(ends) - 1) + ["message-finish"] and len(ends) > 1
    assert [data["id"] for data in starts] == [data["message_id"] for data in ends]
    assert [data["run_id"] for data in starts] == [data["run_id"] for data in ends]
    failed = next(n for n, each in enumerate(whole) if '"failed"' in each.data)
    error = next(n for n, each in enumerate(whole) if each.event == "messages" and '"error"' in each.data)
    running = [n for n, each in enumerate(whole) if each.event == "lifecycle" and '"running"' in each.data]
    assert error < failed < running[-1]
