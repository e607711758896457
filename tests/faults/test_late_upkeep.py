"""A runner that is slow amid what it does to a thread outside of runs, while somebody else does something else to it.

It is slow where it takes the lease, and meanwhile the thread is deleted and its id given to another one: what it then
still does must not reach the namesake. Or where it stores a checkpoint, and meanwhile the thread's older ones go. The
words for it are held on their way.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from slipstream_nats.controllog import Decision
from slipstream_runner import upkeep
from slipstream_runner.graphs import Graphs
from slipstream_runner.main import open_runtime
from slipstream_runner.pruning import PruneQuestion, keep_latest
from slipstream_runner.runtime import Runtime, now_ms
from slipstream_runner.settling import settle
from slipstream_runner.states import StateQuestion, read_state
from slipstream_runner.store_settings import load_store_settings
from slipstream_runner.updates import Update, Updated, UpdateQuestion, update_state
from slipstream_schemas import thread_life
from slipstream_schemas.errors import SlipstreamError
from slipstream_schemas.settings import ServiceSettings
from slipstream_schemas.subjects import Scope
from slipstream_schemas.upkeep import EraseThread
from testkit import permitted
from testkit.client import Client, new_thread
from testkit.proxy import Proxy
from testkit.stack import Stack
from testkit.wait import until

DEADLINE_S: Final = 100
WAITING: Final = "SELECT 1 FROM pg_stat_activity WHERE datname=current_database() AND wait_event_type='Lock'"
NOTED: Final = """
from typing import TypedDict

from langgraph.graph import START, StateGraph


class Noted(TypedDict, total=False):
    items: list[int]
    note: str


