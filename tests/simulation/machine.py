"""The state machine. What it draws never depends on what was answered, so a seed gives the same steps again.

Most requests are not waited for: they overlap each other, crashes and pauses.
"""

import asyncio
import functools
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

import httpx
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from simulation.checks import check
from simulation.model import Asked, Kind, Model, Thread
from simulation.requests import Requests
from simulation.streams import Reader
from simulation.world import COUNTS, World
from slipstream_schemas.errors import SlipstreamError

THREADS: Final = st.integers(0, 3)
APIS: Final = st.integers(0, 1)
ANY: Final = st.integers(0, 31)
STRATEGIES: Final = st.sampled_from(["enqueue", "enqueue", "interrupt", "rollback", "reject"])
STEPS: Final = st.integers(1, 12)
DELAYS_S: Final = st.sampled_from([0.005, 0.05, 0.15])
API_CRASHPOINTS: Final = ("created", "pending_cancelled", "thread_deleted")
CRASHPOINTS: Final = (
    *API_CRASHPOINTS, "delivered", "leased", "started", "output", "ended", "terminal", "next_work", "acknowledged",
    "state_committed",
)  # fmt: skip
RESTS_S: Final = st.sampled_from([0.02, 0.2, 0.2, 1.0, 1.0, 5.0])


WAIT_S: Final = 5.0
STILL_S: Final = 6.0
STILL_STEPS: Final = 50
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
        self._number = 0
        self._steps = 0
        # Hypothesis runs a failure once more to print it. Whether it comes again is a matter of luck: it is replayed.
        self.failed = world.failed
        if not self.failed:
            world.heal()

    def _thread(self, index: int) -> Thread:
        return self.model.threads[index]

    def _asked(self, thread: Thread | None, kind: Kind, **more: Any) -> Asked:
        self._number += 1
        asked = Asked(self._number, kind, time.monotonic(), **more)
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

    @initialize(steps=STEPS, delay_s=DELAYS_S, choice=st.integers(0, 4), point=st.sampled_from((None, *CRASHPOINTS)))
    def begin(self, steps: int, delay_s: float, choice: int, point: str | None) -> None:
        """Life on every thread, whatever rules Hypothesis leaves out of this example."""
        if self.failed:
            return
        if point is not None:
            self._doom(point, steps % 2)
            # Else the example is over before it has started.
            self.world.wait_ready()
        for t, thread in enumerate(self.model.threads):
            self.readers.append(Reader(self.world, thread, choice * (t % 2)))
            self.readers[-1].connect(t % 2)
            self._run(t, t % 2, "enqueue", "v1 create" if t % 2 else "v2", steps, delay_s, keyed=True, wait=t > 1)

    @step(t=THREADS, api=APIS, if_exists=st.sampled_from(["raise", "do_nothing"]), wait=st.booleans())
    def create_thread(self, t: int, api: int, if_exists: str, wait: bool) -> None:
        asked = self._asked(self._thread(t), "thread")
        self._go(f"create thread {t} ({if_exists})", self.requests.thread(asked, self._thread(t), api, if_exists),
                 wait=wait)  # fmt: skip

    def _run(
        self, t: int, api: int, strategy: str, how: str, steps: int, delay_s: float, *, keyed: bool, wait: bool
    ) -> None:
        thread = self._thread(t)
        asked = self._asked(thread, "run", strategy=strategy, steps=steps)
        work = self.requests.run(asked, thread, api, how, delay_s, keyed=keyed)
        self._go(f"run {asked.number} on thread {t}: {how}, {strategy}, {steps} x {delay_s}, keyed={keyed}", work,
                 wait=wait)  # fmt: skip

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
        """A process that will kill itself between two steps of what it does."""
        self._doom(point, index)

    def _doom(self, point: str, index: int) -> None:
        kind: Any = "api" if point in API_CRASHPOINTS else "runner"
        self.trace.append(f"{time.monotonic():.2f} {kind} {index} will crash at {point}")
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

    @step(index=st.integers(0, 1), strategy=STRATEGIES)
    def stand_still(self, index: int, strategy: str) -> None:
        """A runner stops in the midst of its runs for so long that the other one takes them over, and goes on."""
        for t in (0, 1):
            self._run(t, t, strategy, "v2", STILL_STEPS, 0.15, keyed=False, wait=True)
        time.sleep(0.2)
        self._pause("runner", index)
        time.sleep(STILL_S)
        self.world.resume("runner", index)

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
