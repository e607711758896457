"""What a graph may say that is large or odd: it streams, is projected and is read back in one form, or its run alone
fails with an error that names the key, and the thread goes on from where it was.
"""

import asyncio
import json
import os
import time
from typing import Any

import psutil
import pytest

from slipstream_schemas.limits import BODY_BYTES_MAX, INTERRUPTS_BYTES_MAX, LINE_BYTES_MAX, MESSAGE_BYTES_MAX
from testkit.client import Client, Frame, new_thread
from testkit.stack import Stack

AT_ONCE = 8
CHUNKS = int(os.environ.get("SLIPSTREAM_TEST_CHUNKS", "5000"))
GOOD: dict[str, Any] = {
    "nul": "a\ufffdb",
    "surrogate": "x?y",
    "pair": "??",
    "escapes": '\\u0000 "\t\n\u2028\x7f',
    "nan": [None, None, None],
    "bytes": "AP8=",
    "model": {"name": "m", "at": "2026-01-02T12:00:00+00:00"},
    "dataclass": {"x": 1, "y": None},
    "set": [1],
    "deque": [1, 2],
    "times": ["2026-01-02T12:00:00+00:00", "2026-01-02", 90.0],
    "decimal": [1.5, 2, None, None],
    "uuid": "00000000-0000-0000-0000-000000000001",
    "enum": "red",
    "nul_key": {"k\ufffd": 1},
    "long_key": {"k" * 100_000: 1},
    "keys": {"2": 1, "2.5": 2, "null": 3, "true": 4, "red": 5, "00000000-0000-0000-0000-000000000001": 6},
}
"""And how the wire shows it."""
ONLY_SAID: dict[str, Any] = {
    "numpy": {"array": [[1, 2]], "number": 1.5, "truth": True},
    "large_int": [2**64, -(2**100), 10**300],
    "numpy_key": {"7": 7},
}
"""What LangGraph does not checkpoint, and a stream shows."""
REFUSED: dict[str, tuple[str, str]] = {
    "tuple_key": ("Unserialisable", "a tuple cannot be the key of a JSON object"),
    "hostile": ("Unserialisable", "a Hostile cannot be written as JSON"),
    "cycle": ("Unserialisable", "nested deeper than 200 levels"),
    "too_deep": ("Unserialisable", "nested deeper than 200 levels"),
    "huge_int": ("Unserialisable", "an integer of more than 4300 digits"),
    "large": ("TooLarge", f"and a record of the log holds {LINE_BYTES_MAX}"),
}
"""What is refused by whatever way: the kind and the text of the error."""
UNSTORABLE = ("numpy", "numpy_key", "large_int", "object")


class Said:
    """What became of one odd thing: as it was streamed, streamed again, and read from the rows."""

    def __init__(self, frames: list[Frame], replayed: list[Frame], thread: Any, run: Any) -> None:
        self.frames, self.replayed, self.thread, self.run = frames, replayed, thread, run

    @property
    def end(self) -> Any:
        """The terminal event."""
        return self.frames[-1].body["params"]["data"]

    def data(self, channel: str) -> list[Any]:
        """The data of the root's events of a channel."""
        return [frame.body["params"]["data"] for frame in self.frames if frame.event == channel]


async def say(client: Client, kind: str, way: str) -> Said:
    """One run that says one thing, on a thread of its own, watched to its end and once more from the start."""
    thread_id = new_thread()
    before = (await client.http.post(f"/threads/{thread_id}/runs/wait", json=QUIET)).raise_for_status().json()
    run_id = await client.start(thread_id, "odd", {"kind": kind, "way": way})
    frames = await client.run_events(thread_id, ends=2)
    replayed = await client.run_events(thread_id, ends=2)
    thread = (await client.http.get(f"/threads/{thread_id}")).raise_for_status().json()
    run = (await client.http.get(f"/threads/{thread_id}/runs/{run_id}")).raise_for_status().json()
    said = Said(frames, replayed, thread, run)
    assert [(frame.id, frame.data) for frame in frames] == [(frame.id, frame.data) for frame in replayed]
    if said.end["event"] == "failed":
        await goes_on(client, thread_id, before["done"])
    return said


QUIET = {"assistant_id": "odd", "input": {"kind": ""}, "if_not_exists": "create"}


async def goes_on(client: Client, thread_id: str, done: int) -> None:
    """The thread is where it was before the odd run, and takes another."""
    state = (await client.http.get(f"/threads/{thread_id}/state")).raise_for_status().json()
    assert state["values"].get("odd") is None
    after = (await client.http.post(f"/threads/{thread_id}/runs/wait", json=QUIET)).raise_for_status().json()
    assert after["done"] == done + 2
    assert after.get("odd") is None
    v1 = await client.http.post(f"/threads/{thread_id}/runs/stream", json={**QUIET, "stream_mode": ["values"]})
    assert f'"done":{done + 4}' in v1.text


