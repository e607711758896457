"""A runner that is slow in erasing a deleted thread: another has erased it meanwhile, and its id is used again."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from slipstream_api import erasing
from slipstream_api.app import opened
from slipstream_nats.controllog import ControlLog, Head
from slipstream_nats.threadlog import ThreadLog
from slipstream_runner import upkeep
from slipstream_schemas import thread_life
from slipstream_schemas.errors import SlipstreamError
from slipstream_schemas.settings import ServiceSettings
from slipstream_schemas.subjects import Scope
from slipstream_schemas.upkeep import EraseThread
from testkit.client import Client, new_thread
from testkit.stack import Stack

DEADLINE_S = 60.0
COUNT: dict[str, Any] = {"steps": 2, "delay_s": 0}


class Gate:
    """Where the slow one stands, until it is let go."""

    def __init__(self) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def passed(self) -> None:
        """Stand here."""
        self.reached.set()
        await self.opened.wait()


class SlowHead(ControlLog):
    """Its reader is slow to act on what it has read."""

    gate: Gate

    async def head(self, scope: Scope, thread_id: str) -> Head:
        """As the control log's."""
        found = await super().head(scope, thread_id)
        await self.gate.passed()
        return found


class SlowErase(ThreadLog):
    """Its caller is slow to go on behind it."""

    gate: Gate

    async def erase(self, scope: Scope, thread_id: str, fence: int) -> None:
        """As the thread log's."""
        await super().erase(scope, thread_id, fence)
        await self.gate.passed()


@pytest.mark.parametrize("place", ["control", "threads"])
async def test_a_late_erasure_leaves_the_next_thread_of_the_id_alone(stack: Stack, place: str) -> None:
    await asyncio.to_thread(stack.start)
    thread_id, scope = new_thread(), Scope(stack.region)
    settings = ServiceSettings(nats_url=stack.nats_url, database_url=stack.dsn, region=stack.region)
    async with asyncio.timeout(DEADLINE_S), Client(stack.url) as client, opened(settings) as context:
        await client.start(thread_id, "counter", COUNT)
        await client.run_events(thread_id)
        await context.control.decide(scope, thread_id, lambda state: thread_life.delete_thread(state, "gone", 0))
        slow: Any = {"control": SlowHead, "threads": SlowErase}[place](
            context.connection, context.publisher, stack.region
        )
        gate = slow.gate = Gate()
        parts = {name: getattr(context, name) for name in ("connection", "publisher", "database", "control", "threads")}
        runtime: Any = SimpleNamespace(**{**parts, place: slow}, settings=settings, holder="late")
        late = asyncio.create_task(upkeep.erase(runtime, EraseThread(scope.tenant, thread_id)))
        await gate.reached.wait()
        await erasing.erase(context.by_itself(scope.tenant), thread_id)
        await client.start(thread_id, "counter", COUNT)
        events = await client.run_events(thread_id)
        gate.opened.set()
        (ended,) = await asyncio.gather(late, return_exceptions=True)
        assert ended is None or isinstance(ended, SlipstreamError)
        state = (await client.http.get(f"/threads/{thread_id}/state")).json()
        assert state["values"]["count"] == COUNT["steps"]
        assert await client.run_events(thread_id, since=0) == events
