"""The worker: takes runs while it has free slots, executes each in a task, drains when it is asked to stop."""

import asyncio
import contextlib
import logging
import time

from slipstream_nats import rpc
from slipstream_nats.workqueue import WorkItem, WorkPuller
from slipstream_runner.ending import end
from slipstream_runner.execute import Outcome, execute
from slipstream_runner.flush import Flusher
from slipstream_runner.metrics import UNKNOWN
from slipstream_runner.pulse import Pulse, current_run
from slipstream_runner.runtime import Attempt, Runtime
from slipstream_runner.taking import take
from slipstream_runner.translate import LlmRuns, Translator
from slipstream_schemas import subjects
from slipstream_schemas.errors import NoResponder, SlipstreamError, Unavailable
from slipstream_schemas.limits import RUN_CRASHES_MAX
from slipstream_schemas.log_lines import about
from slipstream_schemas.trace_metadata import trace_attributes
from slipstream_schemas.traceparent import carried
from slipstream_telemetry.tracing import Span

log = logging.getLogger("slipstream.runner")

RETRY_DELAY_S = 1.0
FOREIGN_GRAPH_DELAY_S = 0.5


class Worker:
    """Runs in this process. `held` is keyed by fence: a thread that has the id of a deleted one may begin a run while
    that one's still ends.
    """

    def __init__(self, runtime: Runtime, pulse: Pulse) -> None:
        self._runtime, self._pulse = runtime, pulse
        self._tasks: set[asyncio.Task[None]] = set()
        self.held: dict[int, Attempt] = {}
        self.flushers: set[Flusher] = set()
        self._stopping = False
        self._puller: WorkPuller | None = None

    async def work(self) -> None:
        """Take and execute runs until stopped."""
        puller = self._puller = WorkPuller(self._runtime.connection, self._runtime.settings.region)
        await puller.open()
        while not self._stopping:
            free = self._runtime.settings.runner_slots - len(self._tasks)
            if free <= 0:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                continue
            for item in await puller.pull(free):
                self._pulse.delivered(item.ack_subject)
                task = asyncio.create_task(self._one(item))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Take nothing new; give running runs their grace period, then hand them back."""
        self._stopping = True
        if self._puller is not None:
            with contextlib.suppress(SlipstreamError):
                await self._puller.close()
        if self._tasks:
            log.info("draining: %d runs have %.0f s to end", len(self._tasks), self._runtime.settings.drain_grace_s)
            await asyncio.wait(self._tasks, timeout=self._runtime.settings.drain_grace_s)
        for attempt in list(self.held.values()):
            attempt.cancel("release")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._runtime.settings.drain_grace_s)

    async def _one(self, item: WorkItem) -> None:
        """One work item, to its end. This is a task's boundary: what goes wrong is logged and the item comes back."""
        current_run.set(item.run_id)
        about.set(lambda: {"run_id": item.run_id, "thread_id": item.thread_id})
        try:
            attempt = await take(self._runtime, item)
            if attempt is not None:
                await self._execute(attempt)
        except SlipstreamError as error:
            log.warning("run %s comes back later: %s", item.run_id, error.message)
            await self._give_back(item)
        except Exception:
            log.exception("run %s comes back later", item.run_id)
            await self._give_back(item)
        finally:
            self._pulse.answered(item.ack_subject)

    def waiting_lines(self) -> int:
        """Lines that wait for the log, of all runs. May be called from any thread."""
        return sum(flusher.waiting_lines for flusher in list(self.flushers))

    async def _give_back(self, item: WorkItem) -> None:
        with contextlib.suppress(SlipstreamError):
            await item.nak(RETRY_DELAY_S)

    async def _execute(self, attempt: Attempt) -> None:
        self.held[attempt.fence] = attempt
        self._pulse.hold(attempt)
        del self._runtime.beginning[attempt.fence]
        self._runtime.taking.discard(attempt.fence)
        begun, kind = time.monotonic(), "lost"
        span = self._begin_span(attempt)
        try:
            refused = await self._refusal(attempt)
            if refused is not None and refused.kind == "release":
                kind = refused.kind
                await end(self._runtime, attempt, refused, Translator(attempt.number, LlmRuns()))
                return
            if refused is not None:
                outcome, translator = refused, Translator(attempt.number, LlmRuns())
            else:
                with span.entered():
                    outcome, translator = await execute(self._runtime, attempt, self.flushers)
            kind = outcome.kind
            self._runtime.crash.reach("executed")
            await end(self._runtime, attempt, outcome, translator)
            log.info("run %s attempt %d: %s in %.2f s", attempt.run.run_id, attempt.number, outcome.kind,
                     time.monotonic() - begun)  # fmt: skip
        finally:
            self._over(attempt, span, kind, time.monotonic() - begun)
            self._pulse.drop(attempt)
            del self.held[attempt.fence]

    def _begin_span(self, attempt: Attempt) -> Span:
        run = attempt.run
        span = self._runtime.tracing.start(
            f"run {run.graph_id}", run.traceparent,
            {
                **trace_attributes(run.metadata), "slipstream.run_id": run.run_id,
                "slipstream.thread_id": attempt.thread_id, "slipstream.graph_id": run.graph_id,
                "slipstream.attempt": attempt.number,
            }, kind="consumer",
        )  # fmt: skip
        attempt.traceparent = span.traceparent
        carried.set(span.traceparent)
        return span

    def _over(self, attempt: Attempt, span: Span, kind: str, took_s: float) -> None:
        graph_id = attempt.run.graph_id
        self._runtime.metrics.attempted(graph_id if graph_id in self._runtime.graphs else UNKNOWN, kind, took_s)
        span.end(kind if kind in ("error", "timeout", "lost") else "")

    async def _refusal(self, attempt: Attempt) -> Outcome | None:
        """Why the attempt must not execute: nobody would end it, it crashed too often, or nobody has its graph."""
        if self._stopping:
            # It was being taken when we were asked to stop: the drain may have handed back all that it waits for.
            return Outcome("release")
        running = attempt.state.running
        if running is not None and running.crashes > RUN_CRASHES_MAX:
            text = f"the run's holder vanished {running.crashes} times; it is not tried again"
            return Outcome("error", {"error": "RunnerCrashed", "message": text})
        graph_id = attempt.run.graph_id
        if graph_id in self._runtime.graphs:
            return None
        subject = subjects.graph_rpc(self._runtime.settings.region, graph_id)
        try:
            await rpc.call(self._runtime.connection, subject, b'{"ask":"has","graph_id":""}')
        except NoResponder:
            return Outcome("error", {"error": "GraphNotFound", "message": f"no runner has the graph {graph_id!r}"})
        except Unavailable:
            pass
        await asyncio.sleep(FOREIGN_GRAPH_DELAY_S)
        return Outcome("release")
