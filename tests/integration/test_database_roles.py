"""Each service runs as its role of `infra/postgres/roles.sql`, and may do no more than that."""

import asyncio
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from testkit import guarded
from testkit.client import Client, new_thread
from testkit.stack import Stack
from testkit.wait import until

ROLES: Final = Path(__file__).parents[2] / "infra" / "postgres" / "roles.sql"
REFUSED: Final = (
    ("slipstream_api", "INSERT INTO runs DEFAULT VALUES"),
    ("slipstream_api", "UPDATE threads SET status='idle'"),
    ("slipstream_api", "DELETE FROM positions"),
    ("slipstream_api", "UPDATE fences SET fence=0"),
    ("slipstream_api", "SELECT * FROM checkpoints"),
    ("slipstream_api", "SELECT * FROM store"),
    ("slipstream_api", "CREATE TABLE mine (a int)"),
    ("slipstream_runner", "SELECT * FROM runs"),
    ("slipstream_runner", "SELECT metadata FROM runs"),
    ("slipstream_runner", "UPDATE runs SET status='success'"),
    ("slipstream_runner", "SELECT * FROM threads"),
    ("slipstream_runner", "SELECT * FROM crons"),
    ("slipstream_runner", "SELECT * FROM webhooks"),
    ("slipstream_runner", "DROP TABLE runs"),
    ("slipstream_projector", "SELECT * FROM checkpoints"),
    ("slipstream_projector", "SELECT * FROM store"),
    ("slipstream_projector", "DELETE FROM assistants"),
    ("slipstream_projector", "UPDATE fences SET fence=0"),
    ("slipstream_projector", "CREATE TABLE mine (a int)"),
)


def as_role(dsn: str, role: str) -> str:
    """The same database as somebody else."""
    parts = urlsplit(dsn)
    return parts._replace(netloc=f"{role}@{parts.hostname}:{parts.port}").geturl()


async def test_a_stack_runs_with_a_role_for_each_service(stack: Stack) -> None:
    for _ in range(2):
        with psycopg.connect(stack.dsn, autocommit=True) as owner:
            owner.execute(ROLES.read_text().encode())
    stack.settings["slipstream_sweep_s"] = "0.5"
    services = [
        stack.spawn_api(database_url=as_role(stack.dsn, "slipstream_api")),
        stack.spawn_runner(database_url=as_role(stack.dsn, "slipstream_runner")),
        stack.spawn_projector(database_url=as_role(stack.dsn, "slipstream_projector")),
    ]
    await asyncio.gather(*(service.ready() for service in services))
    async with Client(stack.url) as client:
        http: httpx.AsyncClient = client.http

        async def has_graphs() -> bool:
            return bool((await http.get("/ready")).json().get("graphs"))

        await until(has_graphs, what="the graphs")
        things = await guarded.make(http)
        await guarded.settled(http, things)
        await guarded.seen(http, things)
        run = {**guarded.RUN, "webhook": "https://example.com/hook", "after_seconds": 3600}
        (await http.post(f"/threads/{things.thread_id}/runs", json=run)).raise_for_status()
        (await http.post("/runs/wait", json=guarded.RUN)).raise_for_status()
        (await http.post("/threads", json={"thread_id": new_thread(), "ttl": 5})).raise_for_status()
        copied = await http.post(f"/threads/{things.waiting_id}/copy")
        copied.raise_for_status()
        for path in (
            f"/threads/{things.waiting_id}",
            f"/assistants/{things.assistant_id}",
            f"/runs/crons/{things.cron_id}",
        ):
            (await http.delete(path)).raise_for_status()
        assert "slipstream_quarantined_records 0" in (await http.get("/metrics")).text
    await until(lambda: asyncio.to_thread(has_swept, stack.dsn), what="a sweep")
    logs = stack.logs()
    assert "permission denied" not in logs, logs
    for role, statement in REFUSED:
        await asyncio.to_thread(is_refused, stack.dsn, role, statement)


def has_swept(dsn: str) -> bool:
    """Whether a runner has claimed the position of the sweep."""
    with psycopg.connect(dsn) as owner:
        return owner.execute("SELECT 1 FROM positions WHERE name='sweep' AND stream_seq >= 0").fetchone() is not None


def is_refused(dsn: str, role: str, statement: str) -> None:
    """A statement that the role may not run."""
    with (
        psycopg.connect(as_role(dsn, role), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())
