"""Following a thread over all of its runs, with the stock SDK."""

import asyncio
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from testkit.client import new_thread
from testkit.stack import Stack

QUICK = {"steps": 2, "delay_s": 0}
DEADLINE_S = 30


@pytest.fixture
def sdk(live: Stack) -> LangGraphClient:
    return get_client(url=live.url)


async def follow(
    sdk: LangGraphClient, thread_id: str, ends: int, mode: Any = "run_modes", last: str | None = "-1"
) -> list[Any]:
    """The parts of a thread's stream up to the end of that many runs, or to a posted state."""
    out: list[Any] = []
    async with asyncio.timeout(DEADLINE_S):
        async for part in await sdk.threads.join_stream(thread_id, last_event_id=last, stream_mode=mode):
            out.append(part)
            ends -= part.event == "state_update" or (part.data or {}).get("status") == "run_done"
            if ends == 0:
                return out
    return out


async def test_the_runs_of_a_thread_in_their_own_modes(sdk: LangGraphClient) -> None:
    thread = (await sdk.threads.create())["thread_id"]
    own: list[Any] = []
    asked: tuple[Any, ...] = (["values", "custom"], ["updates"])
    for modes in asked:
        stream = sdk.runs.stream(thread, "counter", input=QUICK, stream_mode=modes)
        own += [(part.event, part.data) async for part in stream]
    parts = await follow(sdk, thread, ends=2)
    dones = [part.data["run_id"] for part in parts if (part.data or {}).get("status") == "run_done"]
    assert dones == [run["run_id"] for run in reversed(await sdk.runs.list(thread))]
    shown = [(part.event, part.data) for part in parts if (part.data or {}).get("status") != "run_done"]
    assert shown == own
    # Every part is a place to go on from.
    for at in range(1, len(parts), 3):
        ended = sum((part.data or {}).get("status") == "run_done" for part in parts[:at])
        if ended < 2:
            rest = await follow(sdk, thread, ends=2 - ended, last=parts[at - 1].id)
            assert [(part.event, part.data) for part in rest] == [(part.event, part.data) for part in parts[at:]]


async def test_ends_alone_and_posted_states(sdk: LangGraphClient) -> None:
    thread = (await sdk.threads.create())["thread_id"]
    await sdk.runs.wait(thread, "counter", input=QUICK)
    run = (await sdk.runs.list(thread))[0]["run_id"]
    parts = await follow(sdk, thread, ends=1, mode="lifecycle")
    assert [part.data for part in parts] == [{"run_id": run, "attempt": 1}, {"status": "run_done", "run_id": run}]
    await sdk.threads.update_state(thread, {"count": 40}, as_node="step")
    posted = await follow(sdk, thread, ends=1, mode="state_update")
    assert [part.event for part in posted] == ["state_update"]
    assert posted[0].data["values"]["count"] == 40
    # Without a cursor it begins now: only what comes is shown.
    following = asyncio.create_task(follow(sdk, thread, ends=1, mode=["lifecycle", "state_update"], last=None))
    while not following.done():
        second = await sdk.runs.create(thread, "counter", input=QUICK)
        await sdk.runs.join(thread, second["run_id"])
    assert run not in [(part.data or {}).get("run_id") for part in await following]


def test_what_cannot_be_followed_is_refused(live: Stack) -> None:
    with httpx.Client(base_url=live.url) as http:
        assert http.get(f"/threads/{new_thread()}/stream").status_code == 404
        thread = http.post("/threads", json={}).json()["thread_id"]
        for query, headers in (("?stream_mode=values", {}), ("", {"last-event-id": "x"}), ("?stream_mode=[", {})):
            assert http.get(f"/threads/{thread}/stream{query}", headers=headers).status_code == 422
