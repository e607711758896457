"""Every process is replaced, one after the other, while runs and streams are live: nobody loses anything.

`ROLLING_STREAMS` says how many threads, each with a run and a stream.
"""

import asyncio
import os
import random
from typing import Final

from testkit.load import Load, check_rows, urls_of
from testkit.service import Service
from testkit.stack import Stack

STREAMS: Final = int(os.environ.get("ROLLING_STREAMS", "20"))
STEPS: Final = 8
DELAY_S: Final = max(0.5, STREAMS / 50)
"""A run takes longer than a runner may take to stop, whatever so many cost the machine: some are handed over."""
SETTINGS: Final = {"slipstream_drain_grace_s": "2", "slipstream_runner_slots": str(STREAMS)}


async def replace_all(stack: Stack, kind: str) -> None:
    """Replace each service of a kind, one after the other."""
    for old in [service for service in stack.services if service.name.startswith(kind)]:
        await replace(stack, kind, old)


async def replace(stack: Stack, kind: str, old: Service) -> None:
    """Start a new one, wait until it serves, and ask the old one to stop."""
    spawn = {"api": stack.spawn_api, "runner": stack.spawn_runner, "projector": stack.spawn_projector}
    new = spawn[kind](**SETTINGS)
    if kind != "projector":
        # A second projector is not ready before the first one is gone.
        await new.ready()
    old.terminate()
    assert await old.ended() == 0, old.log_tail()
    await new.ready()


async def test_all_services_are_replaced_under_load(stack: Stack) -> None:
    await asyncio.to_thread(lambda: stack.start(2, 2, 1, **SETTINGS))
    replaced = asyncio.Event()
    load = Load(urls_of(stack), random.Random(0), STREAMS, steps=STEPS, delay_s=DELAY_S, until=replaced)
    try:
        await load.begin()
        await asyncio.gather(*(replace_all(stack, kind) for kind in ("api", "runner", "projector")))
        replaced.set()
        await load.finish()
    finally:
        await load.stop()
    resumes, attempts = [[getattr(thread, name) for thread in load.threads] for name in ("resumes", "attempts")]
    runs = sum(len(thread.run_ids) for thread in load.threads)
    print(f"{STREAMS} threads, {runs} runs, {sum(resumes)} resumes, {sum(count > 1 for count in attempts)} handed over")
    assert max(attempts) > 1, "no run was handed over"
    await check_rows(stack)
