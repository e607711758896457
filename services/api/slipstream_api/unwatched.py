"""Runs that began while nobody watched their thread, and that may be over before their watcher comes.

A watcher is a stream of `lifecycle` and `input` alone. The stock Python SDK sends its own without a cursor
beside `run.start`, or, for a thread id that it made up, after `run.start` has answered. A short run may be over when it
arrives, and a stream that began live would wait for ever. So `run.start` notes a run that nobody watches, and the next
watcher of the thread begins there. It has to come soon, since the end of an old run is what a watcher must not show.

The watcher may come to another instance than the run did, so the APIs of a region tell each other (core NATS): a note
reaches all of them, and whoever has a watcher of the thread, or is given one, takes it from all.
"""

import asyncio
import logging
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from slipstream_nats import rpc
from slipstream_nats.connection import Connection
from slipstream_schemas import subjects
from slipstream_schemas.errors import Unavailable

log = logging.getLogger("slipstream.api")

FRESH_REMEMBERED_S: Final = 60.0
"""A thread that `run.start` made holds no older run, so the note does no harm for longer."""
USED_REMEMBERED_S: Final = 1.0
NOTES_MAX: Final = 10_000
"""So many are remembered, and wait to be told. What is beyond is forgotten: its watcher begins live."""


class Note(msgspec.Struct, frozen=True, tag_field="type", tag="note"):
    """Nobody watches the run whose first record lies behind `log_seq`; true for `lasts_s`."""

    origin: str
    thread: str
    log_seq: int
    lasts_s: float


class Watched(msgspec.Struct, frozen=True, tag_field="type", tag="watched"):
    """Somebody watches the thread: there is nothing to note of it any more."""

    origin: str
    thread: str


_decode = msgspec.json.Decoder(Note | Watched).decode


class UnwatchedRuns:
    """Notes of such runs in bounded memory, and how many watchers each thread (by its key) has in this process."""

    def __init__(self) -> None:
        self._origin = uuid.uuid4().hex
        self._open: Counter[str] = Counter()
        self._notes: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._untold: asyncio.Queue[Note | Watched] = asyncio.Queue(NOTES_MAX)

    def join(self, thread: str) -> Callable[[], None]:
        """A watcher has arrived. Call what this returns once, when it has gone."""
        self._open[thread] += 1

        def leave() -> None:
            self._open[thread] -= 1
            if not self._open[thread]:
                del self._open[thread]

        return leave

    def note(self, thread: str, log_seq: int, *, is_fresh: bool) -> None:
        """`run.start` was accepted; the run's first record lies behind `log_seq`."""
        if self._open[thread]:
            return
        note = Note(self._origin, thread, log_seq, FRESH_REMEMBERED_S if is_fresh else USED_REMEMBERED_S)
        self._keep(note)
        self._tell(note)

    def take(self, thread: str) -> int | None:
        """Behind which stream_seq the unwatched run lies that the arriving watcher is for; None without one."""
        found = self._notes.pop(thread, None)
        if found is None:
            return None
        self._tell(Watched(self._origin, thread))
        end, log_seq = found
        return log_seq if time.monotonic() < end else None

    def hear(self, body: bytes) -> None:
        """What an instance tells the region."""
        told = _decode(body)
        if told.origin == self._origin:
            return
        if isinstance(told, Watched):
            self._notes.pop(told.thread, None)
        elif self._open[told.thread]:
            self._tell(Watched(self._origin, told.thread))
        else:
            self._keep(told)

    async def told(self) -> bytes:
        """What this instance has to tell next, once there is something."""
        return msgspec.json.encode(await self._untold.get())

    def _keep(self, note: Note) -> None:
        self._notes.pop(note.thread, None)
        self._notes[note.thread] = (time.monotonic() + note.lasts_s, note.log_seq)
        if len(self._notes) > NOTES_MAX:
            self._notes.popitem(last=False)

    def _tell(self, what: Note | Watched) -> None:
        if not self._untold.full():
            self._untold.put_nowait(what)


@asynccontextmanager
async def shared(runs: UnwatchedRuns, connection: Connection, region: str) -> AsyncIterator[None]:
    """Let the instances of a region know each other's notes. Raises: Unavailable."""
    subject = subjects.unwatched_subject(region)
    await rpc.listen(connection, subject, runs.hear)
    task = asyncio.create_task(_tell_all(runs, connection, subject))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _tell_all(runs: UnwatchedRuns, connection: Connection, subject: str) -> None:
    while True:
        body = await runs.told()
        try:
            await connection.publish(subject, body)
        except Unavailable as error:
            log.warning("the other APIs were not told of a run that nobody watches: %s", error.message)
