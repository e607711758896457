"""Checkpoints are refused for whoever is not the newest holder of the lease, and rolled back by run."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.base import empty_checkpoint

from slipstream_postgres import fences
from slipstream_postgres.pool import Database, open_database
from slipstream_runner.checkpoints import FencedSaver, Pool, open_pool, set_up, setting_up
from slipstream_runner.undoing import forget_run, remember
from slipstream_schemas.errors import Fenced, Unavailable
from slipstream_schemas.limits import TRANSACTION_DEADLINE_S
from slipstream_schemas.subjects import Scope, thread_key

SCOPE = Scope()
KEY = thread_key(SCOPE, "t")


@pytest.fixture
async def pool(database_dsn: str) -> AsyncIterator[Pool]:
    opened = await open_pool(database_dsn, 4)
    await set_up(opened)
    yield opened
    await opened.close()


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[Database]:
    opened = await open_database(database_dsn)
    yield opened
    await opened.close()


async def put(saver: FencedSaver, run_id: str = "r") -> Any:
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}, "metadata": {"run_id": run_id}}
    metadata: Any = {"source": "input", "step": 1, "parents": {}, "run_id": run_id}
    return await saver.aput(config, empty_checkpoint(), metadata, {})


async def count(pool: Pool) -> int:
    async with pool.connection() as opened:
        row = await (await opened.execute("select count(*) as n from checkpoints")).fetchone()
    assert row is not None
    return int(row["n"])


async def test_a_late_holder_writes_nothing(pool: Pool, database: Database) -> None:
    old, new = FencedSaver(pool, SCOPE, "t", 1), FencedSaver(pool, SCOPE, "t", 2)
    assert await fences.advance(database, KEY, 1)
    stored = await put(old)
    assert stored["configurable"]["thread_id"] == "t", "graphs see the plain id"
    assert await fences.advance(database, KEY, 2)
    assert not await fences.advance(database, KEY, 1)
    with pytest.raises(Fenced):
        await put(old)
    with pytest.raises(Fenced):
        await old.aput_writes(stored, [("steps", "x")], "task")
    with pytest.raises(Fenced):
        await remember(pool, SCOPE, "t", "r", "", 1)
    with pytest.raises(Fenced):
        await forget_run(pool, SCOPE, "t", "r", 1)
    assert await count(pool) == 1
    await put(new)
    assert await count(pool) == 2


async def test_a_graph_that_gets_hold_of_its_checkpointer_reaches_its_own_thread_alone(
    pool: Pool, database: Database
) -> None:
    other = Scope(tenant="other")
    for scope in (SCOPE, other):
        await fences.advance(database, thread_key(scope, "t"), 1)
        await put(FencedSaver(pool, scope, "t", 1), run_id=scope.tenant)
    saver = FencedSaver(pool, SCOPE, "t", 1)
    for thread_id in ("t", "other/t", thread_key(other, "t")):
        named: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
        found = [await saver.aget_tuple(named), *[each async for each in saver.alist(named)]]
        assert [each.metadata.get("run_id") for each in found if each is not None] == ["default", "default"]
    assert [each.metadata.get("run_id") async for each in saver.alist(None)] == ["default"]
    for refused in (
        saver.adelete_thread("other/t"), saver.aprune(["other/t"], strategy="delete"),
        saver.acopy_thread("other/t", "t"), saver.adelete_for_runs(["other"]),
    ):  # fmt: skip
        with pytest.raises(NotImplementedError):
            await refused
    assert await count(pool) == 2


@pytest.mark.parametrize(
    ("error", "kept"), [(asyncio.CancelledError(), []), (ValueError("no"), ["__error__", "__error_source_node__"])]
)
async def test_what_a_task_wrote_before_it_stopped_is_no_result(
    pool: Pool, database: Database, error: BaseException, kept: list[str]
) -> None:
    await fences.advance(database, KEY, 1)
    saver = FencedSaver(pool, SCOPE, "t", 1)
    stored = await put(saver)
    writes = [("steps", ["x"]), ("__error__", error), ("__error_source_node__", "node")]
    await saver.aput_writes(stored, writes, "task")
    found = await saver.aget_tuple(stored)
    assert found is not None
    assert sorted(channel for _, channel, _ in found.pending_writes or ()) == kept


async def test_a_rollback_deletes_one_run(pool: Pool, database: Database) -> None:
    await fences.advance(database, KEY, 1)
    saver = FencedSaver(pool, SCOPE, "t", 1)
    await put(saver, "kept")
    await put(saver, "gone")
    await forget_run(pool, SCOPE, "t", "gone", 1)
    found = await saver.aget_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": ""}})
    assert found is not None
    assert (await count(pool), found.metadata.get("run_id")) == (1, "kept")


async def test_a_closed_pool_is_unavailable_and_no_fault_of_the_graph(database_dsn: str) -> None:
    opened = await open_pool(database_dsn, 1)
    await set_up(opened)
    await opened.close()
    with pytest.raises(Unavailable):
        await put(FencedSaver(opened, SCOPE, "t", 1))


async def test_runners_that_start_together_set_up_together(database_dsn: str) -> None:
    """Indexes are created concurrently, which waits for every other statement, one that waits for a lock included."""
    pools = [await open_pool(database_dsn, 2) for _ in range(5)]
    await asyncio.gather(*(set_up(each) for each in pools))
    assert await count(pools[0]) == 0
    for each in pools:
        await each.close()


async def shown(connection: Any) -> str:
    row = await (await connection.execute("SHOW transaction_timeout")).fetchone()
    return str(row["transaction_timeout"])


async def test_a_frozen_runner_holds_its_fence_for_a_bounded_time(pool: Pool) -> None:
    """A successor waits for the row of the fence; only the server can end the transaction of who stands still."""
    async with setting_up(pool) as connection:
        assert await shown(connection) == "0", "indexes may take as long as they take"
    async with pool.connection() as connection:
        assert await shown(connection) == f"{TRANSACTION_DEADLINE_S:.0f}s"
        with pytest.raises(psycopg.errors.TransactionTimeout):
            await hold_a_transaction(connection)


async def hold_a_transaction(connection: Any) -> None:
    await connection.execute("SELECT set_config('transaction_timeout', '50ms', false)")
    async with connection.transaction():
        await connection.execute("SELECT pg_sleep(30)")
