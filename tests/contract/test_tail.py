"""The contract of following a thread log. It knows tails by their interface alone, so it can judge another one too."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipstream_nats.tail import CursorLost, Gap, Tail
from slipstream_schemas.errors import Corrupt
from slipstream_schemas.seq import last_of, pack
from slipstream_schemas.subjects import thread_log
from testkit.tail_rig import Broker, Line, Rig, fresh_lines, run, take, until

RECORDS = 60
SHARED_BROKER = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    broker = Broker(tmp_path_factory.mktemp("nats"))
    broker.start()
    yield broker.url
    broker.stop()


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    broker.stop()


@given(sizes=st.lists(st.integers(1, 256), min_size=1, max_size=12), at=st.floats(0, 1))
@SHARED_BROKER
def test_a_resume_from_any_line_gets_the_rest(url: str, sizes: list[int], at: float) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig:
            for size in sizes:
                await rig.write("a", size)
                await rig.write("neighbour")
            cursors = [0, *(seq for seq, _ in rig.written["a"])]
            since = cursors[int(at * (len(cursors) - 1))]
            assert await rig.tails.check_cursor(rig.scope, "a", since) is None
            async with rig.tails.open(rig.scope, "a", since) as tail:
                await rig.write("a", 3)
                want = rig.after("a", since)
                assert await take(tail, len(want)) == want

    run(scenario())


@given(
    readers=st.lists(
        st.tuples(st.integers(0, 2), st.floats(0, 1), st.integers(0, 3 * RECORDS), st.integers(1, 2 * RECORDS)),
        min_size=1,
        max_size=24,
    ),
    window_bytes=st.sampled_from([9_000, 64_000, None]),
)
@SHARED_BROKER
def test_readers_that_come_and_go_miss_nothing(
    url: str, readers: list[tuple[int, float, int, int]], window_bytes: int | None
) -> None:
    """Writers on three threads; each reader chooses its thread, cursor, moment of entry, and how much it takes."""

    async def scenario() -> None:
        async with Rig(url, window_bytes) as rig:
            rig.written = {name: [] for name in "abc"}
            written = 0
            moved = asyncio.Condition()

            async def write(name: str) -> None:
                nonlocal written
                for count in range(RECORDS):
                    await rig.write(name, 1 + count % 5)
                    async with moved:
                        written += 1
                        moved.notify_all()

            async def read(thread: int, at: float, enter_at: int, lines: int) -> None:
                name = "abc"[thread]
                async with moved:
                    await moved.wait_for(lambda: written >= enter_at)
                cursors = [0, *(seq for seq, _ in rig.written[name])]
                since = cursors[int(at * (len(cursors) - 1))]
                got: list[Line] = []
                async with rig.tails.open(rig.scope, name, since) as tail:
                    async with moved:
                        await moved.wait_for(lambda: written == 3 * RECORDS or len(rig.after(name, since)) >= lines)
                    got = await take(tail, min(lines, len(rig.after(name, since))))
                # A record may be seen before its writer has its acknowledgement.
                await until(lambda: len(rig.after(name, since)) >= len(got), "what was read is acknowledged")
                assert got == rig.after(name, since)[: len(got)]

            async with asyncio.TaskGroup() as group:
                for name in "abc":
                    group.create_task(write(name))
                for reader in readers:
                    group.create_task(read(*reader))

    run(scenario())


def test_a_slow_reader_holds_nobody_up_and_misses_nothing(url: str) -> None:
    async def scenario() -> None:
        async with (
            Rig(url, window_bytes_max=16_000) as rig,
            rig.tails.open(rig.scope, "a") as slow,
            rig.tails.open(rig.scope, "a") as fast,
        ):
            await rig.write("a")
            assert await take(slow, 1) == await take(fast, 1) == rig.after("a", 0)
            mark = rig.written["a"][-1][0]
            for _ in range(200):
                await rig.write("a", 2, line_bytes=400)
                await take(fast, 2)
            want = rig.after("a", mark)
            assert await take(slow, len(want)) == want
            await rig.write("a")
            assert await take(slow, 1) == await take(fast, 1) == rig.written["a"][-1:]

    run(scenario())


def test_lines_larger_than_any_buffer_pass(url: str) -> None:
    async def scenario() -> None:
        async with Rig(url, window_bytes_max=16_000) as rig:
            await rig.write("a")
            await rig.write("a", 1, line_bytes=7 * 1024 * 1024)
            async with rig.tails.open(rig.scope, "a") as tail:
                assert await take(tail, 2) == rig.after("a", 0)
                await rig.write("a", 1, line_bytes=7 * 1024 * 1024)
                await rig.write("a")
                assert await take(tail, 2) == rig.written["a"][2:]

    run(scenario())


def test_a_killed_broker_costs_no_line(mortal: Broker) -> None:
    async def scenario() -> None:
        async with Rig(mortal.url) as rig:
            for _ in range(20):
                await rig.write("behind", 2)
            async with (
                rig.tails.open(rig.scope, "live") as live,
                rig.tails.open(rig.scope, "live") as second,
                rig.tails.open(rig.scope, "quiet") as quiet,
                rig.tails.open(rig.scope, "behind") as behind,
            ):
                await rig.write("live")
                assert await take(live, 1) == await take(second, 1) == rig.written["live"]
                for _ in range(2):
                    mortal.kill()
                    writing = asyncio.create_task(rig.write("live", 3))
                    mortal.start()
                    await writing
                await rig.write("live")
                await rig.write("quiet")
                assert await take(live, 7) == await take(second, 7) == rig.written["live"][1:]
                assert await take(quiet, 1) == rig.written["quiet"]
                assert await take(behind, 40) == rig.written["behind"]

    run(scenario())


def test_a_deleted_consumer_is_replaced(url: str) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig, rig.tails.open(rig.scope, "a") as tail:
            for _ in range(5):
                await rig.write("a", 2)
                await until(lambda: _consumers_are(rig, 1), "the tail has its consumer")
                assert await rig.delete_consumers() == 1
                await rig.write("a")
            assert await take(tail, 15) == rig.written["a"]

    run(scenario())


async def _consumers_are(rig: Rig, count: int) -> bool:
    return len(await rig.consumers()) == count


def test_a_cursor_beyond_the_end_is_a_gap(url: str) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig:
            first = await rig.write("a", 3)
            last = await rig.write("a", 2)
            beyond = pack(last + 1, 0)
            gap = Gap(pack(first, 0), last_of(last))
            assert await rig.tails.check_cursor(rig.scope, "a", beyond) == gap
            async with rig.tails.open(rig.scope, "a", beyond) as tail:
                with pytest.raises(CursorLost) as lost:
                    await anext(tail)
            assert lost.value.gap == gap
            assert await rig.tails.check_cursor(rig.scope, "nobody", pack(last, 0)) == Gap(0, 0)

    run(scenario())


def test_a_cursor_is_whole_while_its_record_stands(url: str) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig:
            first = await rig.write("a", 2)
            foreign = await rig.write("b")
            second = await rig.write("a", 2)
            scope, check = rig.scope, rig.tails.check_cursor
            for whole in (0, pack(first, 0), pack(first, 1), last_of(first), pack(second, 1), last_of(second)):
                assert await check(scope, "a", whole) is None
            whole_log = Gap(pack(first, 0), last_of(second))
            assert await check(scope, "a", pack(foreign, 0)) == whole_log
            rest = Gap(pack(second, 0), last_of(second))
            await rig.purge("a", second)
            assert await check(scope, "a", pack(first, 1)) == rest
            assert await rig.tails.last_stream_seq(scope, "a") == second
            assert await rig.tails.last_stream_seq(scope, "nobody") == 0

    run(scenario())


def test_a_thread_that_does_not_exist_yet_is_awaited(url: str) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig, rig.tails.open(rig.scope, "a") as tail:
            assert await anext(tail) == [], "caught up with nothing"
            waiting = asyncio.create_task(anext(tail))
            await until(lambda: _consumers_are(rig, 1), "the tail waits at the broker")
            await rig.write("b")
            await rig.write("a", 3)
            async with asyncio.timeout(10):
                assert fresh_lines(await waiting) == rig.written["a"]

    run(scenario())


def test_a_purged_log_goes_on(url: str) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig:
            await rig.write("a", 2)
            last = await rig.write("a", 2)
            await rig.purge("a", last + 1)
            async with rig.tails.open(rig.scope, "a") as tail:
                await rig.write("a", 2)
                assert await take(tail, 2) == rig.after("a", last_of(last))

    run(scenario())


def test_tails_of_a_thread_share_a_consumer_and_leave_none(url: str) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig:
            await rig.write("a", 2)
            async with asyncio.TaskGroup() as group:
                readers = [group.create_task(_read_once(rig)) for _ in range(30)]
            assert all(reader.result() == rig.written["a"] for reader in readers)
            await until(lambda: _consumers_are(rig, 0), "every consumer is deleted")
            async with rig.tails.open(rig.scope, "a") as one, rig.tails.open(rig.scope, "a") as two:
                assert await take(one, 2) == await take(two, 2) == rig.written["a"]
                assert len(await rig.consumers()) == 1
            await until(lambda: _consumers_are(rig, 0), "every consumer is deleted")

    run(scenario())


async def _read_once(rig: Rig) -> list[Line]:
    async with rig.tails.open(rig.scope, "a") as tail:
        return await take(tail, 2)


def test_what_is_not_a_record_stops_the_tail(url: str) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig:
            await rig.write("a")
            await rig.publisher.publish(thread_log(rig.scope, "a"), b"foreign")
            async with rig.tails.open(rig.scope, "a") as tail:
                with pytest.raises(Corrupt):
                    await take(tail, 2)

    run(scenario())


def test_a_cancelled_wait_loses_nothing(url: str) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig, rig.tails.open(rig.scope, "a") as tail:
            got: list[Line] = []
            writing = asyncio.create_task(_write_many(rig, 150))
            while len(got) < 150:
                await _take_for_a_moment(tail, got)
            await writing
            assert got == rig.written["a"]

    run(scenario())


async def _write_many(rig: Rig, count: int) -> None:
    for _ in range(count):
        await rig.write("a")


async def _take_for_a_moment(tail: Tail, got: list[Line]) -> None:
    try:
        async with asyncio.timeout(0.002):
            got.extend(fresh_lines(await anext(tail)))
    except TimeoutError:
        return


def test_tails_that_close_leave_nothing_at_the_broker(url: str) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig:
            async with asyncio.timeout(20):
                tails = await rig.open_tails(await rig.connect("another"))
                async with tails.open(rig.scope, "a"), tails.open(rig.scope, "b", 0):
                    await until(lambda: _consumers_are(rig, 2), "two threads, two consumers")
            await until(lambda: _consumers_are(rig, 0), "every consumer is deleted")

    run(scenario())
