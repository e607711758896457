"""What must hold at the end of an example, when everything lives again and every run has ended."""

import asyncio
from itertools import pairwise
from typing import Any, Final

import msgspec

from simulation import logs
from simulation.logs import ThreadHistory
from simulation.model import Asked, Model, Thread
from simulation.streams import Place, Reader, place_of, replay
from simulation.world import World
from slipstream_projector.rebuild import rebuild
from slipstream_schemas import run_state as rs
from slipstream_schemas.limits import RUN_CRASHES_MAX
from slipstream_schemas.seq import unpack
from slipstream_schemas.subjects import thread_key
from testkit.client import Frame
from testkit.wait import until

QUIET_DEADLINE_S: Final = 120.0
DRAIN_DEADLINE_S: Final = 60.0
RUNS_MAX: Final = 1000
CURSORS: Final = 3
"""Inside records, for each reader."""
FORKS: Final = """SELECT checkpoint_ns, parent_checkpoint_id, array_agg(checkpoint_id) AS children FROM checkpoints
 WHERE thread_id=$1 GROUP BY 1, 2 HAVING count(*) > 1"""
DIFFERENCE: Final = """SELECT to_jsonb(x)::text AS row FROM {table} x ORDER BY 1"""


def check(world: World, model: Model, readers: list[Reader]) -> None:
    """All of it. Raises: AssertionError."""
    world.run(_check(world, model, readers))


async def _check(world: World, model: Model, readers: list[Reader]) -> None:
    histories: dict[str, ThreadHistory] = {}
    for thread in model.threads:
        await _quiet(world, thread)
        histories[thread.thread_id] = await logs.read(world, thread.thread_id)
    for thread in model.threads:
        history = histories[thread.thread_id]
        logs.check_transitions(history)
        logs.check_log(history)
        assert not history.left, f"a deletion has left {history.left} records"
        _check_requests(thread, history, crashed=model.crashed)
        await _check_rows(world, thread, history)
        await _check_checkpoints(world, thread)
    for stranger in model.strangers:
        await _check_absent(world, stranger)
    for reader in readers:
        await _check_reader(world, reader, histories[reader.thread.thread_id])
    await _check_rebuild(world)


async def _quiet(world: World, thread: Thread) -> None:
    """Every run of the thread ends, its terminal event comes, and the rows catch up. Raises: AssertionError."""
    found: list[str] = [""]

    async def is_quiet() -> bool:
        head = await world.control.head(world.scope, thread.thread_id)
        state = head.state
        if state is not None and state.deleted and not state.erased:
            found[0] = "its deletion does not end"
            return False
        if state is None or state.deleted:
            found[0] = f"the projector lags behind {head.stream_seq}"
            return await _position(world) >= head.stream_seq
        if rs.is_busy(state):
            found[0] = f"busy: {state}"
            return False
        missing = logs.unpublished(await logs.read(world, thread.thread_id))
        found[0] = f"no terminal event of {missing}: {state}"
        return not missing and await _position(world) >= head.stream_seq

    try:
        await until(is_quiet, QUIET_DEADLINE_S)
    except AssertionError:
        raise AssertionError(f"thread {thread.thread_id} is not quiet: {found[0]}") from None


async def _position(world: World) -> int:
    async with world.database.connection() as connection:
        return int(await connection.fetchval("SELECT stream_seq FROM positions WHERE name='control'") or 0)


