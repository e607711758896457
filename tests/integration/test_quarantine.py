"""A record that the projector cannot apply: it goes to the quarantine, everything else goes on, and an operator's
commands make the rows whole again.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import asyncpg
import pytest

from slipstream_nats.connection import Connection, connect
from slipstream_nats.controllog import ControlLog
from slipstream_nats.publisher import Publisher, open_publisher
from slipstream_schemas import subjects
from slipstream_schemas.record import TRANSITION_HEADER
from slipstream_schemas.subjects import Scope
from testkit.client import Client, new_thread
from testkit.stack import Stack
from testkit.wait import until

REFUSING = """CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN
 IF NEW.metadata ? 'poison' THEN RAISE EXCEPTION 'a row that nobody takes' USING ERRCODE = '22P05'; END IF;
 RETURN NEW; END $$ LANGUAGE plpgsql;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()"""
"""Stands for a row that Postgres refuses: what is known to be refused is mended before it gets here."""
HEALED = "DROP TRIGGER refuse ON {table}; DROP FUNCTION refuse()"


@pytest.fixture
async def running(stack: Stack) -> Stack:
    """A stack of its own: what is refused here must not be refused elsewhere."""
    await asyncio.to_thread(stack.start)
    return stack


@pytest.fixture
async def nats(stack: Stack) -> AsyncIterator[Connection]:
    """A connection to the stack's log."""
    opened = await connect(stack.nats_url, "test")
    yield opened
    await opened.close()


async def sql(stack: Stack, text: str, *arguments: Any) -> Any:
    """Run SQL and return its rows."""
    connection = await asyncpg.connect(stack.dsn)
    try:
        return (
            await connection.fetch(text, *arguments)
            if arguments or "SELECT" in text
            else await connection.execute(text)
        )
    finally:
        await connection.close()


async def operator(stack: Stack, *words: str, code: int = 0) -> str:
    """What `slipstream …` says on both of its outputs."""
    environment = {
        **os.environ,
        "NATS_URL": stack.nats_url,
        "DATABASE_URL": stack.dsn,
        "SLIPSTREAM_REGION": stack.region,
    }
    command = [sys.executable, "-m", "slipstream_cli.main", *words]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done
    return done.stdout + done.stderr


async def quarantined(stack: Stack) -> list[int]:
    """The seqs in the quarantine."""
    return [row["stream_seq"] for row in await sql(stack, "SELECT stream_seq FROM quarantine ORDER BY 1")]


async def a_run(client: Client, thread_id: str, **more: Any) -> Any:
    """One run on a thread, waited for."""
    body = {"assistant_id": "counter", "input": {"steps": 1}, "if_not_exists": "create", **more}
    return (await client.http.post(f"/threads/{thread_id}/runs/wait", json=body)).raise_for_status().json()


async def rows_of(stack: Stack) -> Any:
    """All threads and runs."""
    threads = await sql(stack, "SELECT t::text AS row FROM threads t ORDER BY 1")
    return threads, await sql(stack, "SELECT r::text AS row FROM runs r ORDER BY 1")


@pytest.mark.parametrize("table", ["runs", "threads"])
async def test_a_row_that_postgres_refuses_holds_up_nobody_and_is_made_whole(running: Stack, table: str) -> None:
    await sql(running, REFUSING.format(table=table))
    thread_id, other = new_thread(), new_thread()
    poison = {"metadata": {"poison": 1}} if table == "runs" else {}
    async with Client(running.url) as client:
        if table == "threads":
            made = await client.http.post("/threads", json={"thread_id": thread_id, "metadata": {"poison": 1}})
            made.raise_for_status()
        await a_run(client, thread_id, **poison)
        await a_run(client, other)
        # Nothing waits for ever, and the statuses are right.
        thread = (await client.http.get(f"/threads/{thread_id}")).raise_for_status().json()
        (run,) = (await client.http.get(f"/threads/{thread_id}/runs")).raise_for_status().json()
        assert (thread["status"], run["status"]) == ("idle", "success")
        assert (await client.http.get(f"/threads/{other}")).json()["values"]["count"] == 1
        seqs = await quarantined(running)
        assert seqs
        metrics = (await client.http.get("/metrics")).text
        assert f"slipstream_quarantined_records {float(len(seqs))}" in metrics
    said = await operator(running, "quarantine", "list")
    assert f"{seqs[0]}  " in said and thread_id in said and "a row that nobody takes" in said
    assert "poison" in await operator(running, "quarantine", "show", str(seqs[0]))
    assert "still in the quarantine" in await operator(running, "quarantine", "retry", str(seqs[0]), code=1)
    assert await quarantined(running) == seqs
    projector = next(service for service in running.services if service.name.startswith("projector"))
    assert f"record {seqs[0]} of control." in projector.log_tail(0)
    # The projector restarts, and remembers whose rows to heal.
    projector.kill()
    await running.spawn_projector().ready()
    async with Client(running.url) as client:
        await a_run(client, thread_id)
        assert (await client.http.get(f"/threads/{thread_id}")).json()["status"] == "idle"
    await sql(running, HEALED.format(table=table))
    assert "whole" in await operator(running, "quarantine", "retry", *map(str, seqs))
    assert await quarantined(running) == []
    async with Client(running.url) as client:
        thread = (await client.http.get(f"/threads/{thread_id}")).json()
        assert thread["values"]["count"] == 2
        runs = (await client.http.get(f"/threads/{thread_id}/runs")).json()
        assert (runs[-1]["metadata"] if table == "runs" else thread["metadata"])["poison"] == 1
        assert [each["status"] for each in runs] == ["success", "success"]
    whole = await rows_of(running)
    for service in running.services:
        if service.name.startswith("projector"):
            service.kill()
    assert "checksum" in await operator(running, "rebuild")
    assert await rows_of(running) == whole


