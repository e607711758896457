"""Deciding on the head: one winner among many, no command lost, none twice."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable

import pytest

from slipstream_nats.connection import Connection, connect
from slipstream_nats.controllog import ControlLog, Head
from slipstream_nats.provision import provision
from slipstream_nats.publisher import WrongSequence, open_publisher
from slipstream_nats.stored import next_of_subject
from slipstream_schemas.errors import Conflict, Corrupt
from slipstream_schemas.record import TRANSITION_HEADER
from slipstream_schemas.run_state import (
    RunCreated,
    Strategy,
    ThreadCreated,
    ThreadPatched,
    ThreadState,
    Transition,
    create_run,
)
from slipstream_schemas.subjects import Scope, control, control_stream
from slipstream_schemas.thread_life import create_thread, patch_thread
from testkit.proxy import Proxy
from testkit.servers import NatsServer
from testkit.wait import until

THREAD = "thread-1"
NOW_MS = 1_700_000_000_000


@pytest.fixture
async def log(connection: Connection, region: str) -> ControlLog:
    return ControlLog(connection, await open_publisher(connection), region)


@pytest.fixture
async def network(nats_server: NatsServer) -> AsyncIterator[Proxy]:
    async with Proxy(nats_server.url) as opened:
        yield opened


@pytest.fixture
async def cut_off(network: Proxy, region: str) -> AsyncIterator[ControlLog]:
    """A control log behind a network that loses answers."""
    opened = await connect(network.url, "cut off")
    await provision(opened, region)
    yield ControlLog(opened, await open_publisher(opened), region)
    await opened.close()


def thread_creation(command_id: str) -> Callable[[ThreadState | None], Transition]:
    return lambda state: create_thread(state, THREAD, command_id, NOW_MS, ThreadCreated())


def run_creation(run_id: str, strategy: Strategy = "enqueue") -> Callable[[ThreadState | None], Transition]:
    created = RunCreated(run_id, THREAD, "a", "g", strategy=strategy, thread_metadata={})
    return lambda state: create_run(state, run_id, NOW_MS, created)


def patch(command_id: str) -> Callable[[ThreadState | None], Transition]:
    return lambda state: patch_thread(state, command_id, NOW_MS, ThreadPatched({"by": command_id}))


async def chain(connection: Connection, scope: Scope) -> list[str]:
    """The command ids of the thread's transitions, in order."""
    found, seq = list[str](), 1
    subject = control(scope, THREAD)
    while message := await next_of_subject(connection, control_stream(scope.region), subject, seq):
        found.append(message.body.split(b'"command_id":"')[1].split(b'"')[0].decode())
        seq = message.stream_seq + 1
    return found


async def test_a_thread_that_never_was_has_an_empty_head(log: ControlLog, scope: Scope) -> None:
    assert await log.head(scope, THREAD) == Head(0, None)
    assert (await log.head(scope, THREAD)).state is None


async def test_the_head_is_what_was_decided(log: ControlLog, scope: Scope, connection: Connection) -> None:
    transition, seq = await log.decide(scope, THREAD, run_creation("run-1"))
    head = await log.head(scope, THREAD)
    assert head.stream_seq == seq and head.transition == transition
    assert head.state is not None and head.state.pending[0].created_seq == seq
    stored = await next_of_subject(connection, control_stream(scope.region), control(scope, THREAD), seq)
    assert stored is not None and stored.headers[TRANSITION_HEADER] == "run_created"


async def test_an_append_behind_an_old_head_is_refused(log: ControlLog, scope: Scope) -> None:
    transition, _ = await log.decide(scope, THREAD, thread_creation("one"))
    with pytest.raises(WrongSequence):
        await log.append(scope, THREAD, patch("two")(transition.state), 0)


async def test_one_of_many_concurrent_creations_wins(log: ControlLog, scope: Scope, connection: Connection) -> None:
    commands = [f"command-{count}" for count in range(20)]
    outcomes = await asyncio.gather(
        *(log.decide(scope, THREAD, thread_creation(command)) for command in commands), return_exceptions=True
    )
    won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    lost = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert len(won) == 1 and all(isinstance(error, Conflict) for error in lost)
    assert await chain(connection, scope) == [won[0][0].command_id]