def _check_requests(thread: Thread, history: ThreadHistory, *, crashed: bool) -> None:
    """Accepted ones are there, refused ones are not, each once."""
    tags = history.runs_by_tag()
    for asked in thread.of("run", "respond"):
        runs = tags.pop(asked.number, [])
        assert len(runs) <= 1, f"{asked} made {runs}"
        if asked.outcome == "refused":
            assert not runs, f"refused, and there: {asked}"
        if asked.outcome == "accepted" and not thread.gone(asked):
            assert runs == [asked.run_id], f"accepted, and {runs or 'not there'}: {asked}"
    assert not tags, f"runs that nobody asked for: {tags}"
    cancels = thread.of("cancel") + [a for a in thread.of("run") if a.action is not None]
    for run_id in history.cancelled_by_command():
        assert any(run_id in (a.target, a.run_id) and a.may_have_happened for a in cancels), (
            f"nobody asked to cancel {run_id}"
        )
    for asked in thread.of("cancel"):
        if asked.outcome == "accepted" and not thread.gone(asked):
            assert asked.target in history.cancelled_by_command(), f"a cancel was accepted and is not there: {asked}"
    posts = [asked for asked in thread.of("state") if asked.may_have_happened]
    assert history.count("state_updated") <= len(posts), "a state that nobody posted"
    if history.is_deleted:
        assert any(asked.may_have_happened for asked in thread.of("delete")), "nobody asked to delete the thread"
    elif not history.exists:
        made = [a for a in thread.of("thread", "run") if a.outcome == "accepted" and not thread.gone(a)]
        assert not made, f"the thread is not there: {made}"
    for asked in thread.of("run"):
        if asked.run_id in history.ends:
            _check_end(thread, history, asked, crashed=crashed)


def _check_end(thread: Thread, history: ThreadHistory, asked: Asked, *, crashed: bool) -> None:
    """A run ended as it may, and counted to its end."""
    assert asked.run_id is not None
    end = history.ends[asked.run_id]
    if end.status == "error":
        assert crashed and history.crashes(asked.run_id) > RUN_CRASHES_MAX, f"{asked} failed: {end}"
    elif end.status == "interrupted":
        assert asked.run_id in history.cancelled, f"{asked} was interrupted, and nobody asked for it: {end}"
    elif thread.graph == "counter" and end.status == "success":
        values = history.values_at(end.values_seq)
        assert values is None or values.get("count") == max(asked.steps, 1), f"{asked} counted to {values}"


async def _check_rows(world: World, thread: Thread, history: ThreadHistory) -> None:
    """Rows, both APIs and the folded state say the same."""
    for client in world.clients:
        answer = await client.get(f"/threads/{thread.thread_id}")
        if not history.exists:
            assert answer.status_code == 404, answer.text
            continue
        assert answer.status_code == 200, (answer.status_code, answer.text)
        state = history.head.state
        assert state is not None and answer.json()["status"] == state.status, (answer.json(), state)
        if history.values_seq:
            values = history.values_at(history.values_seq)
            assert values is None or _plain(answer.json()["values"]) == values, (answer.json()["values"], values)
        listed = await client.get(f"/threads/{thread.thread_id}/runs", params={"limit": RUNS_MAX})
        rows = {row["run_id"]: row["status"] for row in listed.json()}
        assert rows == history.rows(), f"rows {rows}\n log {history.rows()}"
        told = {run_id: status for run_id, status in history.told_ends().items() if run_id in rows}
        assert told == rows, f"rows {rows}\n told {told}"
    if not history.exists:
        assert not history.records, f"a deleted thread has {len(history.records)} records left"
        key = thread_key(world.scope, thread.thread_id)
        async with world.database.connection() as connection:
            left = await connection.fetchval("SELECT count(*) FROM checkpoints WHERE thread_id=$1", key)
        assert left == 0, f"a deleted thread has {left} checkpoints left"


async def _check_checkpoints(world: World, thread: Thread) -> None:
    """They are one chain: each attempt goes on from the last one, and none is written behind its back."""
    async with world.database.connection() as connection:
        forks = await connection.fetch(FORKS, thread_key(world.scope, thread.thread_id))
    assert not forks, f"thread {thread.thread_id}: checkpoints behind a later attempt's back: {forks}"


def _plain(values: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(values))


async def _check_absent(world: World, thread_id: str) -> None:
    """A refused command has left nothing."""
    history = await logs.read(world, thread_id)
    assert history.head.stream_seq == 0 and not history.records, f"a refused command left {history}"
    async with world.database.connection() as connection:
        for table in ("threads", "runs"):
            found = await connection.fetchval(f"SELECT count(*) FROM {table} WHERE thread_id=$1", thread_id)
            assert found == 0, f"a refused command left a row in {table}"


