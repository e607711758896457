"""Deleting a thread: nothing is left of it, its streams end, its id is free; a deletion that was broken off goes on."""

import asyncio
import base64
import signal
from contextlib import suppress
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from slipstream_nats.connection import Connection, connect
from slipstream_postgres.pool import open_database
from slipstream_schemas.limits import ERASED_KEPT_S, TOMBSTONE_KEPT_S
from slipstream_schemas.subjects import (
    Scope,
    control,
    control_stream,
    lease,
    thread_key,
    thread_log,
    threads_stream,
    work,
)
from testkit.client import Client, frames, new_thread
from testkit.sockets import Socket
from testkit.stack import Stack
from testkit.wait import until

COUNT = {"assistant_id": "counter", "input": {"steps": 3, "delay_s": 0.0}}
ENDLESS = {"assistant_id": "counter", "input": {"steps": 10_000, "delay_s": 0.02}}
TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


async def stored(connection: Connection, stream: str, subject: str) -> dict[str, int]:
    info = await connection.api(f"STREAM.INFO.{stream}", {"subjects_filter": subject})
    return info["state"].get("subjects") or {}


async def newest_headers(connection: Connection, stream: str, subject: str) -> str:
    found = await connection.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
    return base64.b64decode(found["message"]["hdrs"]).decode()


async def check_nothing_is_left(stack: Stack, thread_id: str) -> None:
    """But for the two records that say so, and go by themselves."""
    scope = Scope(stack.region)
    threads, transitions = threads_stream(stack.region), control_stream(stack.region)
    log, head = thread_log(scope, thread_id), control(scope, thread_id)
    connection, database = await connect(stack.nats_url, "test"), await open_database(stack.dsn)
    try:
        assert await stored(connection, threads, lease(scope, thread_id)) == {}
        assert await stored(connection, threads, log) == {log: 1}
        assert f"Nats-TTL: {ERASED_KEPT_S}s" in await newest_headers(connection, threads, log)
        assert await stored(connection, transitions, head) == {head: 1}
        assert await stored(connection, transitions, work(scope, thread_id)) == {}
        assert f"Nats-TTL: {TOMBSTONE_KEPT_S}s" in await newest_headers(connection, transitions, head)
        key = thread_key(scope, thread_id)
        async with database.connection() as rows:
            for table in TABLES:
                assert await rows.fetchval(f"SELECT count(*) FROM {table} WHERE thread_id=$1", key) == 0
            assert await rows.fetchval("SELECT count(*) FROM fences WHERE thread_key=$1", key) == 0

            async def are_gone() -> bool:
                left = [await rows.fetchval(f"SELECT count(*) FROM {table} WHERE thread_id=$1", thread_id)
                        for table in ("threads", "runs", "erasures")]  # fmt: skip
                return not any(left)

            await until(are_gone, what="the rows are gone")
    finally:
        await database.close()
        await connection.close()


async def ended(url: str, method: str, path: str, body: Any, opened: asyncio.Event) -> list[str]:
    """The frames of a stream that the server ends."""
    seen: list[str] = []
    async with httpx.AsyncClient(base_url=url, timeout=30) as http, http.stream(method, path, json=body) as answer:
        opened.set()
        async for frame in frames(answer.aiter_bytes()):
            seen.append(f"{frame.event} {frame.data}")
    return seen


async def test_a_deleted_thread_leaves_nothing_and_its_streams_end(live: Stack) -> None:
    thread_id = new_thread()
    async with Client(live.url) as client, Socket(live.url, thread_id) as socket:
        path = f"/threads/{thread_id}"
        await client.http.post("/threads", json={"thread_id": thread_id})
        run = (await client.http.post(f"{path}/runs", json=ENDLESS)).json()
        await socket.subscribe("values")
        opened = [asyncio.Event() for _ in range(4)]
        streams = [
            asyncio.create_task(ended(live.url, method, path + where, body, event))
            for (method, where, body), event in zip(
                (
                    ("POST", "/stream/events", {"channels": ["values"]}),
                    ("GET", f"/runs/{run['run_id']}/stream", None),
                    ("GET", "/stream", None),
                    ("GET", f"/runs/{run['run_id']}/join", None),
                ),
                opened, strict=True,
            )
        ]  # fmt: skip
        for event in opened:
            await event.wait()
        assert (await client.http.delete(path)).status_code == 204
        async with asyncio.timeout(30):
            v2, v1, whole, joined = await asyncio.gather(*streams)
            with pytest.raises(ConnectionClosed) as closed:
                await socket.until("nothing that is ever sent")
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1000
        assert v2 and whole and "The thread was deleted." in v1[-1]
        assert joined == [] or "The thread was deleted." in joined[-1]
        await check_nothing_is_left(live, thread_id)
        assert (await client.http.get(path)).status_code == 404
        # The id is free, and the new thread knows nothing of the old one.
        again = await client.http.post(f"{path}/runs/wait", json={**COUNT, "if_not_exists": "create"})
        assert again.json()["count"] == 3
        seen = await client.run_events(thread_id)
        assert seen[0].body["params"]["data"]["event"] == "running" and seen[-1].ends_root
        assert len((await client.http.get(f"{path}/runs")).json()) == 1


async def test_a_deletion_that_was_broken_off_is_ended_by_another_api(stack: Stack) -> None:
    await asyncio.to_thread(lambda: stack.start(slipstream_sweep_s="0.5"))
    thread_id = new_thread()
    doomed = await stack.spawn_api(slipstream_crashpoint="thread_deleted").ready()
    async with Client(stack.url) as client:
        await client.http.post(f"/threads/{thread_id}/runs/wait", json={**COUNT, "if_not_exists": "create"})
        async with httpx.AsyncClient(base_url=doomed.url or "") as http:
            with suppress(httpx.TransportError):
                await http.delete(f"/threads/{thread_id}")
        assert await doomed.ended() == -signal.SIGKILL
        assert (await client.http.get(f"/threads/{thread_id}")).status_code == 404

        # Nobody gets the id while something is left of the thread.
        made = await client.http.post("/threads", json={"thread_id": thread_id})
        assert made.status_code == 200, made.text
        assert (await client.http.get(f"/threads/{thread_id}/state")).json()["values"] in (None, {}, [])
        assert (await client.http.get(f"/threads/{thread_id}/runs")).json() == []
        assert (await client.http.delete(f"/threads/{thread_id}")).status_code == 204
    await check_nothing_is_left(stack, thread_id)
