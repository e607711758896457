"""What the parts of a runner share."""

import asyncio
import time

import msgspec

from slipstream_nats.connection import Connection
from slipstream_nats.controllog import ControlLog
from slipstream_nats.publisher import Publisher
from slipstream_nats.threadlog import ThreadLog, ThreadLogWriter
from slipstream_nats.workqueue import WorkItem, WorkQueue
from slipstream_postgres.pool import Database
from slipstream_runner.checkpoints import Pool
from slipstream_runner.graphs import Graphs
from slipstream_runner.metrics import RunnerMetrics
from slipstream_runner.store import Stores
from slipstream_schemas.crashpoint import Crashpoint
from slipstream_schemas.run_state import CancelAction, OwedTerminal, RunCreated, ThreadState
from slipstream_schemas.settings import ServiceSettings
from slipstream_schemas.subjects import Scope
from slipstream_telemetry.tracing import Tracing


class Runtime(msgspec.Struct, frozen=True):
    """The connections and tables of a runner process. `holder` is its name in leases.

    `taking` are the fences of runs that it takes and does not execute yet: whoever asks finds a holder that lives.
    `beginning` are those attempts, by fence, that are being told to the control log: what is asked of one before the
    log's answer has come is not lost.
    """

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
    stores: Stores
    metrics: RunnerMetrics
    tracing: Tracing
    taking: set[int] = msgspec.field(default_factory=lambda: set[int]())
    beginning: dict[int, "Attempt"] = msgspec.field(default_factory=lambda: dict[int, Attempt]())


class Attempt(msgspec.Struct):
    """A run in this process's hands. `traceparent` is the attempt's span, or what the run was created with.

    `stop` says why the graph was cancelled: `interrupt`, `rollback`, `timeout`, `release`, `outage` (its checkpoints
    are not taken), `fenced` or `deleted`.
    """

    scope: Scope
    thread_id: str
    run: RunCreated
    number: int
    fence: int
    state: ThreadState
    control_seq: int
    """The thread's head behind which the attempt began: nothing up to there concerns it."""
    item: WorkItem
    writer: ThreadLogWriter
    checkpoint_id: str | None = None
    null_writes: int = 0
    stop: str | None = None
    task: asyncio.Task[None] | None = None
    told: set[str] = msgspec.field(default_factory=lambda: set[str]())
    """Other runs of the thread whose end is told in passing; it lies in `to_tell` until then."""
    to_tell: list[OwedTerminal] = msgspec.field(default_factory=lambda: list[OwedTerminal]())
    wake: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    """There is something to publish."""
    ordinal: int = 0
    traceparent: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Its tenant and thread."""
        return self.scope.tenant, self.thread_id

    def cancel(self, reason: str | CancelAction) -> None:
        """Stop the graph; the first reason counts, except that a fence overrides."""
        if self.stop is None or reason == "fenced":
            self.stop = reason
        if self.task is not None:
            self.task.cancel()

    def tell(self, owed: OwedTerminal) -> None:
        """Tell in passing that another run of the thread has ended, which this one pays for behind its own end."""
        if owed.run_id not in self.told:
            self.told.add(owed.run_id)
            self.to_tell.append(owed)
            self.wake.set()


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000
