"""What a stream says besides events: caught up, a run's end, a gap."""

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
