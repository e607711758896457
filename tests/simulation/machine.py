"""The state machine. What it draws never depends on what was answered, so a seed gives the same steps again.

Most requests are not waited for: they overlap each other, crashes and pauses. Two moments are too short for chance, and
are brought about: a runner is overtaken while it has a queue to send and a checkpoint to write (`overtake`), and a
cancel is accepted between the end of a graph and the decision that its run has ended (`_at_the_end`).
"""

import asyncio
import contextlib
import functools
import itertools
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, cast

import httpx
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from simulation.checks import check
from simulation.model import Asked, Kind, Model, Thread
from simulation.requests import Requests
from simulation.streams import Reader
from simulation.world import COUNTS, World
from slipstream_schemas.crashpoint import STOP
from slipstream_schemas.errors import SlipstreamError
from slipstream_schemas.run_state import CancelAction, RunningRun

THREADS: Final = st.integers(0, 3)
APIS: Final = st.integers(0, 1)
ANY: Final = st.integers(0, 31)
STRATEGIES: Final = st.sampled_from(["enqueue", "enqueue", "interrupt", "rollback", "reject"])
STEPS: Final = st.integers(1, 12)
DELAYS_S: Final = st.sampled_from([0.005, 0.05, 0.15])
API_CRASHPOINTS: Final = ("created", "pending_cancelled", "thread_deleted")
RUNNER_CRASHPOINTS: Final = (
    "delivered", "leased", "started", "output", "executed", "ended", "terminal", "next_work", "acknowledged",
    "state_committed",
)  # fmt: skip
CRASHPOINTS: Final = (*API_CRASHPOINTS, *RUNNER_CRASHPOINTS, *(STOP + point for point in RUNNER_CRASHPOINTS))
RESTS_S: Final = st.sampled_from([0.02, 0.2, 0.2, 1.0, 1.0, 5.0])


WAIT_S: Final = 5.0
TAKEN_S: Final = 10.0
FLOOD_STEPS: Final = 40
FLOOD_DELAY_S: Final = 0.05
LATENCY_S: Final = 0.15
"""A record takes twice this time on a slow link: a flood makes a queue, and an acknowledgement is under way."""
SLOW_RECORDS: Final = 2
OVERTAKEN_S: Final = 15.0
END_S: Final = 150.0
END: Final = -1