async def poison(publisher: Publisher, scope: Scope, thread_id: str, body: bytes, expected: int) -> int:
    """Append what nobody can read, as a newer version might."""
    headers = {TRANSITION_HEADER: "thread_painted", "Nats-Expected-Last-Subject-Sequence": str(expected)}
    return (await publisher.publish(subjects.control(scope, thread_id), body, headers)).stream_seq


async def test_a_record_that_cannot_be_read_is_healed_by_the_next_one(running: Stack, nats: Connection) -> None:
    scope, publisher = Scope(running.region), await open_publisher(nats)
    control = ControlLog(nats, publisher, running.region)
    thread_id, other = new_thread(), new_thread()
    async with Client(running.url) as client:
        await a_run(client, thread_id)
        head = await control.head(scope, thread_id)
        assert head.transition is not None
        unknown = json.dumps({"name": "thread_painted", "command_id": "x", "at_ms": 1, "state": {"thread_id": "x"}})
        for body in (b"\xff\x00no json", unknown.encode(), b'{"name":"run_ended","command_id":"x","at_ms":1e30}'):
            expected = (await quarantined(running) or [head.stream_seq])[-1]
            seq = await poison(publisher, scope, thread_id, body, expected)
            await until(partial(has, running, seq), what="the record is in the quarantine")
        # Others go on; a question about this thread is answered at once, with an error.
        await a_run(client, other)
        async with asyncio.timeout(10):
            assert (await client.http.get(f"/threads/{thread_id}")).status_code == 500
        assert "unreadable" in await operator(running, "quarantine", "list")
        # A newer version goes on with the thread: its state says that another run waits.
        waiting = {"run_id": new_thread(), "created_seq": head.stream_seq, "graph_id": "counter"}
        patch = {"name": "thread_patched", "command_id": "y", "at_ms": 1_700_000_000_000,
                "payload": {"metadata": {"a": 1}},
                "state": {"thread_id": thread_id, "status": "busy", "pending": [waiting]}}  # fmt: skip
        seq = await poison(publisher, scope, thread_id, json.dumps(patch).encode(), seq)
        row = await until(lambda: client_row(client, thread_id, "busy"), what="the next record heals the rows")
        assert row["metadata"]["a"] == 1
        runs = (await client.http.get(f"/threads/{thread_id}/runs")).json()
        assert {each["run_id"]: each["status"] for each in runs}[waiting["run_id"]] == "pending"
        assert "still in the quarantine" in await operator(
            running, "quarantine", "retry", str((await quarantined(running))[0]), code=1
        )
        assert "3 of 3" in await operator(running, "quarantine", "skip", *map(str, await quarantined(running)))
        assert await quarantined(running) == []
        assert "0 of 1" in await operator(running, "quarantine", "skip", "1", code=1)
    for service in running.services:
        if service.name.startswith("projector"):
            service.kill()
    await operator(running, "rebuild")
    assert len(await quarantined(running)) == 3


def outages(stack: Stack) -> int:
    """How often the projector has met one."""
    projector = next(service for service in stack.services if service.name.startswith("projector"))
    return projector.log_tail(0).count("projecting stopped: Postgres does not take rows")


def has_met_one(stack: Stack, before: int) -> bool:
    """Whether the projector has met another outage."""
    return outages(stack) > before


async def has(stack: Stack, seq: int) -> bool:
    """Whether a record is in the quarantine."""
    return seq in await quarantined(stack)


async def client_row(client: Client, thread_id: str, status: str) -> Any:
    """The thread's row, once it has this status."""
    answer = await client.http.get(f"/threads/{thread_id}")
    return answer.json() if answer.status_code == 200 and answer.json()["status"] == status else None


async def test_an_outage_is_waited_for_and_is_no_poison(running: Stack) -> None:
    database = running.dsn.rsplit("/", 1)[1].partition("?")[0]
    thread_id = new_thread()
    async with Client(running.url) as client:
        await a_run(client, thread_id)
        for begin, end in (
            (f'ALTER DATABASE "{database}" SET default_transaction_read_only = on',
             f'ALTER DATABASE "{database}" SET default_transaction_read_only = off'),
            ("ALTER TABLE threads RENAME TO threads_away", "ALTER TABLE threads_away RENAME TO threads"),
        ):  # fmt: skip
            before = outages(running)
            await sql(running, begin)
            # Connections read the setting when they begin.
            await sql(
                running,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname=$1 AND pid<>pg_backend_pid()",
                database,
            )
            # This answer needs no row.
            patched = await client.http.patch(
                f"/threads/{thread_id}", json={"metadata": {"away": begin[:9]}}, headers={"Prefer": "return=minimal"}
            )
            assert patched.status_code == 204, patched.text
            await until(partial(has_met_one, running, before), what="the projector says that it waits")
            connection = await asyncpg.connect(running.dsn)
            await connection.execute("SET default_transaction_read_only = off")
            await connection.execute(end)
            await connection.close()
            await sql(
                running,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname=$1 AND pid<>pg_backend_pid()",
                database,
            )
            await until(lambda: client_row(client, thread_id, "idle"), deadline_s=40, what="the projector goes on")
        assert await quarantined(running) == []
        await a_run(client, thread_id)
        assert (await client.http.get(f"/threads/{thread_id}")).json()["metadata"]["away"] == "ALTER TAB"


async def test_the_help_says_what_to_do(stack: Stack) -> None:
    said = await operator(stack, "quarantine", "--help")
    assert "mend the cause" in said and "retry" in said and "skip" in said
