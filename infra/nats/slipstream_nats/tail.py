"""Following a thread log from a cursor: catch up first, then live, each line once and in order.

A stream that is behind the feed of its thread first asks for one page (Direct Get, no consumer), which is all that a
client needs that was away for a moment. What is left is read by a consumer of its own, at the client's pace, until the
position reaches the window of the feed; from there the feed's records serve it. A client that falls out of the window
catches up again in the same way, from its own position.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self

import msgspec

from slipstream_nats.connection import Connection
from slipstream_nats.cursor import CursorLost, Gap, check_cursor, last_stream_seq, read_page
from slipstream_nats.fanout import TailRecord, ThreadFeed, record_of
from slipstream_nats.inbox import ApiError, Inbox, Message
from slipstream_nats.pull import ContinuousPull
from slipstream_schemas.errors import Unavailable, Unreachable
from slipstream_schemas.limits import TAIL_BUFFER_BYTES_MAX
from slipstream_schemas.seq import last_of, pack, unpack
from slipstream_schemas.subjects import Scope, control_stream, family, thread_log, threads_stream

__all__ = ["CursorLost", "Gap", "Tail", "TailRecord", "Tails"]

log = logging.getLogger("slipstream.tail")

PAGE_RECORDS: Final = 16
PAGE_BYTES: Final = 64 * 1024
"""A backlog up to this size is read without a consumer."""
CATCH_UP_BYTES: Final = 256 * 1024
CATCH_UP_SILENCE_S: Final = 1.0
"""A catch-up that gets nothing for this long asks the leader whether there is anything."""

LEADER_PAUSE_S: Final = 0.2


class Tail:
    """One reader of a thread log. Iterate it for batches of records that hold at least one line above the cursor.

    The first record may begin at or below the cursor: its `first_line` says where to go on. One batch is empty: it says
    that all has been delivered which the log held when the tail was opened. A record that `is_erasure` says that the
    thread was deleted meanwhile. Cancelling a wait loses nothing.
    Raises while iterating: CursorLost when the cursor lies beyond the log, Corrupt.
    """

    def __init__(self, inbox: Inbox, feed: ThreadFeed, scope: Scope, thread_id: str, since_seq: int) -> None:
        self._inbox = inbox
        self._feed = feed
        self._scope = scope
        self._thread_id = thread_id
        self._since_seq = max(since_seq, 0)
        # The record of the cursor is read again, since some of its lines may lie above the cursor.
        self.position = max(unpack(self._since_seq)[0] - 1, 0)
        """Every record up to this stream_seq has been delivered."""
        self.catch_ups = 0
        """How often the reader had to read the log on its own."""
        self._catch_up: ContinuousPull | None = None
        self._checked = False
        self._end = 0
        self._is_caught_up = False
        self._paged = False
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[TailRecord]:
        """The next records; waits for as long as it takes."""
        if not self._checked:
            await self._check()
        while not self._closed:
            if not self._is_caught_up and self.position >= self._end:
                self._is_caught_up = True
                return []
            if self.position < self._feed.floor:
                records = await self._read_behind()
            else:
                await self._leave_catch_up()
                records = self._feed.after(self.position)
                if not records:
                    await self._feed.arrival()
                    continue
            if fresh := self._above_cursor(records):
                return fresh
        raise StopAsyncIteration

    async def close(self) -> None:
        """Stop reading and delete what the tail has at the broker."""
        self._closed = True
        await self._leave_catch_up()

    def _above_cursor(self, records: list[TailRecord]) -> list[TailRecord]:
        if records and records[-1].stream_seq > self.position:
            self.position = records[-1].stream_seq
        # That a thread of this id was deleted before is nobody's concern.
        records = [record for record in records if not record.is_erasure or record.stream_seq > self._end]
        if not records or pack(records[0].stream_seq, 0) > self._since_seq:
            return records
        stream_seq, line = unpack(self._since_seq)
        fresh = [record for record in records if record.stream_seq >= stream_seq]
        if fresh and fresh[0].stream_seq == stream_seq:
            if line + 1 >= len(fresh[0].lines):
                del fresh[0]
            else:
                fresh[0] = msgspec.structs.replace(fresh[0], first_line=line + 1)
        return fresh

    async def _check(self) -> None:
        await self._feed.known()
        stream_seq, _ = unpack(self._since_seq)
        while stream_seq > self._feed.last_stream_seq:
            try:
                last = await last_stream_seq(self._inbox, self._scope, self._thread_id)
                if stream_seq <= last:
                    break
                gap = await check_cursor(self._inbox, self._scope, self._thread_id, self._since_seq)
                raise CursorLost(self._since_seq, gap or Gap(0, last_of(last)))
            except (Unavailable, ApiError) as failure:
                log.info("cannot check a cursor of %s yet: %s", self._feed.subject, failure)
                await asyncio.sleep(LEADER_PAUSE_S)
        self._end = self._feed.last_stream_seq
        self._checked = True

    # Behind the window

    async def _read_behind(self) -> list[TailRecord]:
        if self._catch_up is None and not self._paged:
            self._paged = True
            self.catch_ups += 1
            return await self._read_page()
        if self._catch_up is None:
            self._catch_up = ContinuousPull(
                self._inbox, self._feed.stream, self._feed.subject, self.position + 1, batch_bytes=CATCH_UP_BYTES
            )
            self._catch_up.open()
        messages: list[Message] = []
        try:
            async with asyncio.timeout(CATCH_UP_SILENCE_S):
                messages = await anext(self._catch_up)
        except TimeoutError:
            await self._ask_leader()
        return [record_of(message) for message in messages]

    async def _read_page(self) -> list[TailRecord]:
        try:
            page = await read_page(
                self._inbox, self._feed.stream, self._feed.subject, self.position + 1, PAGE_RECORDS, PAGE_BYTES
            )
        except Unavailable as failure:
            log.info("reading %s with a consumer: %s", self._feed.subject, failure)
            return []
        return [record_of(message) for message in page.messages]

    async def _ask_leader(self) -> None:
        """Records between the position and the floor may have been purged: then there is nothing to wait for."""
        try:
            last = await last_stream_seq(self._inbox, self._scope, self._thread_id)
        except (Unavailable, ApiError) as failure:
            log.info("%s is silent and so is its leader: %s", self._feed.subject, failure)
            return
        if last <= self.position:
            self.position = max(self.position, self._feed.floor)

    async def _leave_catch_up(self) -> None:
        self._paged = False
        if self._catch_up is not None:
            pull, self._catch_up = self._catch_up, None
            await pull.close()


class Tails:
    """The tails of a process. Use as `async with Tails(connection) as tails`."""

    def __init__(self, connection: Connection, *, window_bytes_max: int = TAIL_BUFFER_BYTES_MAX) -> None:
        self._inbox = Inbox(connection)
        self._window_bytes_max = window_bytes_max
        self._feeds: dict[str, ThreadFeed] = {}

    async def __aenter__(self) -> Self:
        await self._inbox.__aenter__()
        self._inbox.sweeps.add(self._trim)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for feed in tuple(self._feeds.values()):
            await feed.pull.close()
        await self._inbox.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def open(self, scope: Scope, thread_id: str, since_seq: int = 0) -> AsyncIterator[Tail]:
        """Follow a thread log from a cursor. The thread need not exist. Check the cursor with `check_cursor` first."""
        subject = thread_log(scope, thread_id)
        feed = self._feeds.get(subject)
        if feed is None:
            feed = self._feeds[subject] = ThreadFeed(
                self._inbox, threads_stream(scope.region), subject, self._window_bytes_max
            )
            feed.pull.open()
        tail = Tail(self._inbox, feed, scope, thread_id, since_seq)
        feed.readers.add(tail)
        try:
            yield tail
        finally:
            feed.readers.discard(tail)
            # Without readers the feed must be gone before the next await: a newcomer makes its own.
            if not feed.readers:
                del self._feeds[subject]
            try:
                await tail.close()
            finally:
                if not feed.readers:
                    await feed.pull.close()

    @asynccontextmanager
    async def control(self, region: str) -> AsyncIterator[ContinuousPull]:
        """Every control record of a region from now on, for watching cancels."""
        pull = ContinuousPull(self._inbox, control_stream(region), family("control", region), "new")
        pull.open()
        try:
            yield pull
        finally:
            await pull.close()

    async def check_cursor(self, scope: Scope, thread_id: str, since_seq: int) -> Gap | None:
        """None when the thread log continues from the cursor. Raises: Unavailable."""
        try:
            return await check_cursor(self._inbox, scope, thread_id, since_seq)
        except ApiError as refusal:
            raise Unreachable(str(refusal)) from refusal

    async def last_stream_seq(self, scope: Scope, thread_id: str) -> int:
        """The stream_seq of the thread log's last record, from the leader; 0 for none. Raises: Unavailable."""
        try:
            return await last_stream_seq(self._inbox, scope, thread_id)
        except ApiError as refusal:
            raise Unreachable(str(refusal)) from refusal

    def _trim(self) -> None:
        for feed in self._feeds.values():
            feed.trim()
