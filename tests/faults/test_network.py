"""A bad network between one service and one server, under load: slow, cut, reset, half-open, dead.

Nothing here is mended by the test before the load has ended: what is dead and does not say so must be noticed.
`FAULT_TRIALS=200` tries every combination of an evil, a server and a service. Else each evil is tried once: on which
server and with which service changes from day to day, and all have had their turn after six; `FAULT_SEED` names another
day, by its number.
"""

import asyncio
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from slipstream_nats.connection import connect
from slipstream_nats.controllog import ControlLog
from slipstream_nats.provision import StreamSettings
from slipstream_nats.publisher import open_publisher
from slipstream_schemas.subjects import Scope
from testkit.load import Load, check_rows, urls_of
from testkit.proxy import Proxy
from testkit.servers import NatsServer, fresh_database
from testkit.stack import Stack, prepare
from testkit.wait import until

TRIALS: Final = int(os.environ.get("FAULT_TRIALS", "20"))
TURN: Final = int(os.environ.get("FAULT_SEED", "0")) or datetime.now(UTC).toordinal()
"""Not drawn: every worker of a test run must collect the same tests."""
DEADLINE_S: Final = 120.0
ACK_WAIT_S: Final = 3.0
LASTS_S: Final = 1.0
"""How long a network is cut; the other evils last until the load has ended."""


def slow(proxy: Proxy) -> None:
    proxy.latency_s = 0.05


def narrow(proxy: Proxy) -> None:
    proxy.bytes_per_s = 64 * 1024


def half_open(proxy: Proxy) -> None:
    proxy.swallow(new_too=False)


def deaf(proxy: Proxy) -> None:
    proxy.swallow(to_server=False, new_too=False)


EVILS: Final[dict[str, Callable[[Proxy], None]]] = {
    "slow": slow, "narrow": narrow, "cut": Proxy.cut, "reset": Proxy.reset, "half-open": half_open, "deaf": deaf,
    "dead": Proxy.stall,
}  # fmt: skip
SERVERS: Final = ("nats", "postgres")
KINDS: Final = ("api", "runner", "projector")
ALL: Final = [(evil, server, kind) for evil in EVILS for server in SERVERS for kind in KINDS]
TODAYS: Final = [
    (evil, SERVERS[(number + TURN) % len(SERVERS)], KINDS[(number + TURN // len(SERVERS)) % len(KINDS)])
    for number, evil in enumerate(EVILS)
]
COMBINATIONS: Final = ALL if TRIALS >= 200 else TODAYS


class Network:
    """A stack each of whose services has a proxy of its own to each server."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.proxies: dict[str, dict[str, Proxy]] = {}

    async def start(self, proxies: AsyncExitStack) -> None:
        """An API, two runners and a projector, each behind its proxies."""
        stack, spawn = (
            self.stack,
            {"api": Stack.spawn_api, "runner": Stack.spawn_runner, "projector": Stack.spawn_projector},
        )
        for kind in ("api", "runner", "runner", "projector"):
            nats = await proxies.enter_async_context(Proxy(stack.nats_url))
            postgres = await proxies.enter_async_context(Proxy(stack.dsn))
            service = spawn[kind](
                stack, nats_url=nats.url, database_url=postgres.url, slipstream_ack_wait_s=str(ACK_WAIT_S),
                slipstream_sweep_s="2",
            )  # fmt: skip
            self.proxies[service.name] = {"nats": nats, "postgres": postgres}
        for service in stack.services:
            await service.ready()

    def between(self, kind: str, server: str) -> Proxy:
        """The proxy between the first service of a kind and a server."""
        return self.proxies[f"{kind}-0"][server]

    async def heal(self) -> None:
        """All of it."""
        for pair in self.proxies.values():
            for proxy in pair.values():
                await proxy.heal()


@pytest.fixture(scope="module")
async def network(
    anyio_backend: object, nats_server: NatsServer, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Network]:
    """One stack for all trials of the module; at its end, its rows are compared with its log."""
    region, root = f"n{secrets.token_hex(5)}", tmp_path_factory.mktemp("network")
    with fresh_database(postgres_dsn) as dsn, Stack(nats_server.url, dsn, region, Path(root)) as stack:
        await prepare(nats_server.url, dsn, region, StreamSettings(ack_wait_s=ACK_WAIT_S))
        async with AsyncExitStack() as proxies:
            made = Network(stack)
            await made.start(proxies)
            yield made
            await check_rows(stack)


@pytest.mark.parametrize(("evil", "server", "kind"), COMBINATIONS)
async def test_runs_and_streams_survive(network: Network, evil: str, server: str, kind: str) -> None:
    proxy, offsets = network.between(kind, server), network.stack.log_offsets()
    load = Load(urls_of(network.stack), random.Random(0), threads=3, runs=2, steps=8)
    try:
        await load.begin()
        EVILS[evil](proxy)
        if evil == "cut":
            await asyncio.sleep(LASTS_S)
            await proxy.heal()
        await load.finish()
    except BaseException:
        print(network.stack.logs(offsets))
        raise
    finally:
        await load.stop()
        await network.heal()


async def test_a_runner_that_is_cut_off_loses_its_runs_to_another_and_says_nothing_more(network: Network) -> None:
    stack = network.stack
    load = Load(urls_of(stack), random.Random(0), threads=4, steps=60)
    victim, offsets = stack.runners[0], stack.log_offsets()
    proxy = network.between("runner", "nats")
    try:
        await load.begin()
        held = await until(lambda: _held_by(stack, load, victim.log_text()), DEADLINE_S)
        proxy.swallow()
        await until(lambda: _are_elsewhere(stack, held, victim.log_text()), DEADLINE_S)
        await proxy.heal()
        await until(lambda: b"was taken over by" in victim.log.read_bytes()[offsets[victim.name] :], DEADLINE_S)
        # That one attempt speaks at a time is what `check` sees to.
        await load.finish()
    except BaseException:
        print(stack.logs(offsets))
        raise
    finally:
        await load.stop()
        await network.heal()


async def _holders(stack: Stack, thread_ids: list[str]) -> dict[str, str]:
    connection = await connect(stack.nats_url, "test")
    control = ControlLog(connection, await open_publisher(connection), stack.region)
    try:
        found = {}
        for thread_id in thread_ids:
            state = (await control.head(Scope(stack.region), thread_id)).state
            if state is not None and state.running is not None:
                found[thread_id] = state.running.holder or "nobody"
        return found
    finally:
        await connection.close()


async def _held_by(stack: Stack, load: Load, log_text: str) -> list[str]:
    """The threads that a runner holds, which says its name in its log."""
    holders = await _holders(stack, [thread.thread_id for thread in load.threads])
    return [thread_id for thread_id, holder in holders.items() if holder in log_text]


async def _are_elsewhere(stack: Stack, thread_ids: list[str], log_text: str) -> bool:
    holders = await _holders(stack, thread_ids)
    return all(holder not in log_text for holder in holders.values())
