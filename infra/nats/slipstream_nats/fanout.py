"""The end of a thread log, read once for all the streams of a process that follow it.

A feed holds one live consumer and the latest records, the *window*. A reader is only a position: at or above the
window's floor it takes what lies behind its position from memory, together with all others; below it, it is behind and
reads the log on its own until it is back at the floor. So joining needs no hand-over (both happen on one event loop,
between two awaits), a slow reader holds nothing up, and nothing is kept for each reader.

The consumer starts at the thread's last record, which tells the floor without another question: everything above
`that record - 1` comes through the feed, and it does so whatever replica the consumer lives on and however far that
replica lags.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any, Final, Protocol

from slipstream_nats.inbox import Inbox, Message
from slipstream_nats.pull import ContinuousPull
from slipstream_schemas.errors import Corrupt, SlipstreamError
from slipstream_schemas.limits import TAIL_BUFFER_BYTES_MAX
from slipstream_schemas.record import RECORD_HEADER, Record, parse_header

WINDOW_KEEP_BYTES: Final = 8 * 1024
"""What a feed keeps for readers that come back soon, although all readers have it."""
TRIM_STEP_BYTES: Final = 64 * 1024
RECORD_OVERHEAD_BYTES: Final = 512

assert WINDOW_KEEP_BYTES < TAIL_BUFFER_BYTES_MAX


class TailRecord(Record):
    """A record as a tail delivers it. Lines below `first_line` lie at or below the tail's cursor: skip them."""

    first_line: int = 0
    split: list[bytes] | None = None
    rendered: dict[Any, Any] | None = None
    """What renderers have made of all lines, by what was asked for: most readers of a thread ask for the same."""

    @property
    def lines(self) -> list[bytes]:
        """All lines, split once for all readers; line `i` has the seq `stream_seq << 8 | i`."""
        if self.split is None:
            self.split = self.body.split(b"\n")
        return self.split


def record_of(message: Message) -> TailRecord:
    """The record that a message of the thread log holds. Raises: Corrupt."""
    header = message.headers.get(RECORD_HEADER) if message.headers else None
    if header is None:
        raise Corrupt(f"message {message.stream_seq} of {message.subject} is not a record")
    return TailRecord(message.stream_seq, parse_header(header), message.body, message.timestamp_ms)


class Positioned(Protocol):
    """A reader, as the feed sees it: everything up to `position` has been delivered to it."""

    @property
    def position(self) -> int: ...


class ThreadFeed:
    """The live end of one thread log and its window of latest records."""

    def __init__(self, inbox: Inbox, stream: str, subject: str, window_bytes_max: int = TAIL_BUFFER_BYTES_MAX) -> None:
        self.stream = stream
        self.subject = subject
        self.readers: set[Positioned] = set()
        self.floor = 0
        """Every record above this stream_seq is in the window or still to come."""
        self.last_stream_seq = 0
        self._window: list[TailRecord] = []
        self._seqs: list[int] = []
        self._window_bytes = 0
        self._window_bytes_max = window_bytes_max
        self._trim_at_bytes = TRIM_STEP_BYTES
        self._known = False
        self._failure: SlipstreamError | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self.pull = ContinuousPull(
            inbox, stream, subject, "last", sink=self._accept, on_idle=self._idle, on_failure=self._fail
        )

    async def known(self) -> None:
        """Wait until the feed knows where the thread log ends. Raises: Corrupt."""
        while not self._known:
            await self.arrival()

    async def arrival(self) -> None:
        """Wait until something new has come. Raises: Corrupt when the log cannot be read."""
        if self._failure is not None:
            raise self._failure
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
        if self._failure is not None:
            raise self._failure

    def after(self, position: int) -> list[TailRecord]:
        """The records behind a position at or above the floor."""
        assert position >= self.floor, "a reader that is behind reads the log itself"
        if not self._seqs or position >= self._seqs[-1]:
            return []
        return self._window[bisect_right(self._seqs, position) :]

    def _accept(self, message: Message) -> None:
        try:
            record = record_of(message)
        except Corrupt as failure:
            self._fail(failure)
            return
        if not self._known:
            self.floor = message.stream_seq - 1
            self._known = True
        self.last_stream_seq = message.stream_seq
        self._window.append(record)
        self._seqs.append(message.stream_seq)
        self._window_bytes += len(record.body) + RECORD_OVERHEAD_BYTES
        if self._window_bytes > self._trim_at_bytes:
            self.trim()
        self._wake()

    def _idle(self, stream_seq: int) -> None:
        if not self._known:
            self.floor = stream_seq
            self._known = True
            self._wake()

    def _fail(self, failure: SlipstreamError) -> None:
        self._failure = failure
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def trim(self) -> None:
        """Forget what every reader that keeps up has, and whatever exceeds the bound."""
        if self._window_bytes <= WINDOW_KEEP_BYTES:
            return
        taken = self._lowest(reader.position for reader in self.readers)
        count = 0
        while self._window_bytes > WINDOW_KEEP_BYTES and count < len(self._window):
            if self._seqs[count] > taken and self._window_bytes <= self._window_bytes_max:
                break
            self.floor = self._seqs[count]
            self._window_bytes -= len(self._window[count].body) + RECORD_OVERHEAD_BYTES
            count += 1
        del self._window[:count]
        del self._seqs[:count]
        # Counting readers for every record would cost more than keeping a little longer.
        self._trim_at_bytes = min(self._window_bytes + TRIM_STEP_BYTES, self._window_bytes_max)

    def _lowest(self, positions: Iterable[int]) -> int:
        return min((position for position in positions if position >= self.floor), default=self.last_stream_seq)
