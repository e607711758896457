"""Executing one attempt: the graph is driven once for both protocols, and its output flows through one publisher.

Two tasks: one drives the graph and feeds the translator, one publishes what has gathered. Whoever wants the graph to
stop sets the attempt's `stop` and cancels the first; a publisher that fails does the same.
"""

import asyncio
import contextlib
import logging


from slipstream_runner.checkpoints import FencedSaver
from slipstream_runner.ending import Outcome, end, release
from slipstream_runner.flush import Flusher
from slipstream_runner.graphs import AnyGraph
from slipstream_runner.inputs import graph_input, run_config
from slipstream_runner.opening import opening_body
from slipstream_runner.runtime import CURRENT_FENCE, Attempt, Runtime, now_ms
from slipstream_runner.translate import MODES, LlmRuns, Translator, describe_error
from slipstream_schemas.errors import Conflict, Fenced, NotFound, TooLarge, Unavailable
from slipstream_schemas.limits import RUN_CRASHES_MAX
from slipstream_schemas.run_state import ThreadStatus
from slipstream_schemas.terminal import Interrupt

log = logging.getLogger("slipstream.runner")

RETRY_DELAY_S = 1.0
"""After this pause a run that lacked Postgres is tried again."""


async def execute(runtime: Runtime, attempt: Attempt) -> None:
    """Take a started attempt to its end, whatever that is. Raises: Fenced, Unavailable, Corrupt, TooLarge."""
    try:
        outcome = await Execution(runtime, attempt).run()
        if outcome is not None:
            await end(runtime, attempt, outcome)
    except Fenced as error:
        attempt.cancel("fenced")
        log.warning("run %s: attempt %d stops, %s", attempt.run.run_id, attempt.number, error.message)
    if attempt.stop in ("release", "retry"):
        with contextlib.suppress(Conflict):
            await release(runtime, attempt, RETRY_DELAY_S if attempt.stop == "retry" else 0)
    elif attempt.stop == "deleted":
        await attempt.item.ack()
    elif attempt.stop == "fenced":
        await _after_fence(runtime, attempt)


async def _after_fence(runtime: Runtime, attempt: Attempt) -> None:
    """Usually another attempt rules, and its holder acknowledges. If only the lease was taken, the run is offered again."""
    with contextlib.suppress(Unavailable):
        state = (await runtime.control.head(attempt.scope, attempt.thread_id)).state
        if state is not None and state.running is not None and state.running.fence == attempt.fence:
            await attempt.item.nak(0)


