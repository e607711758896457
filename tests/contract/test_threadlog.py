"""Fenced appends: order and once-ness through outages and lost acknowledgements, and the refusal of late holders."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from slipstream_nats.connection import Connection, connect
from slipstream_nats.leases import take
from slipstream_nats.provision import provision
from slipstream_nats.publisher import Publisher, open_publisher
from slipstream_nats.stored import at_seq, last_of_subject, purge
from slipstream_nats.threadlog import ThreadLog, ThreadLogWriter
from slipstream_schemas.errors import Corrupt, Fenced, TooLarge, Unavailable
from slipstream_schemas.limits import MESSAGE_BYTES_MAX
from slipstream_schemas.record import NOTHING_OPEN, OpenMessage, OpenState, Record, RecordHeader
from slipstream_schemas.subjects import Scope, lease, thread_log, threads_stream
from testkit.proxy import Proxy
from testkit.servers import NatsServer
from testkit.wait import until

THREAD = "thread-1"
OUTAGE_S = 2.0


@dataclass
class Writing:
    """A process that writes thread logs."""

    connection: Connection
    publisher: Publisher
    log: ThreadLog
    scope: Scope
    tasks: list[asyncio.Task[int]] = field(default_factory=list)

    async def take(self, holder: str = "runner", thread_id: str = THREAD) -> ThreadLogWriter:
        fence = await take(self.publisher, self.scope, thread_id, holder, "run-1")
        return self.log.writer(self.scope, thread_id, fence)

    async def records(self, thread_id: str = THREAD) -> list[Record]:
        """The whole thread log, read from its leader."""
        found: list[Record] = []
        record = await self.log.next(self.scope, thread_id, 1)
        while record is not None:
            found.append(record)
            record = await self.log.next(self.scope, thread_id, record.stream_seq + 1)
        return found


class Processes:
    """Opens writers and closes them at the end."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._stack = AsyncExitStack()

    async def open(self, url: str, look_first_s: float = 60.0) -> Writing:
        connection = await connect(url, "writer")
        self._stack.push_async_callback(connection.close)
        await provision(connection, self._scope.region)
        publisher = await open_publisher(connection)
        log = ThreadLog(connection, publisher, self._scope.region, look_first_s)
        return Writing(connection, publisher, log, self._scope)

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def processes(scope: Scope) -> AsyncIterator[Processes]:
    opened = Processes(scope)
    yield opened
    await opened.close()


@pytest.fixture
async def writing(processes: Processes, nats_server: NatsServer) -> Writing:
    return await processes.open(nats_server.url)


def header(ordinal: int, run_id: str = "run-1", attempt: int = 1, opened: OpenState = NOTHING_OPEN) -> RecordHeader:
    return RecordHeader(run_id, attempt, ordinal, opened)


async def test_a_record_comes_back_as_it_was_written(writing: Writing, scope: Scope) -> None:
    writer = await writing.take()
    opened = OpenState((OpenMessage(("a", "b"), "message-ü", "llm-1", 77, "node"),), (("a",), ("a", "b")))
    seq = await writer.append(header(0, opened=opened), b'{"line":1}\n{"line":2}', traceparent="00-aa-bb-01")
    record = await writing.log.get(scope, THREAD, seq)
    assert record is not None
    assert record.header == header(0, opened=opened)
    assert record.lines == [b'{"line":1}', b'{"line":2}']
    assert record.timestamp_ms > 1_600_000_000_000
    stored = await at_seq(writing.connection, threads_stream(scope.region), seq)
    assert stored is not None and stored.headers["traceparent"] == "00-aa-bb-01"


async def test_reads_are_of_this_thread_only(writing: Writing, scope: Scope) -> None:
    seq = await (await writing.take()).append(header(0), b"one")
    assert await writing.log.last(scope, "other") is None
    assert await writing.log.last_seq(scope, "other") == 0
    assert await writing.log.get(scope, "other", seq) is None
    assert await writing.log.get(scope, THREAD, seq + 1) is None
    assert await writing.log.last_seq(scope, THREAD) == seq


async def test_runs_of_two_threads_may_share_ids(writing: Writing) -> None:
    first, second = await writing.take(thread_id="a"), await writing.take(thread_id="b")
    assert await first.append(header(0), b"of a") != await second.append(header(0), b"of b")
    assert [record.body for record in await writing.records("b")] == [b"of b"]


async def test_a_lease_names_its_holder_and_never_ages_out(writing: Writing, scope: Scope) -> None:
    first, second = await writing.take("runner-1"), await writing.take("runner-2")
    assert second.fence > first.fence
    stored = await last_of_subject(writing.connection, threads_stream(scope.region), lease(scope, THREAD))
    assert stored is not None and stored.stream_seq == second.fence
    assert stored.headers["Nats-TTL"] == "never"
    assert b'"holder":"runner-2"' in stored.body


async def test_a_late_holder_is_refused_and_what_it_wrote_is_a_strict_prefix(
    processes: Processes, nats_server: NatsServer, writing: Writing
) -> None:
    zombie, heir = await writing.take("zombie"), await processes.open(nats_server.url)
    taken = asyncio.Event()

    async def write_until_refused() -> int:
        for ordinal in range(1_000_000):
            try:
                await zombie.append(header(ordinal), b"old %d" % ordinal)
            except Fenced:
                return ordinal
            if ordinal == 100:
                taken.set()
        raise AssertionError("never refused")

    task = asyncio.create_task(write_until_refused())
    await taken.wait()
    new = await heir.take("heir")
    new_seqs = [await new.append(header(count, attempt=2), b"new %d" % count) for count in range(20)]
    accepted = await task

    records = await writing.records()
    assert [record.body for record in records[:accepted]] == [b"old %d" % count for count in range(accepted)]
    assert all(record.stream_seq < new.fence for record in records[:accepted])
    assert [record.stream_seq for record in records[accepted:]] == new_seqs
    with pytest.raises(Fenced) as caught:
        await zombie.append(header(accepted + 1), b"still late")
    assert caught.value.actual == new.fence


