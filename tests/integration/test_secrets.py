"""What must stay out of logs and error answers: payloads, credentials, and what the inside looks like."""

import asyncio
import json
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.asyncio.client import connect

from testkit import permitted
from testkit.client import Client, new_thread
from testkit.receiver import Receiver
from testkit.stack import Stack
from testkit.wait import until

GRAPHS: Final = Path(__file__).parents[1] / "testkit" / "graphs" / "langgraph.json"
MARK: Final = "zq7"
"""In every secret below; words of this alphabet do not come by chance into ids or figures."""
HEADERS: Final = {"authorization": f"Bearer {MARK}-bearer", "x-api-key": f"{MARK}-key", "cookie": f"s={MARK}-cookie"}
HOOK_SECRET: Final = f"{MARK}-hook-secret"
DSN_PASSWORD: Final = f"{MARK}-database"
INSIDES: Final = (
    "traceback", "psycopg", "asyncpg", "sqlalchemy", "select ", "insert ", "site-packages", ".py", "/tmp", "/home",
    "postgresql://", "nats://", "127.0.0.1", "$js.", "rpc.", "control_t", "threads_t",
)  # fmt: skip


def with_password(dsn: str, password: str) -> str:
    """The same database, with a password that it does not ask for."""
    parts = urlsplit(dsn)
    return parts._replace(netloc=f"{parts.username}:{password}@{parts.hostname}:{parts.port}").geturl()


@pytest.fixture
def talkative(stack: Stack) -> Stack:
    """A stack with secrets in its settings, which logs all it has to say."""
    stack.config, stack.dsn = GRAPHS, with_password(stack.dsn, DSN_PASSWORD)
    stack.settings |= {
        "slipstream_log_level": "debug", "slipstream_webhook_secret": HOOK_SECRET,
        "slipstream_webhook_allow_private": "1",
    }  # fmt: skip
    return stack.start()


async def use(http: httpx.AsyncClient, hook: str) -> None:
    """Requests of every kind, good and bad, with secrets wherever there is room."""
    thread, secret = new_thread(), f"{MARK}-payload"
    said = {"messages": [{"role": "human", "content": secret}]}
    run = {"assistant_id": "chat", "input": said, "metadata": {"note": secret}, "context": {"token": secret}}
    (await http.post("/threads", json={"thread_id": thread, "metadata": {"note": secret}})).raise_for_status()
    hooked = {**run, "webhook": f"{hook}&token={MARK}-in-url"}
    (await http.post(f"/threads/{thread}/runs/wait", json=hooked)).raise_for_status()
    (
        await http.post(f"/threads/{thread}/runs/wait", json={**run, "webhook": f"http://127.0.0.1:1/{MARK}"})
    ).raise_for_status()
    (await http.post(f"/threads/{thread}/state", json={"values": said})).raise_for_status()
    item = {"namespace": ["n"], "key": "k", "value": {"text": secret}}
    (await http.put("/store/items", json=item)).raise_for_status()
    for method, path, body in (
        ("POST", "/threads", f'{{"metadata": "{secret}"'),
        ("POST", "/threads", json.dumps({"metadata": secret})),
        ("POST", "/threads", json.dumps({"thread_id": f"{MARK}.{MARK}"})),
        ("POST", f"/threads/{thread}/runs", json.dumps({**run, "assistant_id": secret})),
        ("POST", f"/threads/{thread}/runs", json.dumps({**run, "webhook": f"ftp://u:{secret}@x/"})),
        ("POST", f"/threads/{thread}/state", json.dumps({"values": {"messages": secret}})),
        ("POST", f"/threads/{thread}/state", json.dumps({"values": said, "as_node": secret})),
        ("POST", f"/threads/{thread}/state", json.dumps({"values": [secret]})),
        ("POST", f"/threads/{thread}/state", json.dumps({"values": {"messages": [{"role": secret}]}})),
        ("POST", f"/threads/{thread}/runs/wait", json.dumps({**run, "input": [secret]})),
        ("POST", f"/threads/{thread}/runs/wait", json.dumps({**run, "input": {"messages": [{"role": secret}]}})),
        ("POST", f"/threads/{thread}/commands", json.dumps({"id": 1, "method": "run.start", "params": {"x": secret}})),
        ("POST", "/threads/search", json.dumps({"metadata": {"note": secret}, "sort_by": secret})),
        ("GET", f"/threads/{thread}?token={secret}", None),
        ("GET", f"/nowhere?token={secret}", None),
        ("DELETE", f"/threads/{thread}?token={secret}", None),
    ):
        await http.request(method, path, content=body, headers={"content-type": "application/json"})


async def test_logs_hold_no_secrets_and_no_payloads(talkative: Stack) -> None:
    async with Receiver() as receiver, httpx.AsyncClient(base_url=talkative.url, headers=HEADERS, timeout=30) as http:
        await use(http, receiver.url)
        url = talkative.url.replace("http", "ws") + f"/threads/{new_thread()}/stream?token={MARK}-query"
        async with connect(url, additional_headers=HEADERS) as socket:
            await socket.send(json.dumps({"id": 1, "method": f"{MARK}", "params": {"a": MARK}}))
            await socket.recv()
            await socket.send(f"{{{MARK}")
            await socket.recv()
        await until(lambda: bool(receiver.deliveries), what="the webhook")
    for service in talkative.services:
        service.terminate()
    await asyncio.gather(*(service.ended() for service in talkative.services))
    told = [
        f"{service.name}: {line}"
        for service in talkative.services
        for line in service.log_text().splitlines()
        if MARK in line or permitted.PASSWORD in line
    ]
    assert not told, "\n".join(told)


async def test_answers_without_the_database_show_nothing_of_the_inside(stack: Stack, tmp_path: Path) -> None:
    """Errors name what is wrong for the caller; what it looks like inside is for the log."""
    await asyncio.to_thread(stack.start)
    async with Client(stack.url) as client:
        thread = new_thread()
        await client.http.post("/threads", json={"thread_id": thread})
        import psycopg

        with psycopg.connect(stack.dsn, autocommit=True) as admin:
            admin.execute("ALTER TABLE threads RENAME TO gone")
            admin.execute("ALTER TABLE assistants RENAME TO gone_too")
        answers = [
            await client.http.post("/threads/search", json={}),
            await client.http.get(f"/threads/{thread}/runs"),
            await client.http.post("/assistants/search", json={}),
            await client.http.get("/assistants/nobody"),
            await client.http.get(f"/threads/{thread}/state"),
        ]
        assert {answer.status_code for answer in answers} >= {500}
        for runner in stack.runners:
            runner.kill()
        answers += [
            await client.http.get("/store/items", params={"namespace": "n", "key": "k"}),
            await client.http.delete(f"/threads/{thread}"),
        ]
        database = urlsplit(stack.dsn).path[1:]
        with psycopg.connect(stack.dsn.rsplit("/", 1)[0] + "/postgres", autocommit=True) as admin:
            admin.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false'.encode())
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname=%s", (database,))
            answers += [
                await client.http.post("/assistants/search", json={}),
                await client.http.post("/threads/count", json={}),
            ]
            admin.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true'.encode())
    assert {answer.status_code for answer in answers} >= {500, 503}
    shown = [f"{answer.request.url.path} {answer.status_code} {answer.text}" for answer in answers]
    told = [text for text in shown for inside in INSIDES if answer_has(text, inside, database)]
    assert not told, "\n".join(told)


def answer_has(text: str, inside: str, database: str) -> bool:
    """Whether an answer shows it, whatever the case."""
    body = text.split(" ", 2)[2].lower()
    return inside in body or database in body