async def say_all(live: Stack, kinds: list[str], way: str) -> dict[str, Said]:
    """Say several things, a few at a time."""
    slots = asyncio.Semaphore(AT_ONCE)
    async with Client(live.url) as client:

        async def one(kind: str) -> tuple[str, Said]:
            async with slots:
                return kind, await say(client, kind, way)

        return dict(await asyncio.gather(*map(one, kinds)))


def check_failed(said: Said, kind: str, text: str) -> None:
    """The run failed, everywhere by the same error."""
    assert said.end["event"] == "failed"
    assert said.end["error"].startswith(f"{kind}: "), said.end
    assert text in said.end["error"]
    assert said.run["status"] == "error"
    assert len(said.end["error"]) < 20_000


async def test_states_are_read_back_in_the_form_in_which_they_were_streamed(live: Stack) -> None:
    for kind, said in (await say_all(live, list(GOOD), "state")).items():
        assert said.end["event"] == "completed", (kind, said.end)
        assert said.data("values")[-1]["odd"] == {"inner": GOOD[kind]}, kind
        assert said.thread["values"]["odd"] == {"inner": GOOD[kind]}, kind


async def test_states_that_cannot_be_told_or_kept_fail_their_run_and_name_the_key(live: Stack) -> None:
    for kind, said in (await say_all(live, [*REFUSED, *UNSTORABLE], "state")).items():
        name, text = REFUSED.get(kind, ("Unserialisable", "cannot be checkpointed"))
        check_failed(said, name, text)
        assert "odd.inner" in said.end["error"], (kind, said.end)


async def test_custom_events_too(live: Stack) -> None:
    shown = {**ONLY_SAID, **{kind: GOOD[kind] for kind in ("nul", "surrogate", "nan", "model", "decimal", "long_key")}}
    said_all = await say_all(live, [*shown, *REFUSED], "custom")
    for kind, said in said_all.items():
        if kind in REFUSED:
            check_failed(said, *REFUSED[kind])
            assert "inner" in said.end["error"]
        else:
            assert said.data("custom")[0]["payload"]["inner"] == shown[kind], kind


async def test_messages_too(live: Stack) -> None:
    shown = {kind: GOOD[kind] for kind in ("nul", "surrogate", "nan", "bytes", "set")}
    for kind, said in (await say_all(live, [*shown, "large", "tuple_key", "numpy"], "message")).items():
        if kind in shown:
            assert said.thread["values"]["messages"][0]["additional_kwargs"] == {"inner": shown[kind]}, kind
        else:
            name, text = REFUSED.get(kind, ("Unserialisable", "cannot be checkpointed"))
            check_failed(said, name, text)
            assert "inner" in said.end["error"]
    for way in ("content", "tool"):
        for kind, said in (await say_all(live, ["nul", "surrogate", "large"], way)).items():
            if kind == "large":
                check_failed(said, "TooLarge", "content" if way == "content" else "tool_calls[0].args.inner")
            else:
                assert said.end["event"] == "completed"


async def test_interrupts_too(live: Stack) -> None:
    shown = {kind: GOOD[kind] for kind in ("nul", "surrogate", "nan", "model", "nul_key")}
    for kind, said in (await say_all(live, [*shown, "large", "hostile"], "interrupt")).items():
        if kind in shown:
            (asked,) = said.data("input.requested")
            assert asked["payload"] == {"inner": shown[kind]}
            ((row,),) = said.thread["interrupts"].values()
            assert row["value"] == {"inner": shown[kind]}
        else:
            name, text = REFUSED[kind] if kind != "large" else ("TooLarge", str(INTERRUPTS_BYTES_MAX))
            check_failed(said, name, text)


async def test_errors_too(live: Stack) -> None:
    for kind, said in (await say_all(live, ["nul", "surrogate", "cycle"], "error")).items():
        check_failed(said, "ValueError", {"nul": "a\ufffdb", "surrogate": "x?y", "cycle": "again"}[kind])


BODIES = [
    b'{"assistant_id":"odd","input":NaN}',
    b'{"assistant_id":"odd","input":1e400}',
    b'{"assistant_id":"odd","input":"\\ud800"}',
    b'{"assistant_id":"odd","input":"\xff"}',
    b'{"assistant_id":"odd","input":' + b"[" * 70 + b"]" * 70 + b"}",
    b'{"assistant_id":"odd","input":' + b"[" * 90_000 + b"]" * 90_000 + b"}",
    b'{"assistant_id":"odd","input":' + b"9" * 5000 + b"}",
    b'{"assistant_id":"odd","input":[-' + b"9" * 309 + b"]}",
    b'{"assistant_id":"odd","config":7}',
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:48])[2:-1])
async def test_what_a_client_may_not_send_changes_nothing(live: Stack, body: bytes) -> None:
    async with Client(live.url) as client:
        thread_id = str((await client.http.post("/threads", json={})).json()["thread_id"])
        before = (await client.http.get(f"/threads/{thread_id}")).json()
        for path in ("runs", "runs/stream", "runs/wait"):
            answer = await client.http.post(f"/threads/{thread_id}/{path}", content=body)
            assert answer.status_code == 422, answer.text
            assert answer.json()["detail"]
        assert (await client.http.get(f"/threads/{thread_id}")).json() == before
        assert (await client.http.get(f"/threads/{thread_id}/runs")).json() == []


