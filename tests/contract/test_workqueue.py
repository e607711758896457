"""The work queue: each run with one holder, kept by heartbeats, returned when its holder is gone."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from slipstream_nats.connection import Connection, connect
from slipstream_nats.provision import StreamSettings, provision
from slipstream_nats.publisher import open_publisher
from slipstream_nats.workqueue import WorkItem, WorkPuller, WorkQueue, heartbeat
from slipstream_schemas.run_state import PendingRun, RunningRun, ThreadState
from slipstream_schemas.subjects import Scope, control_stream, work
from testkit.servers import NatsServer
from testkit.wait import DEADLINE_S, until

ACK_WAIT_S = 1.0


@pytest.fixture
def region(region: str) -> str:
    return f"{region}w"


@pytest.fixture
async def connection(nats_server: NatsServer, region: str) -> AsyncIterator[Connection]:
    """With a short `ack_wait`, since these tests outlast it."""
    opened = await connect(nats_server.url, "test")
    await provision(opened, region, StreamSettings(ack_wait_s=ACK_WAIT_S))
    yield opened
    await opened.close()


@pytest.fixture
async def queue(connection: Connection, region: str) -> WorkQueue:
    return WorkQueue(await open_publisher(connection), region)


@pytest.fixture
async def open_puller(connection: Connection, region: str) -> AsyncIterator[Callable[[], Awaitable[WorkPuller]]]:
    pullers: list[WorkPuller] = []

    async def opened() -> WorkPuller:
        puller = WorkPuller(connection, region)
        await puller.open()
        pullers.append(puller)
        return puller

    yield opened
    for puller in pullers:
        await puller.close()


@pytest.fixture
async def puller(open_puller: Callable[[], Awaitable[WorkPuller]]) -> WorkPuller:
    return await open_puller()


async def pull(puller: WorkPuller, count: int, free: int | None = None) -> list[WorkItem]:
    """The next `count` runs; each pull asks for as many as are missing, or for `free`."""
    items: list[WorkItem] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(items) < count:
            items += await puller.pull(free or count - len(items))
    return items


async def unsettled(connection: Connection, region: str) -> tuple[int, int]:
    """How many items wait, and how many are held."""
    info = await connection.api(f"CONSUMER.INFO.{control_stream(region)}.work", {})
    return info["num_pending"], info["num_ack_pending"]


async def test_a_run_is_delivered_once_and_gone_when_acknowledged(
    queue: WorkQueue, puller: WorkPuller, connection: Connection, scope: Scope
) -> None:
    for _ in range(3):
        await queue.put(scope, "thread-1", "run-1")
    (item,) = await pull(puller, 1)
    assert (item.scope, item.thread_id, item.run_id) == (scope, "thread-1", "run-1")
    await item.ack()
    assert await unsettled(connection, scope.region) == (0, 0)


async def test_threads_and_tenants_may_share_run_ids(queue: WorkQueue, puller: WorkPuller, scope: Scope) -> None:
    other = Scope(scope.region, "other")
    await queue.put(scope, "thread-1", "run-1")
    await queue.put(other, "thread-1", "run-1")
    assert {item.scope for item in await pull(puller, 2)} == {scope, other}


async def test_only_a_run_that_may_execute_now_is_queued(queue: WorkQueue, puller: WorkPuller, scope: Scope) -> None:
    first, second = PendingRun("run-1", 1, "g"), PendingRun("run-2", 2, "g")
    running = RunningRun("run-0", 1, "g", attempt=1, holder="runner", fence=7)
    await queue.put_next(scope, "thread-1", ThreadState("thread-1"))
    await queue.put_next(scope, "thread-1", ThreadState("thread-1", running=running, pending=(second,)))
    await queue.put_next(scope, "thread-1", ThreadState("thread-1", pending=(first, second)))
    assert [item.run_id for item in await puller.pull(5)] == ["run-1"]


async def test_a_swept_run_is_queued_again(queue: WorkQueue, puller: WorkPuller, scope: Scope) -> None:
    await queue.put(scope, "thread-1", "run-1")
    (item,) = await pull(puller, 1)
    await item.ack()
    await queue.put(scope, "thread-1", "run-1", again=":attempt-2")
    assert [item.run_id for item in await pull(puller, 1)] == ["run-1"]


async def test_no_more_is_pulled_than_there_are_slots(
    queue: WorkQueue, puller: WorkPuller, connection: Connection, scope: Scope
) -> None:
    for count in range(10):
        await queue.put(scope, f"thread-{count}", f"run-{count}")
    first = await pull(puller, 3)
    assert len(first) == 3
    assert await unsettled(connection, scope.region) == (7, 3)
    await first[0].ack()
    second = await pull(puller, 1)
    assert await unsettled(connection, scope.region) == (6, 3)
    assert [item.run_id for item in first + second] == ["run-0", "run-1", "run-2", "run-3"]


async def test_slots_that_open_later_are_asked_for_beside_an_open_request(
    queue: WorkQueue, puller: WorkPuller, connection: Connection, scope: Scope
) -> None:
    assert await puller.pull(1) == []
    waiting = asyncio.create_task(pull(puller, 4))
    for count in range(6):
        await queue.put(scope, f"thread-{count}", f"run-{count}")
    taken = await waiting
    assert len(taken) == 4
    await until(lambda: _is(unsettled(connection, scope.region), (2, 4)))


async def _is(found: Awaitable[tuple[int, int]], wanted: tuple[int, int]) -> bool:
    return await found == wanted


async def test_a_long_queue_drains_in_order(queue: WorkQueue, puller: WorkPuller, scope: Scope) -> None:
    runs = [f"run-{count}" for count in range(200)]
    for run_id in runs:
        await queue.put(scope, run_id, run_id)
    taken: list[str] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(taken) < len(runs):
            for item in await puller.pull(7):
                taken.append(item.run_id)
                await item.ack()
    assert taken == runs


async def test_a_run_handed_back_comes_again_after_the_delay(
    queue: WorkQueue, puller: WorkPuller, scope: Scope
) -> None:
    await queue.put(scope, "thread-1", "run-1")
    (item,) = await pull(puller, 1)
    await item.nak(0.1)
    (again,) = await pull(puller, 1)
    assert again.run_id == "run-1" and again.ack_subject != item.ack_subject


async def test_heartbeats_from_another_thread_keep_a_run_and_their_end_frees_it(
    queue: WorkQueue, puller: WorkPuller, scope: Scope, nats_server: NatsServer
) -> None:
    await queue.put(scope, "thread-1", "run-1")
    (item,) = await pull(puller, 1)
    stop = threading.Event()

    async def beat() -> None:
        own = await connect(nats_server.url, "heartbeats")
        while not stop.is_set():
            await heartbeat(own, item.ack_subject)
            await asyncio.sleep(ACK_WAIT_S / 5)
        await own.close()

    thread = threading.Thread(target=asyncio.run, args=(beat(),))
    thread.start()
    # Each empty pull waits more than two `ack_wait`.
    assert await puller.pull(1) == []
    stop.set()
    thread.join()
    (again,) = await pull(puller, 1)
    assert again.run_id == "run-1"


async def test_two_runners_share_the_queue_and_nothing_is_delivered_twice(
    queue: WorkQueue, open_puller: Callable[[], Awaitable[WorkPuller]], scope: Scope
) -> None:
    runs = [f"run-{count}" for count in range(100)]
    taken: list[str] = []

    async def work_off(puller: WorkPuller) -> None:
        while len(taken) < len(runs):
            for item in await puller.pull(5):
                taken.append(item.run_id)
                await item.ack()

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(work_off(await open_puller()))
        for run_id in runs:
            await queue.put(scope, run_id, run_id)
    assert sorted(taken) == sorted(runs)


async def test_a_closed_puller_leaves_its_runs_to_others_at_once(
    queue: WorkQueue, connection: Connection, region: str, puller: WorkPuller, scope: Scope
) -> None:
    closing = WorkPuller(connection, region)
    await closing.open()
    asking = asyncio.create_task(closing.pull(5))
    await connection.flush()
    await closing.close()
    await queue.put(scope, "thread-1", "run-1")
    assert [item.run_id for item in await pull(puller, 1)] == ["run-1"]
    assert await asking == []


async def test_an_unreadable_item_is_dropped(
    queue: WorkQueue, puller: WorkPuller, connection: Connection, scope: Scope
) -> None:
    publisher = await open_publisher(connection)
    await publisher.publish(work(scope, "thread-1"), b"not JSON")
    await publisher.publish(f"work.{scope.region}.too.many.tokens", b'{"run_id":"x"}')
    await queue.put(scope, "thread-1", "run-1")
    (item,) = await pull(puller, 1, free=1)
    assert item.run_id == "run-1"
    await item.ack()
    await until(lambda: _is(unsettled(connection, scope.region), (0, 0)))


async def test_a_missing_consumer_shows_as_an_empty_queue_until_it_is_back(
    queue: WorkQueue, puller: WorkPuller, connection: Connection, scope: Scope
) -> None:
    await connection.api(f"CONSUMER.DELETE.{control_stream(scope.region)}.work", {})
    await queue.put(scope, "thread-1", "run-1")
    assert await puller.pull(1) == []
    await provision(connection, scope.region, StreamSettings(ack_wait_s=ACK_WAIT_S))
    assert [item.run_id for item in await pull(puller, 1)] == ["run-1"]


async def test_the_queue_goes_on_after_a_restart_of_the_broker(own_nats: NatsServer, region: str, scope: Scope) -> None:
    connection = await connect(own_nats.url, "test")
    await provision(connection, region, StreamSettings(ack_wait_s=ACK_WAIT_S))
    queue, puller = WorkQueue(await open_publisher(connection), region), WorkPuller(connection, region)
    await puller.open()
    await queue.put(scope, "thread-1", "held")
    (held,) = await pull(puller, 1)
    waiting = asyncio.create_task(puller.pull(1))
    own_nats.kill()
    await until(lambda: not connection.is_connected)
    assert await waiting == []
    own_nats.start()
    await queue.put(scope, "thread-2", "new")
    found = {item.run_id for item in await pull(puller, 2)}
    assert found == {"held", "new"}
    assert held.run_id == "held"
    await puller.close()
    await connection.close()
