"""The pulse: heartbeats for held work items and the answer to "do you hold this run?", on a thread of their own.

A graph that blocks the event loop must not cost its run the lease, so these do not share the loop with user code. If
the loop is blocked for longer than the stall limit, the pulse ends the run that blocks it as `timeout`, hands the other
runs back, and ends the process: a blocked thread cannot be freed, and its supervisor starts a new one.
"""

import asyncio
import contextvars
import logging
import os
import threading
import time
import weakref
from collections.abc import Container, Coroutine, Generator
from typing import Any, Final

import msgspec

from slipstream_nats import rpc
from slipstream_nats.connection import access_of, connect
from slipstream_nats.controllog import ControlLog
from slipstream_nats.publisher import open_publisher
from slipstream_nats.threadlog import ThreadLog
from slipstream_nats.workqueue import WorkQueue, heartbeat
from slipstream_runner.runtime import Attempt, now_ms
from slipstream_runner.settling import hand_back
from slipstream_schemas import run_state as rs
from slipstream_schemas import subjects
from slipstream_schemas.errors import SlipstreamError, Unavailable
from slipstream_schemas.limits import WORK_HEARTBEAT_S
from slipstream_schemas.record import RecordHeader, terminal_message_id
from slipstream_schemas.settings import ServiceSettings
from slipstream_schemas.terminal import terminal_body

log = logging.getLogger("slipstream.pulse")

STALLED_EXIT: Final = 75
STALL_DEADLINE_S: Final = 10.0
PULSE_S: Final = 0.1
current_run: contextvars.ContextVar[str] = contextvars.ContextVar("slipstream_run", default="")


class _Question(msgspec.Struct):
    fence: int


