"""The thread log: fenced appends by the holder of the lease, and single reads."""

import asyncio
import logging
import time
from datetime import datetime

from slipstream_nats import leases
from slipstream_nats.connection import Connection
from slipstream_nats.publisher import Publisher, WrongSequence, as_fenced
from slipstream_nats.stored import StoredMessage, at_seq, first_since, last_of_subject, next_of_subject, purge
from slipstream_schemas import subjects
from slipstream_schemas.errors import Unavailable
from slipstream_schemas.limits import DUPLICATE_WINDOW_S, ERASED_KEPT_S, PUBLISH_DEADLINE_S, PUBLISH_OUTAGE_S
from slipstream_schemas.record import (
    ERASED,
    ERASED_BODY,
    RECORD_HEADER,
    Record,
    RecordHeader,
    header_value,
    message_id,
    parse_header,
)
from slipstream_schemas.subjects import Scope

log = logging.getLogger("slipstream.log")

RETRY_WAIT_S = 0.1


def as_record(message: StoredMessage) -> Record:
    """A stored message as a record. Raises: Corrupt."""
    return Record(message.stream_seq, parse_header(message.headers.get(RECORD_HEADER, "")), message.body,
                  message.timestamp_ms)  # fmt: skip


class ThreadLog:
    """The thread logs of a region."""

    def __init__(
        self, connection: Connection, publisher: Publisher, region: str, look_first_s: float = DUPLICATE_WINDOW_S / 2
    ) -> None:
        self._connection, self._publisher = connection, publisher
        self.look_first_s = look_first_s
        """A retry older than this may lie outside the dedupe window, so it looks for its record first."""
        self._stream = subjects.threads_stream(region)

    async def last(self, scope: Scope, thread_id: str) -> Record | None:
        """The newest record, from the leader. Raises: Unavailable, Corrupt."""
        found = await last_of_subject(self._connection, self._stream, subjects.thread_log(scope, thread_id))
        return None if found is None else as_record(found)

    async def last_seq(self, scope: Scope, thread_id: str) -> int:
        """The newest record's stream_seq, 0 for an empty log. Raises: Unavailable."""
        found = await last_of_subject(self._connection, self._stream, subjects.thread_log(scope, thread_id))
        return 0 if found is None else found.stream_seq

    async def get(self, scope: Scope, thread_id: str, stream_seq: int) -> Record | None:
        """The record at `stream_seq`, None if it is gone or another thread's. Raises: Unavailable, Corrupt."""
        found = await at_seq(self._connection, self._stream, stream_seq)
        if found is None or found.subject != subjects.thread_log(scope, thread_id):
            return None
        return as_record(found)

    async def next(self, scope: Scope, thread_id: str, from_stream_seq: int) -> Record | None:
        """The first record at or behind `from_stream_seq`. Raises: Unavailable, Corrupt."""
        subject = subjects.thread_log(scope, thread_id)
        found = await next_of_subject(self._connection, self._stream, subject, from_stream_seq)
        return None if found is None else as_record(found)

    async def first_since(self, scope: Scope, thread_id: str, at: datetime) -> int:
        """The stream_seq of the first record stored at `at` or later, 0 for none. Raises: Unavailable."""
        subject = subjects.thread_log(scope, thread_id)
        found = await first_since(self._connection, self._stream, subject, at)
        return 0 if found is None else found.stream_seq

    async def trim(self, scope: Scope, thread_id: str, through: int) -> None:
        """Delete the records up to and including the stream_seq `through`. Raises: Unavailable."""
        await purge(self._connection, self._stream, subjects.thread_log(scope, thread_id), through)

    async def erase(self, scope: Scope, thread_id: str, fence: int) -> None:
        """Delete the log of a deleted thread, and end its streams. `fence` is a lease taken after the deletion.

        A record stays for a minute that tells those who follow. Then nothing is left: where there is no lease, the
        publish of a late writer, which expects its own, is refused. Raises: Fenced, Unavailable.
        """
        end = await self.writer(scope, thread_id, fence).append(
            ERASED, ERASED_BODY, msg_id=f"erased:{fence}", ttl_s=ERASED_KEPT_S
        )
        await self.trim(scope, thread_id, end - 1)
        await leases.forget(self._connection, scope, thread_id, fence)

    def writer(self, scope: Scope, thread_id: str, fence: int) -> "ThreadLogWriter":
        """The writer that holds the lease `fence`."""
        return ThreadLogWriter(self, self._publisher, scope, thread_id, fence)


class ThreadLogWriter:
    """Appends to one thread log under one lease, one record at a time.

    A doubtful append is retried with the same `Nats-Msg-Id` before anything later is sent, so that order and
    once-ness survive a lost connection; a retry older than half the dedupe window looks for its record first.
    """

    def __init__(self, thread_log: ThreadLog, publisher: Publisher, scope: Scope, thread_id: str, fence: int) -> None:
        self._log, self._publisher = thread_log, publisher
        self._scope, self._thread_id, self.fence = scope, thread_id, fence
        self._subject = subjects.thread_log(scope, thread_id)
        self._fence_headers = {
            "Nats-Expected-Last-Subject-Sequence": str(fence),
            "Nats-Expected-Last-Subject-Sequence-Subject": subjects.lease(scope, thread_id),
        }
        self.last_stream_seq = 0

    async def append(
        self,
        header: RecordHeader,
        body: bytes,
        *,
        msg_id: str | None = None,
        traceparent: str | None = None,
        ttl_s: int = 0,
        outage_s: float = PUBLISH_OUTAGE_S,
    ) -> int:
        """Append a record; returns its stream_seq. A repeat within the dedupe window is stored once.

        With `ttl_s` it goes by itself after that time.
        Raises: Fenced (stop, do not acknowledge), TooLarge, Corrupt, Unavailable after `outage_s` without an
        acknowledgement.
        """
        msg_id = msg_id or message_id(header.run_id, header.attempt, header.ordinal)
        headers = {
            # Dedupe spans the stream, run ids may be chosen by clients: without the thread, one tenant's record could
            # pass for a repeat of another's.
            "Nats-Msg-Id": f"{subjects.thread_key(self._scope, self._thread_id)}:{msg_id}",
            RECORD_HEADER: header_value(header),
            **self._fence_headers,
        }
        if ttl_s:
            headers["Nats-TTL"] = f"{ttl_s}s"
        if traceparent:
            headers["traceparent"] = traceparent
        begun = time.monotonic()
        tries = 0
        while True:
            try:
                if tries and time.monotonic() - begun > self._log.look_first_s:
                    found = await self._find(header)
                    if found:
                        return self._appended(found)
                ack = await self._publisher.publish(self._subject, body, headers, min(PUBLISH_DEADLINE_S, outage_s))
                return self._appended(ack.stream_seq)
            except WrongSequence as error:
                raise as_fenced(error, self.fence) from error
            except Unavailable as error:
                tries += 1
                if time.monotonic() - begun > outage_s:
                    raise
                if tries == 1:
                    log.warning("thread %s: record %s waits for the log: %s", self._thread_id, msg_id, error.message)
                await asyncio.sleep(RETRY_WAIT_S)

    def _appended(self, stream_seq: int) -> int:
        self.last_stream_seq = stream_seq
        return stream_seq

    async def _find(self, header: RecordHeader) -> int:
        """The seq of our own record if it is the newest one: nobody else may write, so it cannot lie deeper."""
        last = await self._log.last(self._scope, self._thread_id)
        mine = (header.run_id, header.attempt, header.ordinal)
        if last is not None and (last.header.run_id, last.header.attempt, last.header.ordinal) == mine:
            return last.stream_seq
        return 0