ODD_JSON = {"nul\u0000key": "a\u0000b", "large": 2**60, "deep": [[[[[[{}]]]]]], "\u2028": "\\u0000", "k" * 5000: None}
CLEAN_JSON = {"nul\ufffdkey": "a\ufffdb", "large": 2**60, "deep": [[[[[[{}]]]]]], "\u2028": "\\u0000", "k" * 5000: None}


async def test_odd_json_of_a_client_is_kept_in_one_form_wherever_it_goes(live: Stack) -> None:
    async with Client(live.url) as client:
        body = {"metadata": ODD_JSON}
        thread = (await client.http.post("/threads", json=body)).raise_for_status().json()
        assert thread["metadata"] == CLEAN_JSON
        found = (await client.http.post("/threads/search", json={"metadata": {"nul\u0000key": "a\u0000b"}})).json()
        assert thread["thread_id"] in [each["thread_id"] for each in found]
        run = {
            "assistant_id": "odd",
            "input": {"odd": ODD_JSON},
            "metadata": ODD_JSON,
            "config": {"configurable": ODD_JSON},
        }
        path = f"/threads/{thread['thread_id']}/runs"
        values = (await client.http.post(f"{path}/wait", json=run)).raise_for_status().json()
        assert values.get("odd") == CLEAN_JSON, values
        (row,) = (await client.http.get(path)).json()
        assert (row["status"], {k: row["metadata"][k] for k in CLEAN_JSON}) == ("success", CLEAN_JSON)
        found = await client.http.post("/threads/search", json={"values": {"odd": {"nul\u0000key": "a\u0000b"}}})
        assert thread["thread_id"] in [each["thread_id"] for each in found.raise_for_status().json()]
        item = {"namespace": ["odd"], "key": "k", "value": ODD_JSON}
        (await client.http.put("/store/items", json=item)).raise_for_status()
        kept = await client.http.get("/store/items", params={"namespace": "odd", "key": "k"})
        assert kept.json()["value"] == CLEAN_JSON
        cron = {"assistant_id": "odd", "schedule": "0 0 1 1 *", "input": ODD_JSON, "metadata": ODD_JSON}
        made = (await client.http.post("/runs/crons", json=cron)).raise_for_status().json()
        assert made["payload"]["input"] == CLEAN_JSON
        (await client.http.delete(f"/runs/crons/{made['cron_id']}")).raise_for_status()


async def test_an_input_as_large_as_a_body_runs_and_an_answer_that_no_record_holds_is_refused(live: Stack) -> None:
    async with Client(live.url) as client:
        thread_id, large = new_thread(), {"odd": "x" * (BODY_BYTES_MAX - 200)}
        run = {"assistant_id": "odd", "input": large, "if_not_exists": "create"}
        answer = await client.http.post(f"/threads/{thread_id}/runs/wait", json=run)
        assert answer.json().get("odd") == large["odd"], answer.text[:500]
        state = (await client.http.get(f"/threads/{thread_id}/state")).json()
        assert state["values"]["odd"] == large["odd"]
        (row,) = (await client.http.get(f"/threads/{thread_id}/runs")).json()
        assert row["kwargs"]["input"] == large
        # The record of an answer holds it twice: as the command, and as what is told of the question.
        thread_id = new_thread()
        await client.start(thread_id, "approval", {"amount": 1})
        await client.run_events(thread_id)
        command = {"resume": "x" * (MESSAGE_BYTES_MAX // 2)}
        refused = await client.http.post(
            f"/threads/{thread_id}/runs", json={"assistant_id": "approval", "command": command}
        )
        assert refused.status_code == 413, refused.text[:500]
        assert len((await client.http.get(f"/threads/{thread_id}/runs")).json()) == 1


async def test_a_run_of_many_chunks_streams_is_replayed_and_projected(live: Stack) -> None:
    thread_id, begun = new_thread(), time.monotonic()
    async with Client(live.url) as client:
        await client.start(thread_id, "firehose", {"count": CHUNKS})
        for _ in range(2):
            seen: list[int] = []
            async with client.events(thread_id, channels=["custom", "lifecycle", "values"]) as stream:
                async for frame in stream:
                    if frame.event == "custom":
                        seen.append(json.loads(frame.data)["params"]["data"]["payload"]["number"])
                    if frame.ends_root:
                        break
            assert seen == list(range(CHUNKS))
            print(f"{CHUNKS} chunks after {time.monotonic() - begun:.1f} s")
        thread = (await client.http.get(f"/threads/{thread_id}")).json()
        assert (thread["status"], thread["values"]["sent"]) == ("idle", CHUNKS)
    for service in live.services:
        process = psutil.Process(service.pid)
        spent, peak_bytes = process.cpu_times(), process.memory_info().rss
        print(f"{service.name}: {peak_bytes / 2**20:.0f} MiB, {spent.user + spent.system:.1f} s of CPU")