graph = StateGraph(Noted).add_node("step", lambda state: {}).add_edge(START, "step").compile()
"""
TENANT: Final = "default"


class Hands:
    """A runner's, in this process; `begins` lets them be slow where they take a lease."""

    def __init__(self, runtime: Runtime, proxy: Proxy) -> None:
        self.runtime, self._proxy = runtime, proxy
        self.scope = Scope(runtime.settings.region, TENANT)

    async def begins(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Let them work, up to where they take the lease."""
        self._proxy.hold_at = b"HPUB leases."
        task = asyncio.create_task(work)
        await until(lambda: self._proxy.is_holding, what="it takes the lease")
        return task

    async def goes_on(self, task: "asyncio.Task[Any]") -> None:
        """Let them do the rest, whatever they make of it."""
        self._proxy.let_go()
        await asyncio.wait({task})
        error = task.exception()
        assert error is None or isinstance(error, SlipstreamError), error

    async def delete(self, thread_id: str) -> None:
        """The first tombstone, as an API writes it that is killed behind it."""
        await self._decide(thread_id, lambda state: thread_life.delete_thread(state, "deleted", now_ms()))

    async def erase(self, thread_id: str) -> None:
        """Take the deletion up and end it."""
        await upkeep.erase(self.runtime, EraseThread(TENANT, thread_id))
        await self._decide(thread_id, lambda state: thread_life.erase_thread(state, "erased", now_ms()))

    async def _decide(self, thread_id: str, decision: Decision) -> None:
        await self.runtime.control.decide(self.scope, thread_id, decision)


@asynccontextmanager
async def hands(stack: Stack, dsn: str = "") -> AsyncGenerator[Hands]:
    """A runner's of the stack's region and graphs."""
    async with Proxy(stack.nats_url) as proxy, asyncio.timeout(DEADLINE_S):
        settings = ServiceSettings(
            nats_url=permitted.url_of(proxy.url, "runner", stack.region), database_url=dsn or stack.dsn,
            region=stack.region,
        )  # fmt: skip
        runtime = await open_runtime(settings, Graphs.load(stack.config), load_store_settings(stack.config))
        try:
            yield Hands(runtime, proxy)
        finally:
            await runtime.connection.close()
            await runtime.stores.close()
            await runtime.checkpoints.close()
            await runtime.database.close()


async def create(client: Client, thread_id: str) -> None:
    """The id is free, and the new thread's from here on."""
    answer = await client.http.post("/threads", json={"thread_id": thread_id})
    assert answer.status_code == 200, answer.text


async def test_a_late_erasure_leaves_the_namesake_what_it_has(stack: Stack) -> None:
    thread_id = new_thread()
    await asyncio.to_thread(stack.start)
    async with hands(stack) as late, hands(stack) as prompt, Client(stack.url) as client:
        await create(client, thread_id)
        await prompt.delete(thread_id)
        erasing = await late.begins(upkeep.erase(late.runtime, EraseThread(TENANT, thread_id)))
        await prompt.erase(thread_id)
        await create(client, thread_id)
        await client.start(thread_id, "counter", {"steps": 3})
        whole = await client.run_events(thread_id)
        await late.goes_on(erasing)
        last = await late.runtime.threads.last_seq(late.scope, thread_id)
        assert last == whole[-1].seq >> 8
        assert (await client.http.get(f"/threads/{thread_id}/state")).json()["values"]["count"] == 3


async def test_a_late_end_of_an_erasure_leaves_the_namesake_its_state(stack: Stack) -> None:
    """The log is erased; the checkpoints are still to go."""
    thread_id = new_thread()
    await asyncio.to_thread(stack.start)
    async with (
        Proxy(stack.dsn) as proxy,
        hands(stack, proxy.url) as late,
        hands(stack) as prompt,
        Client(stack.url) as client,
    ):
        await create(client, thread_id)
        await prompt.delete(thread_id)
        proxy.hold_at = b"FOR UPDATE"
        erasing = asyncio.create_task(upkeep.erase(late.runtime, EraseThread(TENANT, thread_id)))
        await until(lambda: proxy.is_holding, what="it is about to delete the checkpoints")
        await prompt.erase(thread_id)
        await create(client, thread_id)
        await client.start(thread_id, "counter", {"steps": 3})
        await client.run_events(thread_id)
        proxy.let_go()
        await erasing
        assert (await client.http.get(f"/threads/{thread_id}/state")).json()["values"]["count"] == 3


async def test_a_state_that_is_written_to_a_deleted_thread_is_not_its_namesakes(stack: Stack) -> None:
    thread_id = new_thread()
    await asyncio.to_thread(stack.start)
    async with hands(stack) as late, hands(stack) as prompt, Client(stack.url) as client:
        await create(client, thread_id)
        question = UpdateQuestion("counter", TENANT, thread_id, "late", [[Update({"count": 77}, "step")]])
        writing = await late.begins(update_state(late.runtime, question))
        await prompt.delete(thread_id)
        await prompt.erase(thread_id)
        await late.goes_on(writing)
        await create(client, thread_id)
        await client.start(thread_id, "counter", {"steps": 1})
        await client.run_events(thread_id)
        assert (await client.http.get(f"/threads/{thread_id}/state")).json()["values"]["count"] == 1


async def test_what_a_deleted_thread_owes_is_not_told_in_its_namesakes_log(stack: Stack) -> None:
    thread_id = new_thread()
    await asyncio.to_thread(stack.start)
    stack.runners[0].terminate()
    await until(lambda: not stack.runners)
    async with hands(stack) as late, hands(stack) as prompt, Client(stack.url) as client:
        await create(client, thread_id)
        body = {"assistant_id": "counter", "input": {"steps": 1}, "after_seconds": 3600}
        run = (await client.http.post(f"/threads/{thread_id}/runs", json=body)).json()
        cancel = await client.http.post(f"/threads/{thread_id}/runs/{run['run_id']}/cancel")
        assert cancel.is_success, cancel.text
        settling = await late.begins(settle(late.runtime, late.scope, thread_id))
        await prompt.delete(thread_id)
        await prompt.erase(thread_id)
        await create(client, thread_id)
        await late.goes_on(settling)
        last = await late.runtime.threads.last(late.scope, thread_id)
        assert last is None or last.header.run_id != run["run_id"]


async def test_a_prune_takes_nothing_from_a_state_that_is_being_written(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "noted.py").write_text(NOTED)
    stack.config = tmp_path / "langgraph.json"
    stack.config.write_text(json.dumps({"dependencies": ["."], "graphs": {"noted": "./noted.py:graph"}}))
    await asyncio.to_thread(stack.start)
    thread_id = new_thread()

    async def write(by: Hands, values: dict[str, Any], **where: Any) -> Updated:
        steps = [[Update(values, "step")]]
        return await update_state(
            by.runtime, UpdateQuestion("noted", TENANT, thread_id, str(values), steps, checkpoint=where)
        )

    async with (
        Proxy(stack.dsn) as proxy,
        hands(stack, proxy.url) as late,
        hands(stack) as prompt,
        Client(stack.url) as client,
    ):
        await create(client, thread_id)
        first = await write(prompt, {"items": [1]})
        await write(prompt, {"items": [2]})
        proxy.hold_at = b"INSERT INTO checkpoint"
        checkpoint_id = first.configurable["checkpoint_id"]
        writing = asyncio.create_task(write(late, {"note": "forked"}, checkpoint_id=checkpoint_id))
        await until(lambda: proxy.is_holding)
        pruning = asyncio.create_task(keep_latest(prompt.runtime, PruneQuestion("noted", TENANT, thread_id)))

        async def is_stopped() -> bool:
            async with prompt.runtime.database.connection() as connection:
                return pruning.done() or await connection.fetchval(WAITING) is not None

        await until(is_stopped)
        proxy.let_go()
        await writing
        assert await pruning
        state = await read_state(prompt.runtime, StateQuestion("noted", TENANT, thread_id))
        assert state["values"] == {"items": [1], "note": "forked"}