async def _check_reader(world: World, reader: Reader, history: ThreadHistory) -> None:
    """The union of what a client has seen is what the log holds, each once, in order."""
    if reader.thread.was_deleted:
        return
    if reader.run_id is not None:
        await _check_run_reader(world, reader, history)
        return
    expected = history.frames(reader.channels)
    try:
        await reader.follow_until(str(expected[-1][0]) if expected else "", DRAIN_DEADLINE_S)
    except TimeoutError:
        raise AssertionError(f"{reader.name} stays at {reader.cursor} of {expected[-1][0]}") from None
    assert not reader.lost, f"{reader.name}: a gap, and nothing was taken from the log"
    assert not reader.wrong, f"{reader.name}: {reader.wrong}"
    found = [(frame.seq, frame.body["event_id"]) for frame in reader.seen]
    assert found == expected, _difference(reader.name, found, expected)
    world.count("frames", len(found))
    await _check_cursors(world, reader, [str(seq) for seq, _ in expected])


async def _check_run_reader(world: World, reader: Reader, history: ThreadHistory) -> None:
    assert reader.run_id is not None
    if reader.run_id not in history.rows():
        return
    whole = [await replay(world, reader.thread, reader.run_id, api, DRAIN_DEADLINE_S) for api in (0, 1)]
    assert _shown(whole[0]) == _shown(whole[1]), f"{reader.name}: the APIs replay it differently"
    try:
        await reader.follow_until(whole[0][-1].id if whole[0] else "", DRAIN_DEADLINE_S)
    except TimeoutError:
        raise AssertionError(f"{reader.name} stays at {reader.cursor} of {whole[0][-1].id}") from None
    assert not reader.wrong and not reader.lost, f"{reader.name}: {reader.wrong}"
    assert _shown(reader.seen) == _shown(whole[0]), _difference(reader.name, _shown(reader.seen), _shown(whole[0]))
    world.count("frames", len(reader.seen))
    await _check_cursors(world, reader, [frame.id for frame in whole[0]])


async def _check_cursors(world: World, reader: Reader, ids: list[str]) -> None:
    """Who begins behind a frame is sent those after it, also where both come from one record: connections rarely break
    there.
    """
    inner = [n for n, (this, after) in enumerate(pairwise(map(place_of, ids))) if _record(this) == _record(after)]
    for index in dict.fromkeys(inner[len(inner) * part // CURSORS] for part in range(CURSORS) if inner):
        later = reader.beginning_behind(ids[index])
        await later.follow_until(ids[-1], DRAIN_DEADLINE_S)
        found, expected = [frame.id for frame in later.seen], ids[index + 1 :]
        assert found == expected, f"behind {ids[index]}: {_difference(later.name, found, expected)}"
        assert not later.wrong, f"{later.name}: {later.wrong}"
        world.count("cursors tried")


def _record(place: Place) -> int:
    return unpack(place.seq)[0]


def _shown(frames: list[Frame]) -> list[tuple[str, str, str]]:
    return [(frame.id, frame.event, frame.data) for frame in frames]


def _difference(name: str, found: list[Any], expected: list[Any]) -> str:
    missing = [each for each in expected if each not in found][:5]
    more = [each for each in found if each not in expected][:5]
    return f"{name}: {len(found)} of {len(expected)} frames; missing {missing}; too much {more}"


async def _check_rebuild(world: World) -> None:
    """A rebuild from record 1, in a database of its own, gives the same rows."""
    await rebuild(world.connection, world.scratch, world.region, lambda done, total: None)
    for table in ("threads", "runs"):
        rows: list[set[str]] = []
        for database in (world.database, world.scratch):
            async with database.connection() as connection:
                rows.append({str(row["row"]) for row in await connection.fetch(DIFFERENCE.format(table=table))})
        assert rows[0] == rows[1], f"{table}: rows {rows[0] - rows[1]}\nrebuilt {rows[1] - rows[0]}"
    world.count("rebuilds")
    await asyncio.sleep(0)