def step(**arguments: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """A rule that does nothing while a failure is replayed."""

    def decorate(body: Callable[..., None]) -> Any:
        @functools.wraps(body)
        def run(self: "Simulation", **drawn: Any) -> None:
            if not self.failed:
                body(self, **drawn)

        return cast("Any", rule)(**arguments)(run)

    return decorate


class Simulation(RuleBasedStateMachine):
    """Drives the world. Each example has threads of its own."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.model = Model()
        self.requests = Requests(world)
        self.readers: list[Reader] = []
        self.trace: list[str] = []
        self._tasks: list[Any] = []
        self._numbers = itertools.count(1)
        self._at_ends: Iterator[CancelAction | None] = itertools.cycle((None,))
        self._steps = 0
        # Hypothesis runs a failure once more to print it. Whether it comes again is a matter of luck: it is replayed.
        self.failed = world.failed
        world.at_the_end = None if self.failed else self._at_the_end
        if not self.failed:
            world.heal()

    def _thread(self, index: int) -> Thread:
        return self.model.threads[index]

    def _asked(self, thread: Thread | None, kind: Kind, **more: Any) -> Asked:
        asked = Asked(next(self._numbers), kind, time.monotonic(), **more)
        if thread is not None:
            thread.asked.append(asked)
        return asked

    def _go(self, what: str, work: Coroutine[Any, Any, Any], *, wait: bool) -> None:
        self.trace.append(f"{time.monotonic():.2f} {what}{' …' if wait else ''}")
        self.world.count("steps")
        task = self.world.begin(work)
        self._tasks.append(task)
        if wait:
            self.world.run(_ended(task, WAIT_S))

    @initialize(
        steps=STEPS, delay_s=DELAYS_S, choice=st.integers(0, 4), point=st.sampled_from((None, *CRASHPOINTS)),
        at_ends=st.permutations((None, "interrupt", "rollback")), overtake=st.sampled_from((True, False)),
    )  # fmt: skip
    def begin(
        self, steps: int, delay_s: float, choice: int, point: str | None, at_ends: list[CancelAction | None],
        overtake: bool,
    ) -> None:  # fmt: skip
        """Life on every thread, whatever rules Hypothesis leaves out of this example."""
        if self.failed:
            return
        self._at_ends = itertools.cycle(at_ends)
        if point is not None:
            self._doom(point, steps % 2)
            # Else the example is over before it has started.
            self.world.wait_ready()
        for t, thread in enumerate(self.model.threads):
            self.readers.append(Reader(self.world, thread, choice * (t % 2)))
            self.readers[-1].connect(t % 2)
            self._run(t, t % 2, "enqueue", "v1 create" if t % 2 else "v2", steps, delay_s, keyed=True, wait=t > 1)
        if overtake:
            self._overtake(choice % 2, choice % 2, "interrupt")

    @step(t=THREADS, api=APIS, if_exists=st.sampled_from(["raise", "do_nothing"]), wait=st.booleans())
    def create_thread(self, t: int, api: int, if_exists: str, wait: bool) -> None:
        asked = self._asked(self._thread(t), "thread")
        self._go(f"create thread {t} ({if_exists})", self.requests.thread(asked, self._thread(t), api, if_exists),
                 wait=wait)  # fmt: skip

    async def _at_the_end(self, holder: str) -> None:
        """A runner stands between the end of a graph and what it decides on it: now its runs are cancelled, or not."""
        action = next(self._at_ends)
        for t, thread in enumerate(self.model.threads):
            # While the broker is away, nobody can tell what it holds.
            with contextlib.suppress(SlipstreamError):
                running = await self.world.running(thread.thread_id)
                if action is not None and running is not None and running.holder == holder:
                    asked = self._asked(thread, "cancel", target=running.run_id, action=action)
                    self.trace.append(f"{time.monotonic():.2f} cancel {running.run_id} at its end ({action})")
                    await self.requests.cancel(asked, thread, t % 2)

    def _run(
        self, t: int, api: int, strategy: str, how: str, steps: int, delay_s: float, *, keyed: bool, wait: bool
    ) -> Asked:
        thread = self._thread(t)
        asked = self._asked(thread, "run", strategy=strategy, steps=steps)
        work = self.requests.run(asked, thread, api, how, delay_s, keyed=keyed)
        self._go(f"run {asked.number} on thread {t}: {how}, {strategy}, {steps} x {delay_s}, keyed={keyed}", work,
                 wait=wait)  # fmt: skip
        return asked

    @step(t=THREADS, api=APIS, strategy=STRATEGIES, how=st.sampled_from(["v1", "v1 create"]), steps=STEPS,
          delay_s=DELAYS_S, keyed=st.booleans(), wait=st.booleans())  # fmt: skip
    def create_run_by_v1(
        self, t: int, api: int, strategy: str, how: str, steps: int, delay_s: float, keyed: bool, wait: bool
    ) -> None:
        self._run(t, api, strategy, how, steps, delay_s, keyed=keyed, wait=wait)

    @step(t=THREADS, api=APIS, strategy=STRATEGIES, steps=STEPS, delay_s=DELAYS_S, keyed=st.booleans(),
          wait=st.booleans())  # fmt: skip
    def create_run_by_v2(
        self, t: int, api: int, strategy: str, steps: int, delay_s: float, keyed: bool, wait: bool
    ) -> None:
        self._run(t, api, strategy, "v2", steps, delay_s, keyed=keyed, wait=wait)

    @step(runs=st.lists(st.tuples(THREADS, APIS, STRATEGIES, STEPS, st.booleans()), min_size=2, max_size=5))
    def create_runs_at_once(self, runs: list[tuple[int, int, str, int, bool]]) -> None:
        for t, api, strategy, steps, keyed in runs:
            self._run(t, api, strategy, "v1 create" if keyed else "v2", steps, 0.05, keyed=keyed, wait=False)

    @step(t=THREADS, api=APIS, strategy=STRATEGIES, steps=STEPS, count=st.integers(1, 20),
          on_disconnect=st.sampled_from(["cancel", "continue"]), wait=st.booleans())  # fmt: skip
    def stream_run_and_leave(
        self, t: int, api: int, strategy: str, steps: int, count: int, on_disconnect: str, wait: bool
    ) -> None:
        thread = self._thread(t)
        asked = self._asked(thread, "run", strategy=strategy, steps=steps)
        if on_disconnect == "cancel":
            asked.action = "interrupt"
        work = self.requests.run_and_leave(asked, thread, api, on_disconnect, count)
        self._go(f"run {asked.number} on thread {t}: streamed for {count} frames, {on_disconnect}", work, wait=wait)

    @step(t=THREADS, api=APIS, which=ANY, action=st.sampled_from(["interrupt", "rollback"]), wait=st.booleans())
    def cancel(self, t: int, api: int, which: int, action: str, wait: bool) -> None:
        thread = self._thread(t)
        run_ids = thread.run_ids
        if run_ids:
            # The newest ones are the ones that may still run.
            target = run_ids[-1 - which % min(len(run_ids), 3)]
            asked = self._asked(thread, "cancel", target=target, action=action)
            self._go(f"cancel {target} on thread {t} ({action})", self.requests.cancel(asked, thread, api), wait=wait)

    @step(t=st.integers(2, 3), api=APIS, how=st.sampled_from(["right", "right", "wrong", "twice", "race"]),
          wait=st.booleans())  # fmt: skip
    def respond(self, t: int, api: int, how: str, wait: bool) -> None:
        thread = self._thread(t)
        askeds = [self._asked(thread, "respond") for _ in range(2 if how in ("twice", "race") else 1)]
        self._go(f"respond on thread {t} ({how})", self.requests.respond(askeds, thread, api, how), wait=wait)

    @step(t=THREADS, api=APIS, rare=st.integers(0, 2), wait=st.booleans())
    def delete_thread(self, t: int, api: int, rare: int, wait: bool) -> None:
        if rare == 0:
            asked = self._asked(self._thread(t), "delete")
            self._go(f"delete thread {t}", self.requests.delete(asked, self._thread(t), api), wait=wait)

    @step(t=THREADS, api=APIS, wait=st.booleans())
    def post_state(self, t: int, api: int, wait: bool) -> None:
        asked = self._asked(self._thread(t), "state")
        self._go(f"post state of thread {t}", self.requests.post_state(asked, self._thread(t), api), wait=wait)

    @step(api=APIS, which=ANY)
    def refused(self, api: int, which: int) -> None:
        asked = self._asked(None, "bad")

        async def send() -> None:
            self.model.strangers.append(await self.requests.bad(asked, api, which))

        self._go(f"bad command {which}", send(), wait=False)

    @step(t=THREADS, api=APIS, choice=st.integers(0, 4))
    def open_stream(self, t: int, api: int, choice: int) -> None:
        self.trace.append(f"{time.monotonic():.2f} open stream {len(self.readers)} of thread {t} on api {api}")
        self.readers.append(Reader(self.world, self._thread(t), choice))
        self.readers[-1].connect(api)

    @step(t=THREADS, api=APIS)
    def open_run_stream(self, t: int, api: int) -> None:
        run_ids = self._thread(t).run_ids
        if run_ids:
            self.readers.append(Reader(self.world, self._thread(t), 0, run_ids[-1]))
            self.readers[-1].connect(api)

    @step(which=ANY)
    def disconnect(self, which: int) -> None:
        if self.readers:
            self.readers[which % len(self.readers)].disconnect()

    @step(which=ANY, api=APIS)
    def resume_stream(self, which: int, api: int) -> None:
        if self.readers:
            self.world.count("resumes")
            self.readers[which % len(self.readers)].connect(api)

    @step(kind=st.sampled_from(["api", "runner", "runner", "runner", "projector"]), index=st.integers(0, 1))
    def crash(self, kind: Any, index: int) -> None:
        index %= COUNTS[kind]
        self.trace.append(f"{time.monotonic():.2f} kill {kind} {index}")
        self.world.count(f"kills of {kind}s")
        self.model.crashed |= kind == "runner"
        self.world.crash(kind, index)

    @step(point=st.sampled_from(CRASHPOINTS), index=st.integers(0, 1))
    def doom(self, point: str, index: int) -> None:
        """A process that will kill itself between two steps of what it does, or stop until it is overtaken."""
        self._doom(point, index)

    def _doom(self, point: str, index: int) -> None:
        kind: Any = "api" if point in API_CRASHPOINTS else "runner"
        self.trace.append(f"{time.monotonic():.2f} {kind} {index} is doomed at {point}")
        self.world.count(f"kills of {kind}s")
        self.model.crashed |= kind == "runner"
        self.world.crash(kind, index, point)

    @step(kind=st.sampled_from(["runner", "runner", "projector"]), index=st.integers(0, 1))
    def pause(self, kind: Any, index: int) -> None:
        self._pause(kind, index % COUNTS[kind])

    def _pause(self, kind: Any, index: int) -> None:
        self.trace.append(f"{time.monotonic():.2f} pause {kind} {index}")
        self.world.count(f"pauses of {kind}s")
        self.model.crashed |= kind == "runner"
        self.world.pause(kind, index)

    @step(kind=st.sampled_from(["runner", "runner", "projector"]), index=st.integers(0, 1))
    def go_on(self, kind: Any, index: int) -> None:
        self.trace.append(f"{time.monotonic():.2f} {kind} {index} goes on")
        self.world.resume(kind, index % COUNTS[kind])

    @step(t=st.integers(0, 1), api=APIS, strategy=st.sampled_from(["interrupt", "rollback"]), rare=st.integers(0, 1))
    def overtake(self, t: int, api: int, strategy: str, rare: int) -> None:
        if rare == 0:
            self._overtake(t, api, strategy)

    def _overtake(self, t: int, api: int, strategy: str) -> None:
        """A runner stands still in a flood, amid a checkpoint, is overtaken by another, and goes on."""
        world, thread_id = self.world, self._thread(t).thread_id
        for each in range(COUNTS["runner"]):
            world.resume("runner", each)
        asked = self._run(t, api, strategy, "v2", FLOOD_STEPS, FLOOD_DELAY_S, keyed=False, wait=True)
        running = world.wait_for(lambda: self._taken(thread_id, asked.run_id), TAKEN_S) if asked.run_id else None
        index = world.runner(running.holder) if running is not None else None
        if running is None or index is None:
            return
        with world.slow(index, LATENCY_S):
            for _ in range(SLOW_RECORDS):
                self._await_record(thread_id)
            self._pause("runner", index)
        if world.wait_for(lambda: self._overtaken(thread_id, running), OVERTAKEN_S):
            self.trace.append(f"{time.monotonic():.2f} runner {index} was overtaken")
            world.count("runners overtaken")
        self.trace.append(f"{time.monotonic():.2f} runner {index} goes on")
        world.resume("runner", index)

    async def _taken(self, thread_id: str, run_id: str | None) -> RunningRun | None:
        running = await self.world.running(thread_id)
        return running if running is not None and running.run_id == run_id and running.holder else None

    def _await_record(self, thread_id: str) -> None:
        last = self.world.wait_for(lambda: self._last_record(thread_id, 0), WAIT_S) or 0
        self.world.wait_for(lambda: self._last_record(thread_id, last), WAIT_S)

    async def _last_record(self, thread_id: str, above: int) -> int | None:
        last = await self.world.threads.last_seq(self.world.scope, thread_id)
        return last if last > above else None

    async def _overtaken(self, thread_id: str, before: RunningRun) -> bool:
        # Once the next attempt has spoken, whatever the one before says comes too late.
        last = await self.world.threads.last(self.world.scope, thread_id)
        return last is not None and (last.header.run_id, last.header.attempt) != (before.run_id, before.attempt)

    @step(rare=st.integers(0, 3))
    def restart_broker(self, rare: int) -> None:
        if rare == 0:
            self.trace.append(f"{time.monotonic():.2f} restart broker")
            self.world.count("restarts of the broker")
            self.world.restart_broker()

    @step(rest_s=RESTS_S)
    def rest(self, rest_s: float) -> None:
        time.sleep(rest_s)

    @invariant()
    def nothing_is_wrong_so_far(self) -> None:
        self._steps += 1
        if self.failed:
            self._fail_again(self._steps)
            return
        self.world.revive()
        wrong = [*self.requests.wrong, *(f"{r.name}: {each}" for r in self.readers for each in r.wrong)]
        if wrong:
            self._fail(self._steps, AssertionError("\n".join(wrong)))

    def teardown(self) -> None:
        if self.failed:
            self._fail_again(END)
            return
        try:
            self._settle()
            if self.world.failed is not None:
                return
            self.nothing_is_wrong_so_far()
            check(self.world, self.model, self.readers)
            self.world.count("examples")
        except (AssertionError, TimeoutError, SlipstreamError, httpx.HTTPError, ExceptionGroup) as error:
            if self.world.failed is not None:
                return
            self._fail(END, error)
        finally:
            for reader in self.readers:
                reader.disconnect()

    def _settle(self) -> None:
        """Everything lives, and nothing is under way any more."""
        self.world.heal()
        for task in self._tasks:
            self.world.run(_ended(task, END_S))
        for reader in self.readers:
            reader.disconnect()

    def _fail(self, step: int, error: Exception) -> None:
        print("\n".join(self.trace))
        for number, thread in enumerate(self.model.threads):
            print(f"thread {number} ({thread.graph}) {thread.thread_id}")
            for asked in thread.asked:
                print(f"  {asked}")
        print(self.world.logs())
        print(f"{type(error).__name__}: {error}")
        if not os.environ.get("SIMULATION_SHRINK"):
            self.world.failed = step, error
        raise error

    def _fail_again(self, step: int) -> None:
        if self.failed is not None and self.failed[0] == step:
            raise self.failed[1]


async def _ended(task: "asyncio.Task[Any]", deadline_s: float) -> None:
    await asyncio.wait([task], timeout=deadline_s)
    if task.done():
        task.result()
    elif deadline_s == END_S:
        raise TimeoutError(f"not answered within {deadline_s} s: {task.get_coro()}")
