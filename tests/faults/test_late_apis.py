"""APIs that are slow at one place, or die there: what others do meanwhile stands, and a repeat ends what was begun."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg

from slipstream_api.app import opened
from slipstream_api.retention import trim_by_age
from slipstream_nats.connection import connect
from slipstream_nats.publisher import open_publisher
from slipstream_postgres import temporary
from slipstream_postgres.pool import open_database
from slipstream_schemas.settings import ServiceSettings
from slipstream_schemas.subjects import Scope, control
from testkit.client import Client, new_thread
from testkit.stack import Stack
from testkit.wait import until

COUNT: dict[str, Any] = {"steps": 2, "delay_s": 0}
DAILY = {"assistant_id": "counter", "schedule": "0 4 * * *", "metadata": {"a": 1}}


class Held:
    """A lock in the database, and who waits for it."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], dsn: str) -> None:
        self._connection, self._dsn = connection, dsn

    async def waiting(self, count: int) -> None:
        """Until so many statements wait for locks."""
        async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as watching:

            async def are_waiting() -> bool:
                found = await watching.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname=current_database() AND wait_event_type='Lock'"
                )
                row = await found.fetchone()
                return row is not None and row[0] >= count

            await until(are_waiting, what=f"{count} statements wait for a lock")

    async def release(self) -> None:
        """Let them go on, in the order in which they came."""
        await self._connection.rollback()


@asynccontextmanager
async def held(stack: Stack, statement: str) -> AsyncIterator[Held]:
    """Hold the locks that a statement takes."""
    async with await psycopg.AsyncConnection.connect(stack.dsn) as connection:
        await connection.execute(statement.encode())
        yield Held(connection, stack.dsn)


async def test_a_cron_that_is_deleted_amid_a_change_stays_deleted(stack: Stack) -> None:
    await asyncio.to_thread(stack.start)
    async with Client(stack.url) as client:
        path = f"/runs/crons/{(await client.http.post('/runs/crons', json=DAILY)).json()['cron_id']}"
        async with held(stack, "SELECT * FROM crons FOR UPDATE") as lock:
            deleting = asyncio.create_task(client.http.delete(path))
            await lock.waiting(1)
            changing = asyncio.create_task(client.http.patch(path, json={"schedule": "0 5 * * *"}))
            await lock.waiting(2)
            await lock.release()
        assert (await deleting).status_code == 204
        assert (await changing).status_code == 404
        assert (await client.http.get(path)).status_code == 404


async def test_two_changes_of_a_cron_are_both_kept(stack: Stack) -> None:
    await asyncio.to_thread(stack.start)
    async with Client(stack.url) as client:
        path = f"/runs/crons/{(await client.http.post('/runs/crons', json=DAILY)).json()['cron_id']}"
        async with held(stack, "SELECT * FROM crons FOR UPDATE") as lock:
            one = asyncio.create_task(client.http.patch(path, json={"schedule": "0 5 * * *"}))
            await lock.waiting(1)
            two = asyncio.create_task(client.http.patch(path, json={"metadata": {"b": 2}}))
            await lock.waiting(2)
            await lock.release()
        assert ((await one).status_code, (await two).status_code) == (200, 200)
        cron = (await client.http.get(path)).json()
        assert (cron["schedule"], cron["metadata"]) == ("0 5 * * *", {"a": 1, "b": 2})


async def test_a_repeated_request_gives_the_thread_the_ttl_that_it_lacks(stack: Stack) -> None:
    await asyncio.to_thread(stack.start)
    thread_id, body = new_thread(), {"ttl": 60}
    request: dict[str, Any] = {"json": {**body, "thread_id": thread_id}, "headers": {"idempotency-key": "once"}}
    async with Client((await stack.spawn_api().ready()).url or "") as doomed:
        async with held(stack, "LOCK TABLE temporary_threads") as lock:
            making = asyncio.create_task(doomed.http.post("/threads", **request))
            await lock.waiting(1)
            stack.apis[-1].kill()
        assert isinstance((await asyncio.gather(making, return_exceptions=True))[0], httpx.TransportError)
    async with Client(stack.url) as client:
        (await client.http.post("/threads", **request)).raise_for_status()
        made = (await client.http.get(f"/threads/{thread_id}?include=ttl")).raise_for_status().json()
        assert made["ttl"]["ttl_minutes"] == body["ttl"]


