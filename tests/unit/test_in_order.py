"""What waits for the answers to earlier requests of its client: streams and sockets of a thread, nothing else."""

import asyncio
from typing import Any

import pytest

from slipstream_api.in_order import InOrder

TURNS = 20


@pytest.mark.parametrize(
    ("kind", "path", "waits"),
    [
        ("POST", "/threads/t/stream/events", True),
        ("POST", "/threads/t/stream", True),
        ("websocket", "/threads/t/stream/events", True),
        ("GET", "/threads/t/stream", False),
        ("POST", "/threads/t/runs/stream", False),
        ("POST", "/runs/stream", False),
        ("POST", "/threads/t/commands", False),
    ],
)
async def test_an_answer_waits_for_the_one_before(kind: str, path: str, waits: bool) -> None:
    gate, answered = asyncio.Event(), list[str]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["name"] == "first":
            await gate.wait()
        await send({"type": "websocket.accept" if kind == "websocket" else "http.response.start"})

    ordered: Any = InOrder(app)

    async def ask(name: str) -> None:
        async def send(message: Any) -> None:
            answered.append(name)

        what = {"type": "websocket"} if kind == "websocket" else {"type": "http", "method": kind}
        await ordered({**what, "path": path, "headers": [], "client": ("a", 1), "name": name}, None, send)

    async with asyncio.TaskGroup() as group:
        group.create_task(ask("first"))
        group.create_task(ask("second"))
        for _ in range(TURNS):
            await asyncio.sleep(0)
        assert answered == ([] if waits else ["second"])
        gate.set()
    assert answered == (["first", "second"] if waits else ["second", "first"])
