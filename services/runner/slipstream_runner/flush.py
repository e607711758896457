"""From lines to records: one publish in flight, and everything that gathers meanwhile goes out as the next record.

A slow graph gets the latency of one publish, a fast one packs itself, and the broker's cost for each token falls as the
load rises. The queue is bounded: a graph that is faster than the log waits in `room`.
"""

import asyncio

from slipstream_nats.owed import publish_ahead
from slipstream_runner.runtime import Attempt, Runtime, now_ms
from slipstream_runner.translate import Draft, Translator, assemble
from slipstream_schemas.errors import Fenced
from slipstream_schemas.limits import RECORD_LINES_MAX, RUN_QUEUE_LINES_MAX
from slipstream_schemas.record import OpenMessage, OpenState, RecordHeader
from slipstream_schemas.seq import pack

TURNS = 4


class Flusher:
    """Publishes what a translator gathers. Run `run()` as a task; `close()` ends it after the last line.

    `run` raises Fenced, Unavailable (the log was away too long), Corrupt.
    """

    def __init__(self, runtime: Runtime, attempt: Attempt, translator: Translator, opening: list[Draft]) -> None:
        self._runtime, self._attempt, self._translator = runtime, attempt, translator
        self._opening = opening
        self._room = asyncio.Event()
        self._closed = False
        self._failed = False
        self._taken = self._stored = 0
        """Lines of the translator that were taken for a record, and those whose record is in the log."""
        self._moved = asyncio.Event()

    @property
    def waiting_lines(self) -> int:
        """How many lines wait for the log."""
        return len(self._translator)

    def notify(self) -> None:
        """There are new lines."""
        self._attempt.wake.set()

    async def room(self) -> None:
        """Wait until the queue has room."""
        while len(self._translator) > RUN_QUEUE_LINES_MAX and not self._failed:
            self._room.clear()
            await self._room.wait()

    async def stored(self) -> None:
        """Wait until the log holds what the graph has said so far.

        Raises: Fenced when the log refuses it, or was away for too long.
        """
        for _ in range(TURNS):
            # What a task says reaches the translator some turns of the loop later.
            await asyncio.sleep(0)
        said = self._taken + len(self._translator)
        while self._stored < said:
            if self._failed:
                raise Fenced("the log did not take what was said before", 0)
            self._moved.clear()
            await self._moved.wait()

    def close(self) -> None:
        """No more lines will come."""
        self._closed = True
        self._attempt.wake.set()

    async def run(self) -> None:
        """Publish until closed and empty."""
        wake = self._attempt.wake
        wake.set()
        try:
            while True:
                await wake.wait()
                wake.clear()
                # What a graph says in one step of the loop shall be one record.
                await asyncio.sleep(0)
                await self._flush_all()
                if self._closed and not len(self._translator) and not self._attempt.to_tell:
                    return
        except BaseException:
            self._failed = True
            raise
        finally:
            self._room.set()
            self._moved.set()

    async def _flush_all(self) -> None:
        self._translator.settle(now_ms())
        to_tell = self._attempt.to_tell
        while len(self._translator) or self._opening or to_tell:
            opened = self._translator.open_state()
            if to_tell and not self._opening:
                await publish_ahead(self._attempt.writer, to_tell.pop(0), opened)
                continue
            lead, self._opening = self._opening[:RECORD_LINES_MAX], self._opening[RECORD_LINES_MAX:]
            drafts, starts, values = ([], [], -1) if lead else self._translator.drain()
            self._taken += len(drafts)
            self._room.set()
            await self._publish([*lead, *drafts], opened, starts, values)
            self._stored += len(drafts)
            self._moved.set()

    async def _publish(
        self, drafts: list[Draft], opened: OpenState, starts: list[tuple[int, OpenMessage]], values: int
    ) -> None:
        attempt = self._attempt
        attempt.ordinal += 1
        body = assemble(drafts, attempt.run.run_id, attempt.number, attempt.ordinal)
        header = RecordHeader(attempt.run.run_id, attempt.number, attempt.ordinal, opened)
        stream_seq = await attempt.writer.append(header, body, traceparent=attempt.traceparent)
        self._runtime.metrics.lines.inc(len(drafts))
        for line, message in starts:
            self._translator.started_at(message, pack(stream_seq, line))
        if values >= 0:
            self._translator.values_seq = pack(stream_seq, values)
        self._runtime.crash.reach("output")
