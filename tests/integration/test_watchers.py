"""Streams of `lifecycle` and `input` alone: where they begin, and that their questions come a moment later."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from slipstream_api.unwatched import NOTES_MAX, UnwatchedRuns, shared
from slipstream_nats.connection import Connection
from testkit.client import Client, Frame, new_thread
from testkit.stack import Stack
from testkit.wait import until

WATCHED = ["lifecycle", "input"]
DEADLINE_S = 30.0


@pytest.fixture
async def client(live: Stack) -> AsyncIterator[Client]:
    """The running stack's."""
    async with Client(live.url) as opened:
        yield opened


async def first(client: Client, thread_id: str, **body: Any) -> Frame:
    """The first event of a stream."""
    async with asyncio.timeout(DEADLINE_S), client.events(thread_id, **body) as stream:
        async for frame in stream:
            if frame.id and frame.body.get("method"):
                return frame
    raise AssertionError("the stream ended")


async def wait_running(client: Client, thread_id: str, run_id: str) -> None:
    """Wait until the run has shown that it runs."""
    async with client.events(thread_id, channels=["lifecycle"]) as stream:
        async for frame in stream:
            if frame.event == "lifecycle" and f"synth:{run_id}:lc||running" in frame.data:
                return


async def test_a_watcher_begins_at_the_run_that_runs(client: Client) -> None:
    thread_id = new_thread()
    await client.start(thread_id, "counter", {"steps": 3, "delay_s": 0.05})
    second = await client.start(thread_id, "counter", {"steps": 10_000, "delay_s": 0.01})
    await first(client, thread_id, channels=WATCHED)  # It takes the note of the run that made the thread.
    await wait_running(client, thread_id, second)
    begun = await first(client, thread_id, channels=WATCHED)
    assert begun.body["event_id"] == f"synth:{second}:lc||running"
    await client.http.post(f"/threads/{thread_id}/runs/{second}/cancel")


async def test_a_watcher_of_a_waiting_thread_begins_at_the_run_that_asked(client: Client) -> None:
    thread_id = new_thread()
    await client.start(thread_id, "counter", {"steps": 1, "delay_s": 0.0})
    await client.run_events(thread_id)
    second = await client.start(thread_id, "approval", {"amount": 3})
    await client.run_events(thread_id, ends=2)
    await first(client, thread_id, channels=WATCHED)
    begun = await first(client, thread_id, channels=WATCHED)
    assert begun.body["event_id"] == f"synth:{second}:lc||running"


async def test_a_question_reaches_a_watcher_behind_the_wide_stream(client: Client) -> None:
    thread_id, seen = new_thread(), []

    async def follow(name: str, **body: Any) -> None:
        async with client.events(thread_id, **body) as stream:
            async for frame in stream:
                if frame.event == "input.requested":
                    seen.append(name)
                    return

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        group.create_task(follow("watcher", channels=WATCHED))
        group.create_task(follow("wide"))
        await client.start(thread_id, "approval", {"amount": 3})
    assert seen == ["wide", "watcher"]


def test_a_run_that_is_watched_leaves_no_note() -> None:
    watchers = UnwatchedRuns()
    leave = watchers.join("t")
    watchers.note("t", 7, is_fresh=False)
    assert watchers.take("t") is None
    leave()
    watchers.note("t", 8, is_fresh=False)
    assert watchers.take("t") == 8
    assert watchers.take("t") is None, "a note is for one watcher"


def test_only_so_many_notes_are_kept() -> None:
    watchers = UnwatchedRuns()
    for number in range(NOTES_MAX + 1):
        watchers.note(str(number), number, is_fresh=True)
    assert watchers.take("0") is None
    assert [watchers.take(str(number)) for number in (1, NOTES_MAX)] == [1, NOTES_MAX]


async def test_a_note_is_for_one_watcher_of_the_region(connection: Connection, region: str) -> None:
    """Whichever instance the watcher comes to has the note, and then no instance has it."""
    here, there = UnwatchedRuns(), UnwatchedRuns()

    async def heard(by: UnwatchedRuns, of: UnwatchedRuns, name: str) -> None:
        """Wait until one has heard all that the other has told: messages keep their order."""
        of.note(name, 1, is_fresh=True)
        await until(lambda: by.take(name) is not None)

    async with shared(here, connection, region), shared(there, connection, region):
        here.note("t", 8, is_fresh=True)
        await heard(there, here, "a")
        assert there.take("t") == 8
        await heard(here, there, "b")
        assert here.take("t") is None

        there.join("t")
        here.note("t", 9, is_fresh=True)
        await heard(there, here, "c")
        await heard(here, there, "d")
        assert here.take("t") is None, "it is watched elsewhere"
