"""What the parts of a runner share: connections, what is held now, and one attempt at a run."""

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, Literal

import msgspec

from slipstream_nats.connection import Connection
from slipstream_nats.controllog import ControlLog
from slipstream_nats.publisher import Publisher
from slipstream_nats.threadlog import ThreadLog, ThreadLogWriter
from slipstream_nats.workqueue import WorkItem, WorkQueue
from slipstream_postgres.pool import Database
from slipstream_runner.checkpoints import Pool
from slipstream_runner.crashpoint import Crashpoint
from slipstream_runner.graphs import Graphs
from slipstream_schemas.run_state import OwedTerminal, RunCreated, ThreadState
from slipstream_schemas.settings import ServiceSettings
from slipstream_schemas.subjects import Scope

CURRENT_FENCE: Final[ContextVar[int]] = ContextVar("slipstream_current_fence", default=0)
"""The lease of the run on whose behalf a task runs; tasks that a graph starts inherit it."""

Stop = Literal["interrupt", "rollback", "timeout", "release", "retry", "fenced", "deleted"]
"""Why a graph was stopped. `release` hands the run back at once, `retry` after a pause."""


class Attempt(msgspec.Struct, eq=False):
    """A run in this process's hands. `state` and `head_seq` are the newest control head that was seen."""

    scope: Scope
    thread_id: str
    run: RunCreated
    number: int
    fence: int
    state: ThreadState
    head_seq: int
    item: WorkItem
    writer: ThreadLogWriter
    checkpoint_id: str | None = None
    null_writes: int = 0
    is_stored: bool = False
    """Whether an attempt before this one has stored a checkpoint."""
    stop: Stop | None = None
    task: "asyncio.Task[None] | None" = None
    settled: set[str] = msgspec.field(default_factory=lambda: set[str]())
    """Runs of the thread whose owed terminal records this attempt has published in passing."""
    owe: Callable[[OwedTerminal], None] | None = None
    ordinal: int = 0
    values_seq: int = 0

    def cancel(self, reason: Stop) -> None:
        """Stop the graph; the first reason counts, except that losing the thread overrides."""
        if self.stop is None or reason in ("fenced", "deleted"):
            self.stop = reason
        if self.task is not None:
            self.task.cancel()


class Held:
    """What this process holds. The pulse thread reads it, so each change is a single step under the interpreter's lock."""

    def __init__(self) -> None:
        self._by_fence: dict[int, Attempt] = {}
        self._by_thread: dict[tuple[str, str], Attempt] = {}
        self._deliveries: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._by_fence)

    @property
    def attempts(self) -> list[Attempt]:
        """Every attempt in this process's hands."""
        return list(self._by_fence.values())

    @property
    def deliveries(self) -> list[str]:
        """Where heartbeats go: the ack subjects of every work item that is being dealt with."""
        return list(self._deliveries)

    def deliver(self, ack_subject: str) -> None:
        """A work item is being dealt with."""
        self._deliveries[ack_subject] = None

    def done(self, ack_subject: str) -> None:
        """A work item is dealt with."""
        self._deliveries.pop(ack_subject, None)

    def add(self, attempt: Attempt) -> None:
        """An attempt begins."""
        self._by_fence[attempt.fence] = attempt
        self._by_thread[attempt.scope.tenant, attempt.thread_id] = attempt

    def remove(self, attempt: Attempt) -> None:
        """An attempt is over."""
        self._by_fence.pop(attempt.fence, None)
        key = (attempt.scope.tenant, attempt.thread_id)
        if self._by_thread.get(key) is attempt:
            del self._by_thread[key]

    def by_fence(self, fence: int) -> Attempt | None:
        """The attempt under a lease."""
        return self._by_fence.get(fence)

    def on_thread(self, tenant: str, thread_id: str) -> Attempt | None:
        """The attempt on a thread."""
        return self._by_thread.get((tenant, thread_id))


class Runtime(msgspec.Struct, frozen=True):
    """The connections and tables of a runner process. `holder` is its name in leases."""

    settings: ServiceSettings
    holder: str
    connection: Connection
    publisher: Publisher
    control: ControlLog
    threads: ThreadLog
    work: WorkQueue
    database: Database
    checkpoints: Pool
    graphs: Graphs
    crash: Crashpoint
    held: Held
    missing: dict[str, float] = msgspec.field(default_factory=lambda: dict[str, float]())
    """Since when a run waits for a runner that has its graph."""


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000
