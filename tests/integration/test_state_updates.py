"""Updates of a thread's state that meet runs and crashes half way."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk import get_client

from slipstream_nats import leases
from slipstream_nats.connection import Connection
from slipstream_schemas.subjects import Scope
from testkit.client import Client
from testkit.stack import Stack
from testkit.wait import until

IN: dict[str, Any] = {"steps": ["in"]}
AGAIN: dict[str, Any] = {"steps": ["again"]}
GRAPH = '''
import asyncio, operator, pathlib
from typing import Annotated, TypedDict
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

HERE = pathlib.Path(__file__).parent

class State(TypedDict, total=False):
    steps: Annotated[list[str], operator.add]

async def one(state):
    return {"steps": ["ran"]}

async def gate(state):
    """Applying an update as `one` waits here, in the middle of its transaction."""
    if state["steps"][-1] == "held":
        (HERE / "waiting").touch()
        while not (HERE / "open").exists():
            await asyncio.sleep(0.01)
    return END

graph = StateGraph(State).add_node("one", one).add_edge(START, "one").add_conditional_edges("one", gate).compile()

def ask(state):
    return {"steps": [interrupt("which?")]}

inner = StateGraph(State).add_node("ask", ask).add_edge(START, "ask").compile()
nested = StateGraph(State).add_node("below", inner).add_edge(START, "below").compile()
'''


def with_graph(stack: Stack, root: Path) -> None:
    """Let the stack serve the graph above."""
    (root / "gated.py").write_text(GRAPH)
    stack.config = root / "langgraph.json"
    stack.config.write_text('{"graphs": {"gated": "./gated.py:graph", "nested": "./gated.py:nested"}}')


async def test_a_run_that_begins_during_an_update_waits_and_goes_on_from_it(
    stack: Stack, tmp_path: Path, connection: Connection
) -> None:
    with_graph(stack, tmp_path)
    await asyncio.to_thread(stack.start)
    sdk = get_client(url=stack.url)
    scope = Scope(stack.region)
    thread_id = str((await sdk.threads.create())["thread_id"])
    await sdk.runs.wait(thread_id, "gated", input=IN)
    updating = asyncio.create_task(sdk.threads.update_state(thread_id, {"steps": ["held"]}, as_node="one"))
    await until((tmp_path / "waiting").exists)
    lease = await leases.last(connection, scope, thread_id)
    running = asyncio.create_task(sdk.runs.wait(thread_id, "gated", input=AGAIN))

    async def is_taken() -> bool:
        return await leases.last(connection, scope, thread_id) > lease

    await until(is_taken)
    (tmp_path / "open").touch()
    placed: Any = await updating
    result: Any = await running
    assert result["steps"] == ["in", "ran", "held", "again", "ran"]
    history: list[Any] = await sdk.threads.get_history(thread_id, limit=20)
    assert placed["checkpoint_id"] in [state["checkpoint"]["checkpoint_id"] for state in history]
    thread: Any = await sdk.threads.get(thread_id)
    assert (thread["status"], thread["values"]) == ("idle", result)
    (latest, _) = await sdk.runs.list(thread_id)
    assert latest["status"] == "success"


async def test_an_update_whose_runner_dies_behind_its_commit_is_there(stack: Stack, tmp_path: Path) -> None:
    with_graph(stack, tmp_path)
    await asyncio.to_thread(stack.start)
    sdk = get_client(url=stack.url)
    thread_id = str((await sdk.threads.create())["thread_id"])
    await sdk.runs.wait(thread_id, "gated", input=IN)
    stack.runners[0].kill()
    doomed = await stack.spawn_runner(slipstream_crashpoint="state_committed").ready()
    updating = asyncio.create_task(sdk.threads.update_state(thread_id, {"steps": ["posted"]}, as_node="one"))
    await doomed.ended()
    await stack.spawn_runner().ready()
    state: Any = await sdk.threads.get_state(thread_id)
    assert state["values"]["steps"] == ["in", "ran", "posted"]
    result: Any = await sdk.runs.wait(thread_id, "gated", input=AGAIN)
    assert result["steps"] == ["in", "ran", "posted", "again", "ran"]
    assert (await sdk.threads.get(thread_id))["values"] == result
    updating.cancel()
    await asyncio.gather(updating, return_exceptions=True)


@pytest.mark.parametrize(("as_node", "status"), [("nobody", 400), ("one", 200)])
async def test_an_update_behind_another_does_not_silence_it(
    stack: Stack, tmp_path: Path, connection: Connection, as_node: str, status: int
) -> None:
    """The second one takes the lease while the first one's transaction is open, so the first one's record is fenced."""
    with_graph(stack, tmp_path)
    await asyncio.to_thread(stack.start)
    sdk = get_client(url=stack.url)
    scope = Scope(stack.region)
    thread_id = str((await sdk.threads.create())["thread_id"])
    await sdk.runs.wait(thread_id, "gated", input=IN)
    updating = asyncio.create_task(sdk.threads.update_state(thread_id, {"steps": ["held"]}, as_node="one"))
    await until((tmp_path / "waiting").exists)
    lease = await leases.last(connection, scope, thread_id)

    async def is_taken() -> bool:
        return await leases.last(connection, scope, thread_id) > lease

    async with Client(stack.url) as client:
        body = {"values": {"steps": ["second"]}, "as_node": as_node}
        second = asyncio.create_task(client.http.post(f"/threads/{thread_id}/state", json=body))
        await until(is_taken)
        (tmp_path / "open").touch()
        placed: list[Any] = [await updating]
        answer = await second
        assert answer.status_code == status, answer.text
        placed += [answer.json()] if status == 200 else []
        thread: Any = await sdk.threads.get(thread_id)
        assert thread["values"]["steps"] == ["in", "ran", "held", "second"][: 2 + len(placed)]
        ids = [each["checkpoint_id"] for each in placed]
        told: list[str] = []
        async with client.events(thread_id, channels=["checkpoints"]) as stream:
            async for event in stream:
                told.append(event.body["params"]["data"]["id"])
                if told[-1] == ids[-1]:
                    break
    assert told[-1] == ids[-1]
    assert [each for each in told if each in ids] == [each for each in ids if each in told]


async def test_without_a_runner_state_is_unavailable_and_threads_are_not(stack: Stack, tmp_path: Path) -> None:
    with_graph(stack, tmp_path)
    await asyncio.to_thread(stack.start)
    sdk = get_client(url=stack.url)
    thread_id = str((await sdk.threads.create())["thread_id"])
    await sdk.runs.wait(thread_id, "gated", input=IN)
    stack.runners[0].kill()
    async with Client(stack.url) as client:
        path = f"/threads/{thread_id}"

        async def is_noticed() -> bool:
            return "gated" in (await client.http.get(f"{path}/state")).json().get("detail", "")

        await until(is_noticed)
        for answer in (
            await client.http.get(f"{path}/state"),
            await client.http.post(f"{path}/history", json={}),
            await client.http.post(f"{path}/state", json={"values": {"steps": ["x"]}}),
        ):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "gated" in answer.json()["detail"]
        assert (await client.http.get(path)).json()["values"]["steps"] == ["in", "ran"]


async def test_a_question_from_below_can_be_answered_in_a_copy(stack: Stack, tmp_path: Path) -> None:
    with_graph(stack, tmp_path)
    await asyncio.to_thread(stack.start)
    sdk = get_client(url=stack.url)
    thread_id = str((await sdk.threads.create())["thread_id"])
    async with Client(stack.url) as client:
        await client.start(thread_id, "nested", IN)
        seen = await client.run_events(thread_id, 0)
        (asked,) = [frame.body["params"] for frame in seen if frame.event == "input.requested"]
        assert asked["namespace"][0].startswith("below:")
        copy: Any = sdk.threads.copy
        copied = await copy(thread_id)
        answer = await client.command(
            copied["thread_id"], "input.respond", interrupt_id=asked["data"]["interrupt_id"],
            namespace=asked["namespace"], response="this",
        )  # fmt: skip
        assert answer["type"] == "success", answer

        async def is_idle() -> bool:
            return (await sdk.threads.get(copied["thread_id"]))["status"] == "idle"

        await until(is_idle)
        values: Any = (await sdk.threads.get(copied["thread_id"]))["values"]
        assert values["steps"][-1] == "this"
        assert (await sdk.threads.get(thread_id))["status"] == "interrupted"
