"""The simulation: `just sim` runs a long one, `just sim seed=42` one again, every test run a short one.

A seed gives the same commands, faults and pauses in the same order again, with the same arguments. What it does not
give again is the scheduling of processes and packets between them, which runs a runner holds when it freezes, nor the
ids that servers choose: a failure that hangs on a race may need its seed a few times.
`SIMULATION_SEED`, `SIMULATION_EXAMPLES` and `SIMULATION_STEPS` set the size; `SIMULATION_SHRINK=1` looks for a shorter
failure, which takes minutes.
"""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from simulation.machine import Simulation
from simulation.world import World, environment
from testkit.servers import NatsServer, fresh_database

EXAMPLES, STEPS = 3, 25


@pytest.fixture
def world(own_nats: NatsServer, database_dsn: str, postgres_dsn: str, region: str, tmp_path: Path) -> Iterator[World]:
    """The whole stack on a broker of its own, and a second database for what is rebuilt."""
    with (
        fresh_database(postgres_dsn) as scratch_dsn,
        World(own_nats, database_dsn, scratch_dsn, region, tmp_path / "stack") as opened,
    ):
        yield opened


def test_whatever_happens_nothing_is_lost_doubled_or_left(world: World) -> None:
    number = environment("SIMULATION_SEED", secrets.randbits(32))
    print(f"just sim seed={number}")
    phases = [Phase.explicit, Phase.generate]
    if os.environ.get("SIMULATION_SHRINK"):
        phases.append(Phase.shrink)
    size = settings(
        max_examples=environment("SIMULATION_EXAMPLES", EXAMPLES),
        stateful_step_count=environment("SIMULATION_STEPS", STEPS),
        phases=phases,
        deadline=None,
        database=None,
        print_blob=True,
        report_multiple_bugs=False,
        verbosity=Verbosity.normal,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )

    def machine() -> Simulation:
        return Simulation(world)

    try:
        run_state_machine_as_test(seed(number)(machine), settings=size)  # type: ignore[arg-type]
    except BaseException as error:
        error.add_note(f"again: just sim seed={number}")
        raise
    finally:
        print(f"just sim seed={number}:", ", ".join(f"{count} {name}" for name, count in sorted(world.counts.items())))