class Execution:
    """One attempt at running a graph."""

    def __init__(self, runtime: Runtime, attempt: Attempt) -> None:
        self._runtime, self._attempt = runtime, attempt
        self._llm_runs = LlmRuns()
        self._translator = Translator(attempt.number, self._llm_runs)

    async def run(self) -> Outcome | None:
        """How the run ended; None when it goes on elsewhere. Raises: Fenced, Unavailable, Corrupt."""
        attempt = self._attempt
        flusher = Flusher(self._runtime, attempt, self._translator, await opening_body(self._runtime, attempt))
        attempt.owe = flusher.owe
        for owed in attempt.state.owed:
            flusher.owe(owed)
        flushing = asyncio.create_task(flusher.run())
        driving = asyncio.create_task(self._drive(flusher))
        attempt.task = driving
        if attempt.stop is not None:
            driving.cancel()
        flushing.add_done_callback(lambda _: driving.cancel())
        try:
            await asyncio.wait({driving})
            outcome = self._outcome(driving)
            if outcome is not None:
                text = None if outcome.error is None else f"{outcome.error['error']}: {outcome.error['message']}"
                self._translator.finish(outcome.root_status, text, now_ms())
            flusher.close()
            try:
                await flushing
            except TooLarge as error:
                outcome = Outcome("error", "error", {"error": "TooLarge", "message": error.message})
            return outcome
        finally:
            driving.cancel()
            flushing.cancel()

    async def _drive(self, flusher: Flusher) -> None:
        """Run the graph to its end."""
        attempt, runtime = self._attempt, self._runtime
        running = attempt.state.running
        if running is not None and running.crashes > RUN_CRASHES_MAX:
            raise Conflict(f"the run was given up: its runner vanished {running.crashes} times")
        if running is not None and running.cancel is not None:
            attempt.stop = attempt.stop or running.cancel
            return
        CURRENT_FENCE.set(attempt.fence)
        saver = FencedSaver(runtime.checkpoints, attempt.scope, attempt.thread_id, attempt.fence)
        config = run_config(attempt, [self._llm_runs])
        limit_s = runtime.settings.run_timeout_s
        try:
            async with (
                asyncio.timeout(limit_s) as limit,
                runtime.graphs.use(attempt.run.graph_id, config, saver, "threads.create_run", attempt.run.context) as graph,
            ):
                await self._stream(graph, config, flusher)
        except TimeoutError:
            if not limit.expired():
                raise
            attempt.stop = attempt.stop or "timeout"

    async def _stream(self, graph: AnyGraph, config: dict[str, object], flusher: Flusher) -> None:
        run, translator = self._attempt.run, self._translator
        parts = graph.astream(
            graph_input(self._attempt), config, context=run.context, stream_mode=list(MODES), subgraphs=True,
            durability=run.durability or "async", interrupt_before=run.interrupt_before,
            interrupt_after=run.interrupt_after,
        )  # type: ignore[call-overload]  # fmt: skip
        async for namespace, mode, payload in parts:
            translator.feed(namespace, mode, payload, now_ms())
            flusher.notify()
            await flusher.room()
        if translator.next_nodes is None:
            # Nothing was checkpointed: the run found its thread finished, or waiting.
            snapshot = await graph.aget_state(config)  # type: ignore[arg-type]
            translator.next_nodes = tuple(snapshot.next)
            for task in snapshot.tasks:
                for found in task.interrupts:
                    translator.interrupts.setdefault(found.id, Interrupt(found.id, found.value, (), task.id))

    def _outcome(self, driving: "asyncio.Task[None]") -> Outcome | None:
        """What the end of the graph means. Raises: Unavailable when the publisher failed."""
        attempt = self._attempt
        error = None if driving.cancelled() else driving.exception()
        if attempt.stop in ("release", "retry", "fenced", "deleted"):
            return None
        if isinstance(error, Fenced):
            raise error
        if isinstance(error, Unavailable):
            log.warning("run %s: attempt %d is given back: %s", attempt.run.run_id, attempt.number, error.message)
            attempt.stop = "retry"
            return None
        if attempt.stop == "timeout":
            text = f"the run took longer than {self._runtime.settings.run_timeout_s:g} s"
            return Outcome("timeout", "error", {"error": "TimeoutError", "message": text})
        if attempt.stop in ("interrupt", "rollback"):
            return Outcome("interrupted", self._thread_status())
        if driving.cancelled():
            return Outcome("error", "error", {"error": "CancelledError", "message": "the graph cancelled itself"})
        if error is not None:
            return Outcome("error", "error", self._described(error))
        interrupts = tuple(self._translator.interrupts.values()) if self._thread_status() == "interrupted" else ()
        return Outcome("success", self._thread_status(), interrupts=interrupts)

    def _thread_status(self) -> ThreadStatus:
        following = self._translator.next_nodes
        if following is None:
            return "interrupted" if self._attempt.state.interrupts else "idle"
        return "interrupted" if following else "idle"

    def _described(self, error: BaseException) -> dict[str, str]:
        if isinstance(error, (NotFound, Conflict)):
            return {"error": type(error).__name__, "message": error.message}
        log.error("run %s: its graph failed", self._attempt.run.run_id, exc_info=error)
        return describe_error(error)


