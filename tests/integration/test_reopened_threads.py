"""Threads that a client opens again while they wait for an answer."""

import asyncio
from typing import Any

from langgraph_sdk import get_client

from testkit.client import Client
from testkit.stack import Stack
from testkit.wait import until

DEADLINE_S = 30


async def asked(live: Stack, runs: int = 1) -> str:
    """A thread whose last run waits for an answer; the runs before it were answered."""
    sdk = get_client(url=live.url)
    thread_id = str((await sdk.threads.create())["thread_id"])
    for number in range(runs):
        if number:
            await sdk.runs.wait(thread_id, "approval", command={"resume": "yes"})
        await sdk.runs.wait(thread_id, "approval", input={"amount": number})
    return thread_id


async def test_a_watcher_of_a_waiting_thread_sees_what_was_asked_and_no_older_end(live: Stack) -> None:
    thread_id = await asked(live, runs=2)
    async with asyncio.timeout(DEADLINE_S), Client(live.url) as client:
        frames = await client.run_events(thread_id, channels=["lifecycle", "input"])
    seen = [frame.body["params"]["data"] for frame in frames]
    shown = [data["payload"]["question"] if "payload" in data else data["event"] for data in seen]
    assert shown == ["running", "Refund 1?", "interrupted"]


async def test_the_stock_python_sdk_answers_a_thread_that_it_opens_again(live: Stack) -> None:
    thread_id = await asked(live, runs=2)
    sdk = get_client(url=live.url)
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(thread_id, assistant_id="approval") as thread:
        await until(lambda: thread.interrupts)
        assert thread.interrupts[0]["value"]["question"] == "Refund 1?"
        await thread.run.respond("no")
        output: Any = await thread.output
        assert output["result"] == "refused"


async def test_a_watcher_of_an_answered_thread_begins_live(live: Stack) -> None:
    thread_id = await asked(live)
    sdk = get_client(url=live.url)
    await sdk.runs.wait(thread_id, "approval", command={"resume": "yes"})
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(thread_id, assistant_id="approval") as thread:
        await thread.run.start(input={"amount": 7})
        await until(lambda: thread.interrupts)
        assert thread.interrupts[0]["value"]["question"] == "Refund 7?"
