"""What the routes share: connections, tails, rows, and where the read model stands."""

import asyncio
import copy
from collections import Counter

from slipstream_api.auth.caller import Caller
from slipstream_api.auth.handlers import Handlers
from slipstream_api.drawings import Drawings
from slipstream_api.heart import Heart
from slipstream_api.metrics import ApiMetrics
from slipstream_api.unwatched import UnwatchedRuns
from slipstream_api.watchers import Readers
from slipstream_nats import rpc
from slipstream_nats.connection import Connection
from slipstream_nats.controllog import ControlLog
from slipstream_nats.publisher import Publisher
from slipstream_nats.schedules import Schedules
from slipstream_nats.tail import Tails
from slipstream_nats.threadlog import ThreadLog
from slipstream_nats.workqueue import WorkQueue
from slipstream_postgres import positions
from slipstream_postgres.pool import Database
from slipstream_schemas import subjects
from slipstream_schemas.crashpoint import Crashpoint
from slipstream_schemas.errors import Forbidden
from slipstream_schemas.settings import ServiceSettings
from slipstream_schemas.subjects import Scope, thread_key
from slipstream_telemetry.tracing import open_tracing


class Progress:
    """How far this process knows the projector to have come, and what it has written itself."""

    def __init__(self) -> None:
        self.position = 0
        self.written = 0
        self.moved = asyncio.Event()


class Context:
    """The parts of a process, and for whom they act.

    One is made when the process starts; each request gets one that acts for its caller. The scope, without which
    nothing of a tenant can be named, is given out once an auth handler has been asked (see `access`): a route that
    forgets to ask is refused.
    """

    def __init__(
        self, settings: ServiceSettings, connection: Connection, publisher: Publisher, tails: Tails, database: Database,
        handlers: Handlers | None = None,
    ) -> None:  # fmt: skip
        self.settings, self.connection, self.publisher = settings, connection, publisher
        self.tails, self.database = tails, database
        self.control = ControlLog(connection, publisher, settings.region)
        self.threads = ThreadLog(connection, publisher, settings.region)
        self.work = WorkQueue(publisher, settings.region)
        self.schedules = Schedules(connection, publisher, settings.region)
        self.handlers = handlers
        self.caller = Caller()
        self.asks = handlers is not None
        self.is_decided = False
        self.missing: set[str] = set()
        """Threads that were not there when a filter was to be held against them."""
        self.open_requests: Counter[tuple[str, str]] = Counter()
        """How many each caller has open in this process, streams and sockets included."""
        self.unwatched = UnwatchedRuns()
        self.drawings = Drawings()
        self.heart = Heart()
        self.readers = Readers()
        self.crash = Crashpoint(settings.crashpoint)
        self.metrics = ApiMetrics()
        publisher.observe = self.metrics.publishes.published
        self.tracing = open_tracing("slipstream-api")
        self._progress = Progress()

    def acting_for(self, caller: Caller) -> "Context":
        """The same parts for a caller who has not been permitted anything yet."""
        seen = copy.copy(self)
        seen.caller, seen.is_decided, seen.missing = caller, not self.asks, set()
        return seen

    def by_itself(self, tenant: str) -> "Context":
        """The same parts for an act of our own in a tenant: no handler is asked."""
        seen = self.acting_for(Caller(tenant))
        seen.asks, seen.is_decided = False, True
        return seen

    def in_name_of(self, caller: Caller) -> "Context":
        """The same parts for an act of our own for which somebody's permission is needed, who is not here."""
        seen = self.acting_for(caller)
        seen.asks = True
        return seen

    @property
    def scope(self) -> Scope:
        """Where the caller's threads lie. Raises: Forbidden when no rule was asked about this request."""
        if not self.is_decided:
            raise Forbidden("Forbidden")
        return Scope(self.settings.region, self.caller.tenant)

    def own_key(self, thread_id: str) -> str:
        """A thread as one caller knows it: another's streams of it are no concern of theirs. Raises: Forbidden."""
        return f"{thread_key(self.scope, thread_id)}/{self.caller.identity}"

    @property
    def written(self) -> int:
        """The newest control seq that this process has written."""
        return self._progress.written

    @written.setter
    def written(self, seq: int) -> None:
        self._progress.written = seq

    @property
    def position(self) -> int:
        """The last control seq that the rows contain, as far as this process has heard."""
        return self._progress.position

    async def follow_position(self) -> None:
        """Hear how far the projector has come. Raises: Unavailable."""

        def on_position(position: bytes) -> None:
            self._is_at(int(position))

        await rpc.listen(self.connection, subjects.position_subject(self.settings.region), on_position)
        self._is_at(await positions.get(self.database, "control"))

    def _is_at(self, position: int) -> None:
        progress = self._progress
        progress.position = max(progress.position, position)
        moved, progress.moved = progress.moved, asyncio.Event()
        moved.set()

    async def projected(self, control_seq: int, deadline_s: float) -> bool:
        """Wait until the rows contain the record; False when they do not by the deadline."""
        try:
            async with asyncio.timeout(deadline_s):
                while self.position < control_seq:
                    await self._progress.moved.wait()
        except TimeoutError:
            return False
        return True
