"""The event path, end to end: resume on any instance, both protocols on one run, rows that equal the log."""

import asyncio
import uuid
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipstream_nats.connection import connect
from slipstream_postgres.pool import open_database
from slipstream_projector.rebuild import checksum, rebuild
from slipstream_schemas.errors import Conflict
from testkit.client import ALL_CHANNELS, Client, Frame, frames
from testkit.stack import Stack
from testkit.wait import until

DEADLINE_S = 40
EVENTS = {"channels": list(ALL_CHANNELS)}


async def read(client: Client, thread_id: str, since: int, stop_after: int | None) -> list[Frame]:
    """Events behind a cursor, until the root has ended or `stop_after` of them have come; then the client is gone."""
    out: list[Frame] = []
    body = {**EVENTS, "since": since} if since else EVENTS
    async with client.http.stream("POST", f"/threads/{thread_id}/stream/events", json=body) as stream:
        assert stream.status_code == 200
        async for frame in frames(stream.aiter_raw()):
            if frame.event == ":":
                continue
            out.append(frame)
            if frame.ends_root or (stop_after is not None and len(out) >= stop_after):
                return out
    return out


def test_drops_at_arbitrary_places_lose_and_double_nothing(stack: Stack) -> None:
    stack.start(apis=2)

    @given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=12))
    @settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    def resumes(drops: list[tuple[int, bool]]) -> None:
        asyncio.run(asyncio.wait_for(follow(stack, drops), DEADLINE_S))

    resumes()


async def follow(stack: Stack, drops: list[tuple[int, bool]]) -> None:
    """Follow a run over two instances, dropping the connection after some events each time."""
    thread_id = str(uuid.uuid4())
    urls = [api.url or "" for api in stack.apis]
    async with Client(urls[0]) as first, Client(urls[1]) as second:
        await first.start(thread_id, "agent", {"messages": [{"role": "user", "content": "Lisbon?"}]})
        seen: list[Frame] = []
        for count, on_second in [*drops, (None, True)]:
            since = seen[-1].seq if seen else 0
            seen.extend(await read(second if on_second else first, thread_id, since, count))
            if seen[-1].ends_root:
                break
        whole = await read(first, thread_id, 0, None)
        again = await read(second, thread_id, 0, None)
    assert seen == whole == again
    seqs = [frame.seq for frame in whole]
    assert seqs == sorted(set(seqs)) and len(seqs) > 60


async def test_last_event_id_is_the_same_cursor(live: Stack) -> None:
    thread_id = str(uuid.uuid4())
    async with Client(live.url) as client:
        await client.start(thread_id, "counter", {"steps": 3, "delay_s": 0.01})
        whole = await read(client, thread_id, 0, None)
        headers = {"last-event-id": whole[4].id}
        path = f"/threads/{thread_id}/stream/events"
        async with client.http.stream("POST", path, json=EVENTS, headers=headers) as stream:
            rest: list[Frame] = []
            async for frame in frames(stream.aiter_raw()):
                if frame.event != ":":
                    rest.append(frame)
                    if frame.ends_root:
                        break
    assert rest == whole[5:]


async def v1_frames(client: httpx.AsyncClient, path: str, **headers: str) -> list[Frame]:
    """The frames of a v1 stream to its end."""
    async with client.stream("GET", path, headers=headers) as stream:
        assert stream.status_code == 200
        return [frame async for frame in frames(stream.aiter_raw()) if frame.event != ":"]