async def test_a_repeated_copy_that_was_cut_off_is_whole(stack: Stack) -> None:
    await asyncio.to_thread(stack.start)
    keyed, source = {"idempotency-key": "once"}, new_thread()
    async with Client(stack.url) as client:
        await client.start(source, "counter", COUNT)
        await client.run_events(source)
        (runner,) = stack.runners
        async with Client((await stack.spawn_api().ready()).url or "") as doomed:
            runner.pause()
            copying = asyncio.create_task(doomed.http.post(f"/threads/{source}/copy", headers=keyed))

            async def is_made() -> bool:
                return len((await client.http.post("/threads/search", json={})).json()) > 1

            await until(is_made, what="the copy exists")
            stack.apis[-1].kill()
            runner.kill()
            assert isinstance((await asyncio.gather(copying, return_exceptions=True))[0], httpx.TransportError)
        await stack.spawn_runner().ready()
        again = await client.http.post(f"/threads/{source}/copy", headers=keyed)
        copied = again.raise_for_status().json()
        assert copied["values"]["count"] == COUNT["steps"]
        state = (await client.http.get(f"/threads/{copied['thread_id']}/state")).json()
        assert state["values"]["count"] == COUNT["steps"]


async def limit(stack: Stack, thread_id: str, *, keeps_latest: bool = False) -> None:
    """Let the time of a thread be over now, without a word in its log."""
    database = await open_database(stack.dsn)
    await temporary.limit_life(database, Scope(stack.region).tenant, thread_id, 0.0001, keeps_latest=keeps_latest)
    await database.close()


async def gone(client: Client, thread_id: str) -> None:
    """Until it is deleted."""

    async def is_gone() -> bool:
        return (await client.http.get(f"/threads/{thread_id}")).status_code == 404

    await until(is_gone, what="the thread is deleted")


async def test_a_thread_whose_rows_are_old_is_not_deleted_amid_its_run(stack: Stack) -> None:
    await asyncio.to_thread(stack.start)
    used, *witnesses = [new_thread() for _ in range(3)]
    async with Client(stack.url) as client:
        for each in (used, *witnesses):
            await client.start(each, "counter", COUNT)
            await client.run_events(each)
            assert (await client.http.get(f"/threads/{each}")).json()["status"] == "idle"
        (projector,) = [each for each in stack.services if each.name.startswith("projector")]
        projector.pause()
        await client.start(used, "counter", {"steps": 10_000, "delay_s": 0.05})
        await limit(stack, used)
        # What was due with the first of them has been looked at when the second is gone.
        for each in witnesses:
            await limit(stack, each)
            await gone(client, each)
        projector.resume()
        assert (await client.http.get(f"/threads/{used}")).json()["status"] == "busy"


async def test_a_thread_that_nobody_can_read_holds_up_no_other(stack: Stack) -> None:
    await asyncio.to_thread(stack.start)
    unreadable, short, long = [new_thread() for _ in range(3)]
    async with Client(stack.url) as client:
        for each in (unreadable, short, long):
            await client.start(each, "counter", COUNT)
            await client.run_events(each)
            (await client.http.get(f"/threads/{each}")).raise_for_status()
        nats = await connect(stack.nats_url, "test")
        await (await open_publisher(nats)).publish(control(Scope(stack.region), unreadable), b"by a newer version", {})
        await nats.close()
        await limit(stack, unreadable)
        await limit(stack, long, keeps_latest=True)
        await limit(stack, short)

        async def is_pruned() -> bool:
            return len((await client.http.get(f"/threads/{long}/history?limit=9")).raise_for_status().json()) == 1

        await gone(client, short)
        await until(is_pruned, what="the older checkpoints are gone")


async def test_a_log_that_cannot_be_trimmed_holds_up_no_other(stack: Stack) -> None:
    await asyncio.to_thread(stack.start)
    unreadable, other = new_thread(), new_thread()
    settings = ServiceSettings(nats_url=stack.nats_url, database_url=stack.dsn, region=stack.region)
    async with Client(stack.url) as client, opened(settings) as context:
        for each in (unreadable, other):
            await client.start(each, "counter", COUNT)
            await client.run_events(each)
            (await client.http.get(f"/threads/{each}")).raise_for_status()
        await context.publisher.publish(control(Scope(stack.region), unreadable), b"by a newer version", {})
        await trim_by_age(context, timedelta(0))
        assert await context.threads.first_since(Scope(stack.region), other, datetime.fromtimestamp(0, UTC)) > 1


async def test_runs_are_cancelled_beside_one_whose_thread_nobody_can_read(stack: Stack) -> None:
    await asyncio.to_thread(stack.start)
    threads = [new_thread() for _ in range(5)]
    settings = ServiceSettings(nats_url=stack.nats_url, database_url=stack.dsn, region=stack.region)
    async with Client(stack.url) as client, opened(settings) as context:
        for each in threads:
            await client.start(each, "counter", {"steps": 10_000, "delay_s": 0.05})
        for each in threads:
            assert (await client.http.get(f"/threads/{each}")).json()["status"] == "busy"
        unreadable = threads.pop(2)
        await context.publisher.publish(control(Scope(stack.region), unreadable), b"by a newer version", {})
        assert (await client.http.post("/runs/cancel", json={"status": "all"})).status_code == 500

        async def are_over() -> bool:
            found = [(await client.http.get(f"/threads/{each}")).json()["status"] for each in threads]
            return "busy" not in found

        await until(are_over, what="the other runs are cancelled")
