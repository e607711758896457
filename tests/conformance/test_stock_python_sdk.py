"""The unmodified Python SDK against a running server."""

import asyncio
import itertools
from typing import Any

from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from testkit.stack import Stack
from testkit.wait import until

DEADLINE_S = 30
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


def client(live: Stack) -> LangGraphClient:
    """A client of the running stack."""
    return get_client(url=live.url)


async def new_thread(sdk: LangGraphClient) -> str:
    """A thread's id."""
    return str((await sdk.threads.create())["thread_id"])


async def test_runs_stream_in_every_mode(live: Stack) -> None:
    sdk = client(live)
    modes: list[Any] = ["values", "updates", "messages-tuple", "custom", "tasks", "checkpoints", "debug"]
    events: list[str] = []
    text = ""
    async for part in sdk.runs.stream(await new_thread(sdk), "chat", input=HELLO, stream_mode=modes):
        events.append(part.event)
        if part.event == "messages":
            text += part.data[0]["content"]
    assert events[0] == "metadata"
    assert {"values", "updates", "messages", "tasks", "checkpoints", "debug"} <= set(events)
    assert text.startswith("You said: hello.")


async def test_messages_mode_shows_the_message_growing(live: Stack) -> None:
    sdk = client(live)
    seen: list[str] = []
    async for part in sdk.runs.stream(await new_thread(sdk), "chat", input=HELLO, stream_mode="messages"):
        if part.event == "messages/partial":
            seen.append(part.data[0]["content"])
    assert len(seen) > 5 and all(later.startswith(earlier) for earlier, later in itertools.pairwise(seen))


async def test_wait_interrupt_and_resume_by_command(live: Stack) -> None:
    sdk = client(live)
    thread_id = await new_thread(sdk)
    asked: Any = await sdk.runs.wait(thread_id, "approval", input={"amount": 7})
    assert asked["__interrupt__"][0]["value"]["question"] == "Refund 7?"
    thread = await sdk.threads.get(thread_id)
    assert thread["status"] == "interrupted"
    (interrupts,) = thread["interrupts"].values()
    assert interrupts[0]["value"]["question"] == "Refund 7?"
    state = await sdk.threads.get_state(thread_id)
    assert list(state["next"]) == ["ask"]
    done: Any = await sdk.runs.wait(thread_id, "approval", command={"resume": "yes"})
    assert done["result"] == "refunded"
    assert (await sdk.threads.get(thread_id))["status"] == "idle"


async def test_threads_runs_and_assistants(live: Stack) -> None:
    sdk = client(live)
    thread = await sdk.threads.create(metadata={"purpose": "conformance"})
    found = await sdk.threads.search(metadata={"purpose": "conformance"})
    assert thread["thread_id"] in [each["thread_id"] for each in found]
    run = await sdk.runs.create(thread["thread_id"], "counter", input={"steps": 2, "delay_s": 0.01})
    assert [each["run_id"] for each in await sdk.runs.list(thread["thread_id"])] == [run["run_id"]]
    result: Any = await sdk.runs.join(thread["thread_id"], run["run_id"])
    assert result["count"] == 2
    assert (await sdk.runs.get(thread["thread_id"], run["run_id"]))["status"] == "success"
    graphs = {each["graph_id"] for each in await sdk.assistants.search(limit=100)}
    assert {"chat", "agent", "approval"} <= graphs
    await sdk.threads.delete(thread["thread_id"])
    assert await sdk.threads.search(metadata={"purpose": "conformance"}) == []


async def test_a_cancelled_run_ends(live: Stack) -> None:
    sdk = client(live)
    thread_id = await new_thread(sdk)
    run = await sdk.runs.create(thread_id, "counter", input={"steps": 1000, "delay_s": 0.05})
    waiting = await sdk.runs.create(thread_id, "counter", input={"steps": 1})

    async def has_begun() -> bool:
        return (await sdk.runs.get(thread_id, run["run_id"]))["status"] == "running"

    await until(has_begun)
    await sdk.runs.cancel(thread_id, waiting["run_id"])
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True)
    statuses = {each["run_id"]: each["status"] for each in await sdk.runs.list(thread_id)}
    assert statuses == {run["run_id"]: "interrupted", waiting["run_id"]: "interrupted"}


async def test_v2_values_messages_and_output_of_a_fresh_thread(live: Stack) -> None:
    async with asyncio.timeout(DEADLINE_S), client(live).threads.stream(assistant_id="chat") as thread:
        await thread.run.start(input=HELLO)
        texts: list[asyncio.Task[str]] = []

        async def read(message: Any) -> str:
            return str(await message.text)

        async for message in thread.messages:
            texts.append(asyncio.create_task(read(message)))
        (text,) = await asyncio.gather(*texts)
        assert text.startswith("You said: hello.")
        output: Any = await thread.output
        assert output["messages"][-1]["content"] == text


async def test_v2_output_of_a_second_run_is_not_that_of_the_first(live: Stack) -> None:
    sdk = client(live)
    thread_id = await new_thread(sdk)
    await sdk.runs.wait(thread_id, "counter", input={"steps": 1, "delay_s": 0.0})
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(thread_id, assistant_id="counter") as thread:
        await thread.run.start(input={"steps": 4, "delay_s": 0.05})
        output: Any = await thread.output
        assert output["count"] == 4


async def test_v2_interrupt_and_respond(live: Stack) -> None:
    async with asyncio.timeout(DEADLINE_S), client(live).threads.stream(assistant_id="approval") as thread:
        await thread.run.start(input={"amount": 5})
        async for _ in thread.values:
            pass
        assert thread.interrupted and len(thread.interrupts) == 1
        answered = await thread.run.respond("no")
        assert answered["run_id"]
        output: Any = await thread.output
        assert output["result"] == "refused"


async def test_v2_subgraphs_are_discovered(live: Stack) -> None:
    async with asyncio.timeout(DEADLINE_S), client(live).threads.stream(assistant_id="subgraphs") as thread:
        await thread.run.start(input=HELLO)
        async for child in thread.subgraphs:
            assert child.path[0].startswith("team")
            break
        else:
            raise AssertionError("no subgraph was discovered")
