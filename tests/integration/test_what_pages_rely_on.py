"""What the stock React hooks take for granted, as it goes over the wire; the hooks themselves are in conformance."""

import asyncio
from typing import Any

import httpx
import pytest

from testkit.client import RUNS_DEADLINE_S, Client, Frame, new_thread
from testkit.sockets import Socket
from testkit.stack import Stack

SLOW = {"steps": 1000, "delay_s": 0.05}
ASKED = "Refund 1?"


def roots(seen: list[Any]) -> list[tuple[str, str]]:
    """Run and event of each root lifecycle event."""
    found = [each for each in seen if each.get("method") == "lifecycle" and not each["params"]["namespace"]]
    return [(each["event_id"].split(":")[1], each["params"]["data"]["event"]) for each in found]


async def test_the_end_of_a_run_that_never_began_lies_behind_the_one_that_executes(live: Stack) -> None:
    thread_id = new_thread()
    async with Client(live.url) as client, Socket(live.url, thread_id) as socket:
        first = await client.start(thread_id, "counter", SLOW)
        await socket.subscribe("lifecycle", "values")
        await socket.until("event", 3)
        others = [await client.start(thread_id, "counter", SLOW) for _ in range(2)]
        for run_id in others:
            await client.http.post(f"/threads/{thread_id}/runs/{run_id}/cancel")
            # Who waits for that run alone, or joins it only now, is told at once.
            joined = await client.http.get(f"/threads/{thread_id}/runs/{run_id}/join")
            assert joined.json() == {}
        await client.http.post(f"/threads/{thread_id}/runs/{first}/cancel")
        seen = [frame.body for frame in await client.run_events(thread_id, ends=3)]
        expected = [(run_id, event) for run_id in (first, *others) for event in ("running", "interrupted")]
        assert roots(seen) == expected
        await socket.until("run_ended", 3)
        assert roots(socket.seen) == expected
        assert [each["run_id"] for each in socket.seen if each["type"] == "run_ended"] == [first, *others]


async def asking(http: httpx.AsyncClient, thread_id: str) -> list[str]:
    """What the thread's state asks, by its tasks, which agree with its interrupts."""
    state = (await http.get(f"/threads/{thread_id}/state")).json()
    asked = [each["value"]["question"] for task in state["tasks"] for each in task["interrupts"]]
    assert [each["value"]["question"] for each in state["interrupts"]] == asked
    some = (await http.get(f"/threads/{thread_id}/state", params={"select": "interrupts"})).json()
    assert len(some["interrupts"]) == len(asked)
    return asked


async def test_a_state_asks_nothing_that_a_run_has_answered(live: Stack) -> None:
    thread_id = new_thread()
    async with Client(live.url) as client:
        await client.start(thread_id, "approval", {"amount": 1})
        await client.run_events(thread_id)
        assert await asking(client.http, thread_id) == [ASKED]
        answer = {"assistant_id": "approval", "command": {"resume": "yes"}, "after_seconds": 3600}
        run = (await client.http.post(f"/threads/{thread_id}/runs", json=answer)).json()
        assert await asking(client.http, thread_id) == []
        await client.http.post(f"/threads/{thread_id}/runs/{run['run_id']}/cancel", params={"wait": "true"})
        assert await asking(client.http, thread_id) == [ASKED]


@pytest.mark.parametrize("channels", [["lifecycle", "input"], ["values", "input"], ["values"]])
async def test_an_answer_is_said_to_who_watches_and_in_no_replay(live: Stack, channels: list[str]) -> None:
    thread_id = new_thread()
    async with Client(live.url) as client:
        await client.start(thread_id, "approval", {"amount": 1})
        (asked,) = [frame.body for frame in await client.run_events(thread_id) if frame.event == "input.requested"]
        interrupt_id = asked["params"]["data"]["interrupt_id"]
        seen: list[Frame] = []
        answering = ""
        async with asyncio.timeout(RUNS_DEADLINE_S), client.stream(thread_id, channels=channels) as stream:
            async for frame in stream:
                seen.append(frame)
                if frame.data.startswith("caught-up") and not answering:
                    said = {"interrupt_id": interrupt_id, "response": "yes"}
                    answering = (await client.command(thread_id, "input.respond", **said))["result"]["run_id"]
                if answering and frame.data.startswith(f"run-ended {answering}"):
                    break
        answered = [frame for frame in seen if frame.event == "input.answered"]
        assert [frame.id for frame in answered] == [""] * ("input" in channels)
        for frame in answered:
            assert "seq" not in frame.body and frame.body["event_id"] == f"{answering}:answered"
            params = frame.body["params"]
            assert params["namespace"] == [] and params["data"] == {"interrupt_ids": [interrupt_id]}
        again = await client.run_events(thread_id, ends=2)
        assert not [frame for frame in again if frame.event == "input.answered"]
        assert [frame.body["params"]["data"]["interrupt_id"] for frame in again if frame.event == "input.responded"]
