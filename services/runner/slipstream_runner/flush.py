"""From lines to records: one publish in flight, and everything that gathers meanwhile goes out as the next record.

A slow graph gets the latency of one publish, a fast one packs itself, and the broker's cost for each token falls as the
load rises. The queue is bounded: a graph that is faster than the log waits in `room`.
"""

import asyncio

from slipstream_runner.runtime import Attempt, Runtime, now_ms
from slipstream_runner.settling import publish_owed
from slipstream_runner.translate import Translator, assemble
from slipstream_schemas.limits import RUN_QUEUE_LINES_MAX
from slipstream_schemas.record import NOTHING_OPEN, OpenState, RecordHeader
from slipstream_schemas.run_state import OwedTerminal
from slipstream_schemas.seq import pack


class Flusher:
    """Publishes what a translator gathers, after `opening`, the record with which the attempt begins.

    Run `run()` as a task; `close()` ends it after the last line. `run` raises Fenced, TooLarge, Corrupt, and Unavailable
    when the log was away for too long.
    """

    def __init__(self, runtime: Runtime, attempt: Attempt, translator: Translator, opening: bytes) -> None:
        self._crash, self._attempt, self._translator = runtime.crash, attempt, translator
        self._opening = opening
        self._owed: list[OwedTerminal] = []
        self._owed_known: set[str] = set()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._closed = False
        self._failed = False

    def notify(self) -> None:
        """There are new lines."""
        self._wake.set()

    async def room(self) -> None:
        """Wait until the queue has room."""
        while len(self._translator) > RUN_QUEUE_LINES_MAX and not self._failed:
            self._room.clear()
            await self._room.wait()

    def owe(self, owed: OwedTerminal) -> None:
        """Publish the terminal record of another run of the thread in passing, once."""
        if owed.run_id not in self._owed_known and not self._closed:
            self._owed_known.add(owed.run_id)
            self._owed.append(owed)
            self._wake.set()

    def close(self) -> None:
        """No more lines will come."""
        self._closed = True
        self._wake.set()

    async def run(self) -> None:
        """Publish until closed and empty."""
        try:
            await self._append(self._opening, NOTHING_OPEN)
            while True:
                # What a graph says in one step of the loop shall be one record.
                await asyncio.sleep(0)
                await self._flush()
                if self._closed and not len(self._translator) and not self._owed:
                    return
                await self._wake.wait()
                self._wake.clear()
        except BaseException:
            self._failed = True
            raise
        finally:
            self._room.set()

    async def _flush(self) -> None:
        while self._owed:
            owed = self._owed.pop(0)
            await publish_owed(self._attempt.writer, owed)
            self._attempt.settled.add(owed.run_id)
        self._translator.settle(now_ms())
        while len(self._translator):
            opened = self._translator.open_state()
            drafts, starts, values = self._translator.drain()
            self._room.set()
            run_id, number = self._attempt.run.run_id, self._attempt.number
            stream_seq = await self._append(assemble(drafts, run_id, number, self._attempt.ordinal + 1), opened)
            for line, message_id in starts:
                self._translator.started_at(message_id, pack(stream_seq, line))
            if values >= 0:
                self._attempt.values_seq = pack(stream_seq, values)
            self._crash.reach("output")

    async def _append(self, body: bytes, opened: OpenState) -> int:
        attempt = self._attempt
        attempt.ordinal += 1
        header = RecordHeader(attempt.run.run_id, attempt.number, attempt.ordinal, opened)
        return await attempt.writer.append(header, body)
