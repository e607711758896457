"""Record the golden log of a version: what one thread writes into both streams when everything happens to it.

    PYTHONPATH=tests python tests/golden/record.py tests/golden/1

Run it once, when a schema version is released; what it wrote is never changed again.
"""

import asyncio
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from slipstream_api.app import opened
from slipstream_api.context import Context
from slipstream_api.erasing import erase
from slipstream_api.runs import now_ms
from slipstream_api.upkeep import trim
from slipstream_nats.embedded import start_nats
from slipstream_nats.stored import StoredMessage, next_of_subject
from slipstream_postgres.embedded import start_postgres
from slipstream_schemas import thread_life
from slipstream_schemas.ids import new_run_id
from slipstream_schemas.record import RECORD_HEADER, TRANSITION_HEADER
from slipstream_schemas.settings import ServiceSettings
from slipstream_schemas.subjects import control, control_stream, thread_log, threads_stream
from testkit.client import Client
from testkit.stack import Stack
from testkit.wait import until

THREAD = "golden"
SAY = {"messages": [{"role": "user", "content": "Lisbon?"}]}
LONG = {"steps": 10_000, "delay_s": 0.02}


async def live_through(stack: Stack, client: Client) -> None:
    """All that can happen to a thread, but for its end."""
    path = f"/threads/{THREAD}"

    async def sent(method: str, where: str, body: Any = None) -> Any:
        answer = await client.http.request(method, where, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    async def is_running() -> bool:
        return bool((await client.http.get(f"{path}/runs")).json()[0]["status"] == "running")

    await sent("POST", "/threads", {"thread_id": THREAD, "metadata": {"made": "by hand"}})
    await sent("PATCH", path, {"metadata": {"patched": True}})
    for graph in ("agent", "subgraphs"):
        await sent("POST", f"{path}/runs/wait", {"assistant_id": graph, "input": SAY})
    await sent("POST", f"{path}/runs/wait", {"assistant_id": "approval", "input": {"amount": 1}})
    await sent("POST", f"{path}/runs/wait", {"assistant_id": "approval", "command": {"resume": True}})
    for action in ("interrupt", "rollback"):
        run = await sent("POST", f"{path}/runs", {"assistant_id": "counter", "input": LONG})
        await until(is_running)
        waiting = await sent("POST", f"{path}/runs", {"assistant_id": "counter", "input": LONG})
        for each in (waiting, run):
            await sent("POST", f"{path}/runs/{each['run_id']}/cancel?wait=1&action={action}")
    run = await sent("POST", f"{path}/runs", {"assistant_id": "counter", "input": LONG})
    await until(is_running)
    stack.runners[0].terminate()
    await stack.spawn_runner().ready()
    await until(is_running)
    await sent("POST", f"{path}/runs/{run['run_id']}/cancel?wait=1")
    await sent("DELETE", f"{path}/runs/{run['run_id']}")
    await sent("POST", f"{path}/state", {"values": {"count": 7}, "as_node": "step"})


async def read(context: Context, stream: str, subject: str, begin: int = 1) -> list[StoredMessage]:
    """All messages of a subject."""
    out: list[StoredMessage] = []
    while (found := await next_of_subject(context.connection, stream, subject, begin)) is not None:
        out.append(found)
        begin = found.stream_seq + 1
    return out


def write(path: Path, messages: list[StoredMessage], header: str) -> None:
    """A line for each message."""
    lines = [
        msgspec.json.encode({"seq": each.stream_seq, "at_ms": each.timestamp_ms, "header": each.headers[header],
                             "body": each.body.decode()})
        for each in messages
    ]  # fmt: skip
    path.write_bytes(b"\n".join(lines) + b"\n")


async def record(stack: Stack, folder: Path) -> None:
    """Write both files."""
    await asyncio.to_thread(lambda: stack.start(slipstream_drain_grace_s="0.1"))
    settings = ServiceSettings(nats_url=stack.nats_url, database_url=stack.dsn, region=stack.region)
    async with Client(stack.url) as client, opened(settings) as process:
        await live_through(stack, client)
        context = process.by_itself("default")
        threads, transitions = threads_stream(stack.region), control_stream(stack.region)
        write(folder / "threads.jsonl", await read(context, threads, thread_log(context.scope, THREAD)), RECORD_HEADER)
        await trim(context, THREAD, datetime.now(UTC) - timedelta(seconds=1))
        subject = control(context.scope, THREAD)
        await context.control.decide(
            context.scope, THREAD, lambda state: thread_life.delete_thread(state, new_run_id(), now_ms())
        )
        life = await read(context, transitions, subject)
        await erase(context, THREAD)
        life += await read(context, transitions, subject, life[-1].stream_seq + 1)
        write(folder / "control.jsonl", life, TRANSITION_HEADER)


def main() -> None:
    """Record."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        nats, postgres = start_nats(root / "nats"), start_postgres(root / "postgres")
        try:
            with Stack(nats.url, postgres.dsn, "local", root / "stack") as stack:
                stack.prepare()
                asyncio.run(record(stack, folder))
        finally:
            nats.stop()
            postgres.stop()


if __name__ == "__main__":
    main()
