"""Streams of a client are answered in the order in which it asks for them, whatever `authenticate` takes for each."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from langgraph_sdk import get_client

from testkit.client import Client, new_thread
from testkit.sdk import DEADLINE_S, all_of
from testkit.servers import NatsServer
from testkit.stack import REPOSITORY, Stack, fresh_stack
from testkit.wait import until

RULES: Final = """
import asyncio
from pathlib import Path
from langgraph_sdk import Auth

auth = Auth()
asked = {}
HERE = Path(__file__).parent

@auth.authenticate
async def authenticate(path, headers):
    if path.endswith("/stream/events"):
        asked[path] = asked.get(path, 0) + 1
        if asked[path] == 2:
            await asyncio.sleep(0.3)  # The first stream of content, behind the watcher: it takes longer for that one.
    if name := headers.get(b"x-name"):
        (HERE / name.decode()).touch()
        while name == b"first" and not (HERE / "gate").exists():
            await asyncio.sleep(0.01)
    return {"identity": "ann"}
"""
ORDERED: Final = 5


@pytest.fixture(scope="module")
def ruled(nats_server: NatsServer, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack with the rules above."""
    root = tmp_path_factory.mktemp("ordered")
    (root / "rules.py").write_text(RULES)
    config = {
        "graphs": {"counter": f"{REPOSITORY}/examples/graphs/counter.py:graph"}, "auth": {"path": "./rules.py:auth"}
    }  # fmt: skip
    (root / "langgraph.json").write_text(json.dumps(config))
    with fresh_stack(nats_server.url, postgres_dsn, root, root / "langgraph.json") as opened:
        yield opened.start()


@pytest.fixture
def folder(ruled: Stack) -> Path:
    """Where the rules look for their gates."""
    return ruled.config.parent


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_iterators_that_start_together_all_end(ruled: Stack, transport: Literal["sse", "websocket"]) -> None:
    """The stock SDK closes a stream when a wider one is answered, and hangs if its own answer is still to come."""
    sdk = get_client(url=ruled.url)
    for _ in range(ORDERED):
        async with (
            asyncio.timeout(DEADLINE_S),
            sdk.threads.stream(assistant_id="counter", transport=transport) as thread,
        ):
            await thread.run.start(input={"steps": 3, "delay_s": 0.01})
            values, progress = await asyncio.gather(all_of(thread.values), all_of(thread.extensions["progress"]))
            assert values[-1]["count"] == len(progress) == 3


async def test_an_answer_waits_for_the_one_before_it_and_no_longer_than_it_must(ruled: Stack, folder: Path) -> None:
    thread_id, answered = new_thread(), list[str]()

    async def ask(name: str, **others: str) -> None:
        body, headers = {"channels": ["values"]}, {"x-name": name, **others}
        async with client.http.stream("POST", f"/threads/{thread_id}/stream/events", json=body, headers=headers):
            answered.append(name)
            await asyncio.Event().wait()

    async with Client(ruled.url) as client, asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[Any]] = [group.create_task(ask("first"))]
        await until((folder / "first").exists)
        # An `authenticate` that does not end holds its own client up for `STREAM_ORDER_WAIT_S`.
        tasks.append(group.create_task(ask("second")))
        await until((folder / "second").exists)
        tasks.append(group.create_task(ask("other", **{"x-api-key": "k"})))
        await until(lambda: answered == ["other", "second"], what="somebody else is answered, then the second")
        (folder / "gate").touch()
        await until(lambda: answered[2:] == ["first"])
        for task in tasks:
            task.cancel()
