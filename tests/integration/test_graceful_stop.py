"""An API that is asked to stop breaks no promise to those who wait: the stock SDK comes back to the next one."""

import asyncio
from typing import Any

import pytest
from langgraph_sdk import get_client

from testkit.sdk import DEADLINE_S
from testkit.stack import Stack

STEPS = 40
LONG: dict[str, Any] = {"steps": STEPS, "delay_s": 0.1}


@pytest.mark.filterwarnings("ignore:Request failed, attempting reconnect")
async def test_who_waits_or_follows_a_run_gets_all_of_it_from_the_next_api(stack: Stack) -> None:
    await asyncio.to_thread(stack.start)
    first, port = stack.apis[0], stack.url.rpartition(":")[2]
    sdk = get_client(url=stack.url)
    thread_id = (await sdk.threads.create())["thread_id"]
    run = await sdk.runs.create(thread_id, "counter", input=LONG)

    async def replace() -> None:
        first.process.terminate()
        await first.ended()
        await stack.spawn_api(slipstream_port=port).ready()

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        joined = group.create_task(sdk.runs.join(thread_id, run["run_id"]))
        waited = group.create_task(sdk.runs.wait(None, "counter", input=LONG))
        counts: list[int] = []
        async for part in sdk.runs.join_stream(thread_id, run["run_id"], stream_mode="values", last_event_id="-1"):
            if part.event == "values":
                counts.append(part.data.get("count", 0))
                if len(counts) == 3:
                    group.create_task(replace())
    assert counts == list(range(STEPS + 1))
    for answer in (joined.result(), waited.result()):
        assert isinstance(answer, dict)
        assert answer["count"] == STEPS
