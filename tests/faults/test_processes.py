"""kill -9 and SIGSTOP of a random process at a random moment under load, trial after trial on one stack.

`FAULT_TRIALS` says how many (20), `FAULT_SEED` where the seeds begin: `FAULT_TRIALS=1 FAULT_SEED=<printed>` replays a
trial's choices.
"""

import asyncio
import os
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest

from slipstream_nats.provision import StreamSettings
from testkit.load import Load, check_rows, urls_of
from testkit.servers import NatsServer, PostgresServer
from testkit.service import Service
from testkit.stack import Stack, prepare

TRIALS: Final = int(os.environ.get("FAULT_TRIALS", "20"))
SEED: Final = int(os.environ.get("FAULT_SEED", "0")) or secrets.randbelow(10**6)
TRIALS_ON_A_STACK: Final = 20
ACK_WAIT_S: Final = 2.0
BEGINS_S: Final = 0.8
AWAY_S: Final = 1.0
FROZEN_S: Final = 3.5 if TRIALS < 200 else 9.0
"""Longer than a lease; in the long series also than a dead link goes unnoticed."""
SUPERVISES_EVERY_S: Final = 0.1
VICTIMS: Final = ("api", "runner", "projector", "nats", "postgres")


class Site:
    """Servers and services, each of which may be killed, frozen and brought back."""

    def __init__(self, stack: Stack, nats: NatsServer, postgres: PostgresServer) -> None:
        self.stack = stack
        self._servers: dict[str, NatsServer | PostgresServer] = {"nats": nats, "postgres": postgres}
        self._gone: set[str] = set()
        """The services of which it is known that they have ended."""

    def spawn(self, kind: str, port: str | None = None) -> Service:
        """Start a service without waiting."""
        spawn: dict[str, Callable[..., Service]] = {
            "api": self.stack.spawn_api, "runner": self.stack.spawn_runner, "projector": self.stack.spawn_projector,
        }  # fmt: skip
        options = {"slipstream_ack_wait_s": str(ACK_WAIT_S), "slipstream_sweep_s": "2"}
        return spawn[kind](**options, **({"slipstream_port": port} if port else {}))

    async def kill(self, kind: str, chance: random.Random, away_s: float) -> None:
        """Kill one of a kind and bring another in its place."""
        if (server := self._servers.get(kind)) is not None:
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(away_s)
            await asyncio.to_thread(server.start)
            return
        victim = self._choose(kind, chance)
        self._gone.add(victim.name)
        victim.kill()
        await asyncio.sleep(away_s)
        self._replace(victim)

    async def supervise(self) -> None:
        """What finds a server away when it starts says so and ends, and its supervisor starts it again.

        Nothing else ends by itself. Raises: AssertionError.
        """
        while True:
            for service in [each for each in self.stack.services if each.name not in self._gone and not each.is_alive]:
                self._gone.add(service.name)
                said = service.log_text()
                assert "ready: " not in said and f"\nslipstream {service.name.partition('-')[0]}: " in f"\n{said}", (
                    f"{service.name} ended by itself with {service.process.returncode}:\n{service.log_tail()}"
                )
                self._replace(service)
            await asyncio.sleep(SUPERVISES_EVERY_S)

    def _replace(self, old: Service) -> None:
        self.spawn(old.name.partition("-")[0], old.url.rpartition(":")[2] if old.url else None)

    async def freeze(self, kind: str, chance: random.Random, away_s: float) -> None:
        """Freeze one of a kind for a while."""
        victim = self._servers.get(kind) or self._choose(kind, chance)
        victim.pause()
        try:
            await asyncio.sleep(away_s)
        finally:
            victim.resume()

    def _choose(self, kind: str, chance: random.Random) -> Service:
        return chance.choice([each for each in self.stack.services if each.name.startswith(kind) and each.is_alive])


@pytest.fixture
async def site(own_nats: NatsServer, own_postgres: PostgresServer, region: str, tmp_path: Path) -> AsyncIterator[Site]:
    """Two APIs, two runners and a projector on servers of their own."""
    with Stack(own_nats.url, own_postgres.dsn, region, tmp_path / "stack") as stack:
        await prepare(own_nats.url, own_postgres.dsn, region, StreamSettings(ack_wait_s=ACK_WAIT_S))
        made = Site(stack, own_nats, own_postgres)
        for kind in ("api", "api", "runner", "runner", "projector"):
            made.spawn(kind)
        for service in stack.services:
            await service.ready()
        yield made


async def trial(site: Site, seed: int) -> str:
    """One fault under load; what it was. Raises: AssertionError."""
    chance = random.Random(seed)
    load = Load(urls_of(site.stack), chance, threads=3, runs=2, steps=chance.randint(4, 10), delay_s=0.05)
    kind, act = chance.choice(VICTIMS), chance.choice(("kill", "freeze"))
    begins_s, away_s = chance.uniform(0, BEGINS_S), chance.uniform(0, AWAY_S if act == "kill" else FROZEN_S)
    what = f"{act} {kind} after {begins_s:.2f} s for {away_s:.2f} s"
    supervising = asyncio.create_task(site.supervise())
    try:
        await load.begin(is_running=chance.random() < 0.5)
        await asyncio.sleep(begins_s)
        await (site.kill if act == "kill" else site.freeze)(kind, chance, away_s)
        await load.finish()
        if supervising.done():
            supervising.result()
    except BaseException as error:
        error.add_note(f"FAULT_TRIALS=1 FAULT_SEED={seed} replays it: {what}")
        raise
    finally:
        supervising.cancel()
        await load.stop()
    return what


@pytest.mark.parametrize("first", range(0, TRIALS, TRIALS_ON_A_STACK))
async def test_nothing_is_lost_or_doubled_whatever_is_killed_or_frozen(site: Site, first: int) -> None:
    for number in range(first, min(first + TRIALS_ON_A_STACK, TRIALS)):
        offsets, begun = site.stack.log_offsets(), time.monotonic()
        try:
            what = await trial(site, SEED + number)
        except BaseException:
            print(site.stack.logs(offsets))
            raise
        print(f"trial {number}, seed {SEED + number}: {what}, whole after {time.monotonic() - begun:.1f} s", flush=True)
    await check_rows(site.stack)
