"""Webhooks: the end of a run is told at least once, nearly always once, signed, and to nobody's private network."""

import asyncio
import base64
import hashlib
import hmac
import signal
from typing import Any, Final

import httpx
import psycopg
import pytest
from langgraph_sdk import get_client

from slipstream_nats.connection import connect
from slipstream_postgres.pool import open_database
from slipstream_projector.rebuild import rebuild
from slipstream_schemas.ids import derived_id
from testkit.client import new_thread
from testkit.receiver import Delivery, Receiver
from testkit.stack import Stack
from testkit.wait import until

SECRET: Final = "whsec_" + base64.b64encode(b"a secret of the test").decode()
ALLOWED: Final = {"slipstream_webhook_allow_private": "1", "slipstream_webhook_secret": SECRET}
COUNT: Final = {"steps": 1, "delay_s": 0}
DEADLINE_S: Final = 60.0


async def create(url: str, webhook: str, **more: Any) -> dict[str, Any]:
    """A run on a new thread, by the stock SDK."""
    client = get_client(url=url)
    graph_input = more.pop("input", COUNT)
    return dict(
        await client.runs.create(
            new_thread(), more.pop("assistant_id", "counter"), input=graph_input, webhook=webhook,
            if_not_exists="create", **more,
        )
    )  # fmt: skip


async def started(stack: Stack, apis: int = 1, **settings: str) -> None:
    """A stack whose webhooks may go to this machine."""
    stack.settings = {**ALLOWED, **settings}
    await asyncio.to_thread(stack.start, apis)
    stack.settings = {}


async def rebuilt(stack: Stack) -> None:
    """The rows again, from record 1."""
    for service in stack.services:
        service.kill()
    connection, database = await connect(stack.nats_url, "test"), await open_database(stack.dsn)
    try:
        await rebuild(connection, database, stack.region, lambda done, total: None)
    finally:
        await database.close()
        await connection.close()


async def row(stack: Stack, run_id: str) -> tuple[Any, int] | None:
    """`(due_at, tries)` of a run's webhook."""

    def read() -> tuple[Any, int] | None:
        with psycopg.connect(stack.dsn) as connection:
            found = connection.execute("SELECT due_at, tries FROM webhooks WHERE run_id=%s", (run_id,)).fetchone()
            return None if found is None else (found[0], found[1])

    return await asyncio.to_thread(read)


async def delivered(stack: Stack, run_id: str) -> None:
    """Wait until nothing is due for the run any more."""

    async def is_over() -> bool:
        found = await row(stack, run_id)
        return found is not None and found[0] is None

    await until(is_over, DEADLINE_S)


