"""What the routes share: connections, tails, rows, and where the read model stands."""

import asyncio

from slipstream_api.drawings import Drawings
from slipstream_api.metrics import ApiMetrics
from slipstream_api.sse import Heart
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
from slipstream_postgres.pool import Database
from slipstream_schemas import subjects
from slipstream_schemas.crashpoint import Crashpoint
from slipstream_schemas.settings import ServiceSettings
from slipstream_schemas.subjects import Scope
from slipstream_telemetry.tracing import open_tracing


class Context:
    """One for a process, made when it starts."""

    def __init__(
        self, settings: ServiceSettings, connection: Connection, publisher: Publisher, tails: Tails, database: Database
    ) -> None:
        self.settings, self.connection, self.publisher = settings, connection, publisher
        self.tails, self.database = tails, database
        self.control = ControlLog(connection, publisher, settings.region)
        self.threads = ThreadLog(connection, publisher, settings.region)
        self.work = WorkQueue(publisher, settings.region)
        self.schedules = Schedules(connection, publisher, settings.region)
        self.scope = Scope(settings.region)
        self.unwatched = UnwatchedRuns()
        self.drawings = Drawings()
        self.position = 0
        self.written = 0
        self.heart = Heart()
        self.readers = Readers()
        self.crash = Crashpoint(settings.crashpoint)
        self.metrics = ApiMetrics()
        publisher.observe = self.metrics.publishes.published
        self.tracing = open_tracing("slipstream-api")
        self._moved = asyncio.Event()

    async def follow_position(self) -> None:
        """Hear how far the projector has come. Raises: Unavailable."""

        def on_position(position: bytes) -> None:
            self.position = max(self.position, int(position))
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()

        await rpc.listen(self.connection, subjects.position_subject(self.settings.region), on_position)

    async def projected(self, control_seq: int, deadline_s: float) -> bool:
        """Wait until the rows contain the record; False when they do not by the deadline."""
        try:
            async with asyncio.timeout(deadline_s):
                while self.position < control_seq:
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True