async def test_a_run_of_v1_is_watched_by_v2_and_the_reverse(live: Stack) -> None:
    thread_id = str(uuid.uuid4())
    hello: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
    async with Client(live.url) as client:
        await client.http.post("/threads", json={"thread_id": thread_id})
        run = {"assistant_id": "chat", "input": hello, "stream_mode": "values"}
        (await client.http.post(f"/threads/{thread_id}/runs", json=run)).raise_for_status()
        events = await read(client, thread_id, 0, None)
        words = [f.body["params"]["data"]["delta"]["text"] for f in events if "content-block-delta" in f.data]
        assert "".join(words).startswith("You said: hello.")
        run_id = await client.start(thread_id, "chat", hello)
        path = f"/threads/{thread_id}/runs/{run_id}/stream?stream_mode=messages-tuple&stream_mode=values"
        shown = await v1_frames(client.http, path, **{"last-event-id": "-1"})
        assert shown[0].event == "metadata" and shown[0].body == {"run_id": run_id, "attempt": 1}
        text = "".join(f.body[0]["content"] for f in shown if f.event == "messages")
        assert text.startswith("You said: hello. That was message 2")
        middle = shown[len(shown) // 2]
        rest = await v1_frames(client.http, path, **{"last-event-id": middle.id})
        assert rest == shown[len(shown) // 2 + 1 :]


async def test_a_client_that_leaves_cancels_its_run_unless_it_says_otherwise(live: Stack) -> None:
    async with Client(live.url) as client:
        for on_disconnect, status in (("cancel", "interrupted"), ("continue", "success")):
            thread_id = str(uuid.uuid4())
            await client.http.post("/threads", json={"thread_id": thread_id})
            steps = 1000 if on_disconnect == "cancel" else 8
            body = {"assistant_id": "counter", "input": {"steps": steps, "delay_s": 0.05}, "stream_mode": "values",
                    "on_disconnect": on_disconnect}  # fmt: skip
            async with client.http.stream("POST", f"/threads/{thread_id}/runs/stream", json=body) as stream:
                path = stream.headers["content-location"]
                async for frame in frames(stream.aiter_raw()):
                    if frame.event == "values":
                        break

            async def is_over(path: str = path, status: str = status) -> bool:
                return bool((await client.http.get(path)).json()["status"] == status)

            await until(is_over)


async def test_repeats_with_an_idempotency_key_create_once(live: Stack) -> None:
    async with Client(live.url) as client:
        key, second = {"idempotency-key": str(uuid.uuid4())}, {"idempotency-key": str(uuid.uuid4())}
        threads = [(await client.http.post("/threads", json={}, headers=key)).json()["thread_id"] for _ in range(3)]
        assert len(set(threads)) == 1
        run = {"assistant_id": "counter", "input": {"steps": 1, "delay_s": 0.0}}
        path = f"/threads/{threads[0]}/runs"
        runs = [(await client.http.post(path, json=run, headers=key)).json()["run_id"] for _ in range(3)]
        assert len(set(runs)) == 1
        await client.http.get(f"{path}/{runs[0]}/join")
        assert (await client.http.post(path, json=run, headers=key)).json()["run_id"] == runs[0]
        command = {"id": 1, "method": "run.start", "params": run}
        started = [
            await client.http.post(f"/threads/{threads[0]}/commands", json=command, headers=second) for _ in "ab"
        ]
        assert len({answer.json()["result"]["run_id"] for answer in started} - set(runs)) == 1
        other = {**run, "input": {"steps": 2}}
        assert (await client.http.post(path, json=other, headers=key)).status_code == 422
        assert len((await client.http.get(path)).json()) == 2


async def test_what_a_stream_has_shown_a_get_agrees_with_on_any_instance(stack: Stack) -> None:
    await asyncio.to_thread(stack.start, 2)
    async with Client(stack.apis[0].url or "") as first, Client(stack.apis[1].url or "") as second:
        for _ in range(10):
            thread_id = str(uuid.uuid4())
            await first.start(thread_id, "counter", {"steps": 2, "delay_s": 0.0})
            await read(first, thread_id, 0, None)
            shown = (await second.http.get(f"/threads/{thread_id}")).json()
            assert (shown["status"], shown["values"]["count"]) == ("idle", 2)


async def test_rows_rebuilt_from_the_log_equal_the_old_ones(stack: Stack) -> None:
    await asyncio.to_thread(stack.start)
    async with Client(stack.url) as client:
        for graph, given_input in (
            ("counter", {"steps": 2, "delay_s": 0.0}),
            ("approval", {"amount": 1}),
            ("chat", {}),
        ):
            thread_id = str(uuid.uuid4())
            await client.http.post("/threads", json={"thread_id": thread_id, "metadata": {"kept": graph}})
            run: dict[str, Any] = {"assistant_id": graph, "input": {"messages": []} if graph == "chat" else given_input}
            await client.http.post(f"/threads/{thread_id}/runs/wait", json=run)
            if graph == "counter":
                posted = {"values": {"count": 7}, "as_node": "step"}
                assert (await client.http.post(f"/threads/{thread_id}/state", json=posted)).status_code == 200
            await client.http.get(f"/threads/{thread_id}")
    connection, database = await connect(stack.nats_url, "test"), await open_database(stack.dsn)
    try:
        with pytest.raises(Conflict, match="projector"):
            await rebuild(connection, database, stack.region, lambda done, total: None)
        for service in stack.services:
            service.kill()
        before = await checksum(database)
        applied = await rebuild(connection, database, stack.region, lambda done, total: None)
        assert applied >= 13
        assert await checksum(database) == before
    finally:
        await database.close()
        await connection.close()