def check_signature(delivery: Delivery) -> None:
    """As a receiver does."""
    headers = delivery.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + delivery.body
    digest = hmac.new(b"a secret of the test", signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


async def test_every_end_is_told_by_two_instances_once(stack: Stack) -> None:
    await started(stack, apis=2)
    urls = [str(api.url) for api in stack.apis]
    async with Receiver() as receiver:
        runs = [await create(urls[number % 2], receiver.url) for number in range(6)]
        failing = await create(urls[0], receiver.url, input={"steps": "many"})
        # A run that waits for another one on its thread, and is stopped before it began.
        client, slow = get_client(url=urls[1]), {"steps": 1000, "delay_s": 0.05}
        first = await create(urls[0], receiver.url, input=slow)
        waiting = await client.runs.create(first["thread_id"], "counter", input=COUNT, webhook=receiver.url)
        await client.runs.cancel(first["thread_id"], waiting["run_id"])
        await client.runs.cancel(first["thread_id"], first["run_id"])
        created = [*runs, failing, first, waiting]
        for run in created:
            await delivered(stack, run["run_id"])
        told = {each.json["run_id"]: each for each in receiver.deliveries}
        assert len(receiver.deliveries) == len(told) == len(created)
    for each in told.values():
        check_signature(each)
        assert each.path == "/hook?from=slipstream"
        assert each.headers["host"] == f"127.0.0.1:{receiver.port}"
        assert each.headers["webhook-id"] == derived_id("webhook", "default", each.json["run_id"])
        assert each.json["run_ended_at"] <= each.json["webhook_sent_at"]
    body = told[runs[0]["run_id"]].json
    assert {name: body[name] for name in ("status", "thread_id", "kwargs")} == {
        "status": "success", "thread_id": runs[0]["thread_id"], "kwargs": runs[0]["kwargs"],
    }  # fmt: skip
    assert body["values"] == (await client.threads.get(runs[0]["thread_id"]))["values"]
    assert body["created_at"] <= body["run_started_at"] <= body["run_ended_at"]
    assert "error" not in body
    statuses = {name: told[run["run_id"]].json for name, run in (("e", failing), ("i", first), ("w", waiting))}
    assert [statuses[name]["status"] for name in "eiw"] == ["error", "interrupted", "interrupted"]
    assert statuses["e"]["error"]["message"]
    assert statuses["w"]["run_started_at"] is None
    assert statuses["w"]["values"] is None
    await rebuilt(stack)
    assert [(await row(stack, run["run_id"]) or ("lost",))[0] for run in created] == [None] * len(created)


async def test_deaths_and_deaf_receivers_only_delay_it(stack: Stack) -> None:
    await started(stack, slipstream_crashpoint="webhook_claimed")
    async with Receiver(answers=(302,), extra="location: http://127.0.0.1:1/\r\n") as receiver:
        receiver.stop()
        doomed = stack.apis[0]
        run_id = (await create(stack.url, receiver.url))["run_id"]
        # The run ends; the one that takes its webhook dies before it has said anything.
        assert await doomed.ended() == -signal.SIGKILL
        found = await row(stack, run_id)
        assert found is not None
        assert found[1] == 1
        due_now(stack, run_id)
        # One that may not connect to private addresses does not, whatever was accepted before.
        strict = await stack.spawn_api().ready()
        await until(lambda: "link-local and metadata addresses are refused" in strict.log_text(), DEADLINE_S)
        assert "webhooks are not signed" in strict.log_text()
        strict.kill()
        due_now(stack, run_id)
        # The next one finds nobody listening, then a redirection, and dies when it was heard.
        second = await stack.spawn_api(slipstream_crashpoint="webhook_sent", **ALLOWED).ready()
        await until(lambda: "All connection attempts failed" in second.log_text(), DEADLINE_S)
        assert receiver.deliveries == []
        await receiver.listen()
        assert await second.ended() == -signal.SIGKILL
        assert "answered 302" in second.log_text()
        assert len(receiver.deliveries) == 2
        due_now(stack, run_id)
        await stack.spawn_api(**ALLOWED).ready()
        await delivered(stack, run_id)
        assert len(receiver.deliveries) == 3
        assert len({each.headers["webhook-id"] for each in receiver.deliveries}) == 1
        for each in receiver.deliveries:
            check_signature(each)


def due_now(stack: Stack, run_id: str) -> None:
    """Let the time of a claim pass, and begin with the shortest pause again."""
    with psycopg.connect(stack.dsn) as connection:
        connection.execute("UPDATE webhooks SET due_at=now(), tries=0 WHERE run_id=%s", (run_id,))


@pytest.mark.parametrize("path", ["/threads/{}/runs", "/runs", "/runs/wait", "/runs/stream", "/runs/crons"])
async def test_private_addresses_are_refused_when_a_run_is_created(live: Stack, path: str) -> None:
    body = {"assistant_id": "counter", "if_not_exists": "create", "schedule": "0 0 * * *"}
    async with httpx.AsyncClient(base_url=live.url, timeout=30) as http:
        for webhook in ("http://127.0.0.1:9/", "http://169.254.169.254/latest", "http://[::ffff:10.0.0.1]/", "/hook"):
            answer = await http.post(path.format(new_thread()), json={**body, "webhook": webhook})
            assert answer.status_code == 422, answer.text
            assert answer.json()["detail"][0]["loc"] == ["body", "webhook"]
