"""The runner's watch of the control log tells each attempt what concerns it."""

import asyncio

from slipstream_nats.connection import Connection
from slipstream_nats.controllog import ControlLog
from slipstream_nats.publisher import Publisher, open_publisher
from slipstream_nats.threadlog import ThreadLog
from slipstream_nats.workqueue import WorkItem
from slipstream_runner.runtime import Attempt, now_ms
from slipstream_runner.watch import watch
from slipstream_schemas import run_state as rs
from slipstream_schemas import thread_life
from slipstream_schemas.subjects import Scope
from testkit.wait import until

THREAD = "thread-1"


def attempt_of(
    connection: Connection, publisher: Publisher, scope: Scope, run_id: str, fence: int, begun_behind: int
) -> Attempt:
    """An attempt in the hands of this process."""
    created, item = rs.RunCreated(run_id, THREAD, "a", "g"), WorkItem(connection, scope, THREAD, run_id, "nowhere")
    writer = ThreadLog(connection, publisher, scope.region).writer(scope, THREAD, fence)
    return Attempt(scope, THREAD, created, 1, fence, rs.ThreadState(THREAD), begun_behind, item, writer)


async def test_a_deletion_is_told_to_the_run_of_the_deleted_thread_beside_one_of_the_next(
    connection: Connection, scope: Scope
) -> None:
    """The watch may be behind: the next thread of the id has begun a run already when it hears of the deletion."""
    publisher = await open_publisher(connection)
    log = ControlLog(connection, publisher, scope.region)
    _, created = await log.decide(
        scope, THREAD, lambda state: thread_life.create_thread(state, THREAD, "one", now_ms(), rs.ThreadCreated())
    )
    held = {1: attempt_of(connection, publisher, scope, "old", 1, created)}
    ready = asyncio.Event()
    watching = asyncio.create_task(watch(connection, scope.region, held, {}, ready))
    await ready.wait()
    # Behind all that is said in this test.
    held[2] = attempt_of(connection, publisher, scope, "new", 2, created + 100)
    await log.decide(scope, THREAD, lambda state: thread_life.delete_thread(state, "two", now_ms()))
    await until(lambda: held[1].stop == "deleted")
    assert held[2].stop is None
    watching.cancel()
    await asyncio.wait({watching})
