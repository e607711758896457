"""What a stream says besides events: caught up, a run's end, a gap."""

import json

from slipstream_nats.connection import connect
from slipstream_schemas.seq import last_of, pack, unpack
from slipstream_schemas.subjects import threads_stream
from testkit.client import Client, Frame, new_thread
from testkit.stack import Stack

QUICK = {"steps": 2, "delay_s": 0}


async def test_caught_up_and_the_ends_of_runs_are_said_on_any_channel(live: Stack) -> None:
    thread_id = new_thread()
    async with Client(live.url) as client:
        first = await client.start(thread_id, "counter", QUICK)
        end = (await client.run_events(thread_id))[-1].seq
        seen: list[Frame] = []
        async with client.stream(thread_id, path="stream", channels=["custom:progress"]) as stream:
            second = None
            async for frame in stream:
                seen.append(frame)
                if frame.data.startswith("caught-up"):
                    second = await client.start(thread_id, "counter", QUICK)
                if second is not None and frame.data.startswith(f"run-ended {second}"):
                    break
        comments = [frame.data for frame in seen if frame.event == ":" and frame.data != "heartbeat"]
        last = int(comments[2].rpartition(" ")[2])
        assert comments[0] == f"run-ended {first} success {end}"
        assert comments[2] == f"run-ended {second} success {last}"
        # What was said to be caught up is a cursor, and only what is new lies behind it.
        cursor = int(comments[1].removeprefix("caught-up "))
        assert end <= cursor < last
        events = [frame for frame in seen if frame.event == "custom"]
        rest = await client.run_events(thread_id, since=cursor)
        assert [frame.seq for frame in rest if frame.event == "custom"] == [each.seq for each in events[2:]]
        assert [frame.id for frame in seen if frame.event == ":"] == [""] * (len(seen) - len(events))


async def test_records_that_are_gone_are_a_gap_and_the_stream_goes_on(live: Stack) -> None:
    thread_id = new_thread()
    async with Client(live.url) as client:
        await client.start(thread_id, "counter", {"steps": 4, "delay_s": 0.02})
        whole = await client.run_events(thread_id)
        records = sorted({unpack(frame.seq)[0] for frame in whole})
        lost = records[2]
        connection = await connect(live.nats_url, "test")
        deleted = await connection.request(
            f"$JS.API.STREAM.MSG.DELETE.{threads_stream(live.region)}", b'{"seq":%d}' % lost, 5
        )
        assert json.loads(deleted.data)["success"] is True
        await connection.close()
        left = [frame.seq for frame in whole if unpack(frame.seq)[0] != lost]
        seen = await client.run_events(thread_id)
        assert [frame.seq for frame in seen if frame.id] == left
        gaps = [frame for frame in seen if frame.event == "gap"]
        earliest = next(seq for seq in left if seq > gaps[0].body["earliest_seq"] - 1)
        assert [frame.body for frame in gaps] == [
            {"type": "gap", "since": last_of(records[1]), "earliest_seq": pack(unpack(earliest)[0], 0)}
        ]
        # A cursor inside what is gone is refused, and says where the log goes on.
        answer = await client.http.post(
            f"/threads/{thread_id}/stream/events", json={"channels": ["values"], "since": pack(lost, 0)}
        )
        assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "cursor_lost")