class Pulse:
    """Keeps held runs alive. `hold` and `drop` are called from the main loop, everything else runs on the thread."""

    def __init__(self, settings: ServiceSettings, holder: str, taking: Container[int] = ()) -> None:
        self._settings, self._holder, self._taking = settings, holder, taking
        # By fence: a run may be delivered again to the very process that executes it.
        self._held: dict[int, Attempt] = {}
        self._delivered: dict[str, None] = {}
        self._unanswered = 0
        """Pulses since the main loop's last beat. Seconds would not do: a process that was stopped blocks nothing."""
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._main_loop: asyncio.AbstractEventLoop | None = None
        self._run_of_task: weakref.WeakKeyDictionary[asyncio.Task[Any], str] = weakref.WeakKeyDictionary()
        self._thread = threading.Thread(target=self._main, name="pulse", daemon=True)

    def start(self) -> None:
        """Begin, from the main loop. Raises: Unavailable."""
        self._main_loop = asyncio.get_running_loop()
        self._main_loop.set_task_factory(self._task)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise Unavailable(f"the pulse cannot start: {self._failure}")

    def _task(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        **options: Any,
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)  # pyright: ignore[reportArgumentType]
        run_id = current_run.get()
        if run_id:
            self._run_of_task[task] = run_id
        return task

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()

    def tick(self) -> None:
        """The main loop lives."""
        self._unanswered = 0

    def delivered(self, ack_subject: str) -> None:
        """A work item is in our hands; its run may not be."""
        self._delivered[ack_subject] = None

    def answered(self, ack_subject: str) -> None:
        """A work item is dealt with."""
        self._delivered.pop(ack_subject, None)

    def hold(self, attempt: Attempt) -> None:
        """A run is ours."""
        self._held[attempt.fence] = attempt

    def drop(self, attempt: Attempt) -> None:
        """A run is no longer ours."""
        self._held.pop(attempt.fence, None)

    def holds(self, fence: int) -> bool:
        """Whether this process executes the attempt under that lease, or takes its run."""
        return fence in self._held or fence in self._taking

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except Exception as error:
            self._failure = error
            self._ready.set()
            log.exception("the pulse died; the process ends, since nobody would know that it lives")
            if not self._stop.is_set():
                os._exit(1)

    async def _run(self) -> None:
        connection = await connect(access_of(self._settings, "runner"), f"{self._holder}-pulse")

        async def answer(body: bytes) -> bytes:
            question = msgspec.json.decode(body, type=_Question)
            return msgspec.json.encode(self.holds(question.fence))

        await rpc.serve(connection, subjects.runner_rpc(self._settings.region, self._holder), answer)
        self._ready.set()
        due = 0.0
        while not self._stop.is_set():
            if time.monotonic() >= due:
                due = time.monotonic() + min(WORK_HEARTBEAT_S, self._settings.ack_wait_s / 4)
                for ack_subject in list(self._delivered):
                    try:
                        await heartbeat(connection, ack_subject)
                    except Unavailable as error:
                        log.debug("a heartbeat was not sent: %s", error.message)
            self._unanswered += 1
            if self._held and self._unanswered * PULSE_S > self._settings.stall_limit_s:
                await self._stalled()
            await asyncio.sleep(PULSE_S)
        await connection.close()

    async def _stalled(self) -> None:
        loop = self._main_loop
        task = asyncio.tasks._current_tasks.get(loop) if loop is not None else None  # type: ignore[attr-defined]  # pyright: ignore
        culprit = self._run_of_task.get(task, "") if task is not None else ""
        log.error("the event loop is blocked for %.0f s by run %s; ending it and this process",
                  self._unanswered * PULSE_S, culprit or "(unknown)")  # fmt: skip
        try:
            async with asyncio.timeout(STALL_DEADLINE_S):
                await self._end_all(culprit)
        except (TimeoutError, SlipstreamError) as error:
            log.error("not everything could be handed back: %s", str(error) or f"it took over {STALL_DEADLINE_S:.0f} s")
        os._exit(STALLED_EXIT)

    async def _end_all(self, culprit: str) -> None:
        connection = await connect(access_of(self._settings, "runner"), f"{self._holder}-stalled")
        publisher = await open_publisher(connection)
        control = ControlLog(connection, publisher, self._settings.region)
        threads = ThreadLog(connection, publisher, self._settings.region)
        work = WorkQueue(publisher, self._settings.region)
        for attempt in list(self._held.values()):
            try:
                if attempt.run.run_id == culprit:
                    await self._time_out(control, threads, work, attempt)
                    await connection.publish(attempt.item.ack_subject, b"+ACK")
                else:
                    await hand_back(control, attempt)
                    await connection.publish(attempt.item.ack_subject, b"-NAK")
            except SlipstreamError as error:
                # One whose end is in the log already is nobody's any more; the others are still to be ended.
                log.warning("run %s is left as it is: %s", attempt.run.run_id, error.message)
        await connection.flush()

    async def _time_out(self, control: ControlLog, threads: ThreadLog, work: WorkQueue, attempt: Attempt) -> None:
        """End the run that blocks the loop, in its own name: its lease is ours."""
        run = attempt.run
        text = f"the run blocked its event loop for over {self._settings.stall_limit_s:.0f} s"
        error = {"error": "TimeoutError", "message": text}
        body = terminal_body(run.run_id, "failed", now_ms(), graph_name=run.graph_id, run_status="timeout",
                             attempt=attempt.number, error=error)  # fmt: skip
        owed = rs.OwedTerminal(run.run_id, attempt.writer.last_stream_seq or attempt.fence, body.decode())
        ended = rs.RunEnded(run.run_id, attempt.number, "timeout", "error", error)
        transition, _ = await control.decide(
            attempt.scope,
            attempt.thread_id,
            lambda state: rs.end_run(state, f"{run.run_id}:{attempt.number}:stalled", now_ms(), ended, owed),
        )
        writer = threads.writer(attempt.scope, attempt.thread_id, attempt.fence)
        message_id = terminal_message_id(run.run_id)
        await writer.append(RecordHeader(run.run_id, 0, 0), body, msg_id=message_id, traceparent=attempt.traceparent)
        await work.put_next(attempt.scope, attempt.thread_id, transition.state)