async def test_a_missing_lease_record_is_corruption_not_a_fence(writing: Writing, scope: Scope) -> None:
    writer = await writing.take()
    await purge(writing.connection, threads_stream(scope.region), lease(scope, THREAD), writer.fence)
    with pytest.raises(Corrupt, match="lease record"):
        await writer.append(header(0), b"x")


async def test_a_record_over_the_limit_is_refused_at_once(writing: Writing) -> None:
    writer = await writing.take()
    with pytest.raises(TooLarge):
        await writer.append(header(0), bytes(MESSAGE_BYTES_MAX))
    assert await writing.records() == []


async def test_an_outage_longer_than_allowed_gives_up(processes: Processes, own_nats: NatsServer) -> None:
    writing = await processes.open(own_nats.url)
    writer = await writing.take()
    own_nats.kill()
    await until(lambda: not writing.connection.is_connected)
    with pytest.raises(Unavailable):
        await writer.append(header(0), b"x", outage_s=0.2)


async def test_a_restart_in_the_middle_loses_doubles_and_disorders_nothing(
    processes: Processes, own_nats: NatsServer
) -> None:
    writing = await processes.open(own_nats.url)
    threads = [f"thread-{count}" for count in range(8)]
    stop = asyncio.Event()
    acknowledged: dict[str, list[int]] = {thread_id: [] for thread_id in threads}

    async def run(thread_id: str) -> None:
        writer = await writing.take(thread_id=thread_id)
        while not stop.is_set():
            ordinal = len(acknowledged[thread_id])
            acknowledged[thread_id].append(await writer.append(header(ordinal), b"%d" % ordinal))

    async def everybody_wrote(count: int) -> None:
        goal = {thread_id: len(seqs) + count for thread_id, seqs in acknowledged.items()}
        await until(lambda: all(len(acknowledged[thread_id]) >= goal[thread_id] for thread_id in threads))

    async with asyncio.TaskGroup() as group:
        for thread_id in threads:
            group.create_task(run(thread_id))
        await everybody_wrote(50)
        own_nats.kill()
        await until(lambda: not writing.connection.is_connected)
        await asyncio.sleep(OUTAGE_S)  # Nothing to wait for: this is how long the broker is away.
        own_nats.start()
        await everybody_wrote(50)
        stop.set()

    for thread_id in threads:
        records = await writing.records(thread_id)
        assert [record.stream_seq for record in records] == acknowledged[thread_id]
        assert [record.body for record in records] == [b"%d" % ordinal for ordinal in range(len(records))]


async def _append_with_lost_answer(
    network: Proxy, writing: Writing, watching: Writing, appending: ThreadLogWriter
) -> tuple[asyncio.Task[int], int]:
    """Begin an append whose acknowledgement is lost; returns when it is stored, with its seq."""
    network.swallow(to_server=False)
    task = asyncio.create_task(appending.append(header(1), b"in doubt"))

    async def stored() -> bool:
        last = await watching.log.last(writing.scope, THREAD)
        return last is not None and last.header.ordinal == 1

    await until(stored)
    return task, await watching.log.last_seq(writing.scope, THREAD)


async def test_a_lost_acknowledgement_stores_the_record_once(
    processes: Processes, nats_server: NatsServer, writing: Writing
) -> None:
    async with Proxy(nats_server.url) as network:
        cut_off = await processes.open(network.url)
        writer = await cut_off.take()
        await writer.append(header(0), b"before")
        task, seq = await _append_with_lost_answer(network, cut_off, writing, writer)
        await network.heal()
        assert await task == seq
        await writer.append(header(2), b"behind")
        assert [record.body for record in await writing.records()] == [b"before", b"in doubt", b"behind"]


async def test_a_retry_past_the_dedupe_window_finds_its_own_record(
    processes: Processes, nats_server: NatsServer, writing: Writing, scope: Scope
) -> None:
    async with Proxy(nats_server.url) as network:
        cut_off = await processes.open(network.url, look_first_s=0.0)
        await _shorten_dedupe(writing, scope)
        writer = await cut_off.take()
        await writer.append(header(0), b"before")
        task, seq = await _append_with_lost_answer(network, cut_off, writing, writer)
        await _dedupe_forgets(writing, scope)
        await network.heal()
        assert await task == seq
        assert [record.body for record in await writing.records()] == [b"before", b"in doubt"]


async def _shorten_dedupe(writing: Writing, scope: Scope) -> None:
    stream = threads_stream(scope.region)
    config = (await writing.connection.api(f"STREAM.INFO.{stream}", {}))["config"]
    await writing.connection.api(f"STREAM.UPDATE.{stream}", {**config, "duplicate_window": 100_000_000})


async def _dedupe_forgets(writing: Writing, scope: Scope) -> None:
    """Wait until an id that was used after the append in doubt is taken for new."""

    async def forgotten() -> bool:
        return not (await writing.publisher.publish(thread_log(scope, "probe"), b"", {"Nats-Msg-Id": "p"})).duplicate

    await forgotten()
    await until(forgotten)
