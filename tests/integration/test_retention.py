"""Thread logs that are bounded by age and size: what goes, what stays, and what clients are told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from slipstream_api import upkeep
from slipstream_api.app import opened
from slipstream_api.context import Context
from slipstream_api.retention import trim_by_age, trim_by_size
from slipstream_nats.connection import connect
from slipstream_nats.figures import stream_figures
from slipstream_postgres.pool import open_database
from slipstream_projector.rebuild import checksum, rebuild
from slipstream_schemas.seq import last_of, unpack
from slipstream_schemas.settings import ServiceSettings
from slipstream_schemas.subjects import control_stream, lease, threads_stream
from testkit.client import Client, Frame, new_thread
from testkit.stack import Stack
from testkit.wait import until

COUNT = {"steps": 3, "delay_s": 0.0}


@asynccontextmanager
async def retaining(stack: Stack) -> AsyncIterator[Context]:
    """The inside of an API on the stack."""
    async with opened(ServiceSettings(nats_url=stack.nats_url, database_url=stack.dsn, region=stack.region)) as context:
        yield context


async def replay(client: Client, thread_id: str) -> list[Frame]:
    """All that the log of a thread holds."""
    seen: list[Frame] = []
    async with client.stream(thread_id) as stream:
        async for frame in stream:
            if frame.data.startswith("caught-up"):
                return seen
            if frame.event != ":":
                seen.append(frame)
    raise AssertionError("the stream ended")


async def test_by_age_old_events_go_and_a_run_that_goes_on_keeps_its_own(stack: Stack) -> None:
    await asyncio.to_thread(lambda: stack.start(slipstream_threads_age_max_s="1"))
    old, asking, busy = new_thread(), new_thread(), new_thread()
    async with Client(stack.url) as client:
        await client.start(busy, "counter", {"steps": 1000, "delay_s": 0.05})
        await client.start(old, "counter", COUNT)
        whole = await client.run_events(old)
        await client.start(asking, "approval", {"amount": 1})
        asked = await client.run_events(asking)

        async def is_trimmed() -> bool:
            return len(await replay(client, old)) < len(whole)

        await until(is_trimmed, what="the old events are gone")
        assert (left := await replay(client, old)) == whole[-len(left) :] and left[-1].ends_root
        assert (await client.http.get(f"/threads/{old}")).json()["values"]["count"] == COUNT["steps"]
        # A client that has seen everything goes on; one that has not is told.
        stream = f"/threads/{old}/stream/events"
        refused = await client.http.post(stream, json={"channels": ["values"], "since": whole[2].seq})
        assert refused.status_code == 422 and str(left[0].seq) in refused.text
        await client.start(old, "counter", COUNT)
        assert (await client.run_events(old, since=whole[-1].seq))[0].body["params"]["data"]["event"] == "running"
        # What runs or waits for an answer is whole.
        assert await replay(client, asking) == asked
        (question,) = [frame.body["params"]["data"] for frame in asked if frame.event == "input.requested"]
        answer = {"interrupt_id": question["interrupt_id"], "namespace": [], "response": True}
        assert (await client.command(asking, "input.respond", **answer))["type"] == "success"
        assert (await replay(client, busy))[0].body["params"]["data"]["event"] == "running"
    async with retaining(stack) as context:
        assert await trim_by_age(context, timedelta(days=1), 0) == 0, "nothing is so old"
        assert await context.threads.last_seq(context.by_itself("default").scope, busy)


async def test_by_size_what_was_not_used_for_longest_goes_first_and_a_rebuild_keeps_what_it_said(stack: Stack) -> None:
    await asyncio.to_thread(stack.start)
    threads = [new_thread() for _ in range(4)]
    async with Client(stack.url) as client, retaining(stack) as context:
        for thread_id in threads:
            await client.start(thread_id, "counter", COUNT)
            await client.run_events(thread_id)
            assert (await client.http.get(f"/threads/{thread_id}")).json()["status"] == "idle"
        whole = [len(await replay(client, each)) for each in threads]
        scope = context.by_itself("default").scope
        name = threads_stream(stack.region)
        before = await stream_figures(context.connection, name, 5)
        control = await stream_figures(context.connection, control_stream(stack.region), 5)
        assert await trim_by_size(context, before.bytes, 0) == 0, "all of it has room"
        assert await trim_by_size(context, before.bytes - 1, 0) > 0
        left = [len(await replay(client, each)) for each in threads]
        assert left[0] < whole[0], "the one that was not used for longest"
        assert (await stream_figures(context.connection, name, 5)).bytes < before.bytes * 0.9
        # Nothing is left that may go, although it is too much.
        await trim_by_size(context, 1, 0)
        assert [len(await replay(client, each)) <= 2 for each in threads] == [True] * 4
        for thread_id in threads:
            last = await context.threads.last_seq(scope, thread_id)
            assert await context.tails.check_cursor(scope, thread_id, last_of(last)) is None
            found = await context.connection.api(f"STREAM.MSG.GET.{name}", {"last_by_subj": lease(scope, thread_id)})
            assert "error" not in found, "a lease stays"
        after = await stream_figures(context.connection, control_stream(stack.region), 5)
        assert after.messages == control.messages + 2 * len(threads), "and every transition"
    connection, database = await connect(stack.nats_url, "test"), await open_database(stack.dsn)
    try:
        for service in stack.services:
            service.kill()
        rows = await checksum(database)
        await rebuild(connection, database, stack.region, lambda done, total: None)
        assert await checksum(database) == rows
    finally:
        await database.close()
        await connection.close()


async def test_an_age_that_comes_amid_a_thread_takes_what_lies_before(stack: Stack) -> None:
    await asyncio.to_thread(stack.start)
    thread_id = new_thread()
    async with Client(stack.url) as client, retaining(stack) as context:
        await client.start(thread_id, "counter", COUNT)
        first = await client.run_events(thread_id)
        between = datetime.now(UTC)
        await client.start(thread_id, "counter", COUNT)
        second = await client.run_events(thread_id, since=first[-1].seq)
        assert await upkeep.trim(context.by_itself("default"), thread_id, between)
        assert await replay(client, thread_id) == second
        head = await context.control.head(context.by_itself("default").scope, thread_id)
        assert head.state is not None and head.state.log_floor >= unpack(first[-1].seq)[0]