async def test_concurrent_commands_that_fit_are_all_accepted(
    log: ControlLog, scope: Scope, connection: Connection
) -> None:
    runs = [f"run-{count}" for count in range(20)]
    decided = await asyncio.gather(*(log.decide(scope, THREAD, run_creation(run)) for run in runs))
    by_seq = sorted(decided, key=lambda outcome: outcome[1])
    assert await chain(connection, scope) == [transition.command_id for transition, _ in by_seq]
    state = (await log.head(scope, THREAD)).state
    assert state is not None
    assert [run.run_id for run in state.pending] == [transition.command_id for transition, _ in by_seq]
    assert [run.created_seq for run in state.pending] == [seq for _, seq in by_seq]


async def test_a_refused_command_leaves_nothing(log: ControlLog, scope: Scope, connection: Connection) -> None:
    await log.decide(scope, THREAD, run_creation("run-1"))
    with pytest.raises(Conflict):
        await log.decide(scope, THREAD, run_creation("run-2", "reject"))
    assert await chain(connection, scope) == ["run-1"]


async def test_a_repeated_command_returns_what_was_stored_first(
    log: ControlLog, scope: Scope, connection: Connection
) -> None:
    await log.decide(scope, THREAD, thread_creation("create"))
    first = await log.decide(scope, THREAD, patch("again"))
    await log.decide(scope, THREAD, patch("other"))
    assert await log.decide(scope, THREAD, patch("again")) == first
    assert await chain(connection, scope) == ["create", "again", "other"]


async def test_threads_may_share_command_ids(log: ControlLog, scope: Scope) -> None:
    _, first = await log.decide(scope, "a", run_creation("run-1"))
    _, second = await log.decide(scope, "b", run_creation("run-1"))
    assert (await log.head(scope, "a")).stream_seq == first
    assert (await log.head(scope, "b")).stream_seq == second


@pytest.mark.parametrize("overtaken", [False, True], ids=["it is the head", "others decided since"])
async def test_a_command_whose_acknowledgement_was_lost_is_recognised(
    network: Proxy, cut_off: ControlLog, log: ControlLog, scope: Scope, connection: Connection, overtaken: bool
) -> None:
    mine = f"run-{secrets.token_hex(4)}"
    stored = asyncio.Event()

    def decide_and_lose(state: ThreadState | None) -> Transition:
        if not stored.is_set():
            network.swallow(to_server=False)
        return run_creation(mine, "reject")(state)

    task = asyncio.create_task(cut_off.decide(scope, THREAD, decide_and_lose))

    async def is_head() -> bool:
        transition = (await log.head(scope, THREAD)).transition
        return transition is not None and transition.command_id == mine

    await until(is_head)
    seq = (await log.head(scope, THREAD)).stream_seq
    if overtaken:
        await log.decide(scope, THREAD, patch("other"))
    stored.set()
    await network.heal()
    transition, found = await task
    assert (transition.command_id, found) == (mine, seq)
    assert await chain(connection, scope) == ([mine, "other"] if overtaken else [mine])


async def test_an_append_whose_acknowledgement_was_lost_is_told_from_a_race(
    network: Proxy, cut_off: ControlLog, log: ControlLog, scope: Scope
) -> None:
    transition = thread_creation("mine")(None)
    network.swallow(to_server=False)
    task = asyncio.create_task(cut_off.append_once(scope, THREAD, transition, 0))

    async def seq() -> int:
        return (await log.head(scope, THREAD)).stream_seq

    found = await until(seq)
    await network.heal()
    assert await task == found
    with pytest.raises(WrongSequence):
        await cut_off.append_once(scope, THREAD, thread_creation("other")(None), 0)


async def test_an_unreadable_record_is_corrupt(log: ControlLog, scope: Scope, connection: Connection) -> None:
    await (await open_publisher(connection)).publish(control(scope, THREAD), b'{"name":"no_such_thing"}')
    with pytest.raises(Corrupt, match="unreadable"):
        await log.head(scope, THREAD)


async def test_a_region_without_streams_says_what_to_do(connection: Connection, scope: Scope) -> None:
    log = ControlLog(connection, await open_publisher(connection), "nowhere")
    with pytest.raises(Corrupt, match="slipstream provision"):
        await log.head(Scope("nowhere"), THREAD)


async def test_the_newest_transition_of_a_region_is_known(log: ControlLog, scope: Scope) -> None:
    assert await log.newest_seq(scope.region) == 0
    await log.decide(scope, THREAD, thread_creation("c1"))
    _, seq = await log.decide(
        scope, "thread-2", lambda state: create_thread(state, "thread-2", "c2", NOW_MS, ThreadCreated())
    )
    assert await log.newest_seq(scope.region) == seq
