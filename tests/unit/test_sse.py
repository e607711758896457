"""Streams between a generator of pieces and an ASGI server: forwarding, keepalives, and every way to end."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from slipstream_api.heart import Heart, Pulse
from slipstream_api.peer import PEER
from slipstream_api.sse import HEARTBEAT, Stream
from slipstream_schemas.errors import Unavailable
from slipstream_schemas.limits import SSE_HEARTBEAT_S, SSE_SEND_DEADLINE_S
from testkit.wait import until

BEATS_MAX = int(SSE_SEND_DEADLINE_S / SSE_HEARTBEAT_S)


UNSENT_BYTES = 1 << 20


class Peer:
    """The server's side of a response: what was sent, whether the client reads, and when it goes."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.is_complete = self.is_aborted = False
        self.unsent = UNSENT_BYTES
        self.gone = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()

    def is_full(self) -> bool:
        """Whether a send would wait."""
        return not self.reads.is_set()

    def unsent_bytes(self) -> int:
        """What the client has not taken."""
        return self.unsent

    def abort(self) -> None:
        """Give it up."""
        self.is_aborted = True

    async def receive(self) -> Any:
        """The disconnect."""
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Take a message once the client reads."""
        await self.reads.wait()
        if message["type"] == "http.response.body":
            if message["body"]:
                self.bodies.append(message["body"])
            self.is_complete = not message["more_body"]


class Streaming:
    """A stream on its way: `say` gives it pieces, None ends them, an error breaks them."""

    def __init__(self, heart: Heart | None = None) -> None:
        self.peer, self.heart = Peer(), heart or Heart()
        self.source: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
        self.left_early = 0
        self.closed = False
        stream = Stream(self._pieces(), self.heart, {}, on_gone=self._gone)
        scope: Any = {"type": "http", "path": "/", "extensions": {PEER: {"peer": self.peer}}}
        self.answering = asyncio.create_task(stream(scope, self.peer.receive, self.peer.send))

    async def _pieces(self) -> AsyncGenerator[bytes]:
        try:
            while (piece := await self.source.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            self.closed = True

    async def _gone(self) -> None:
        self.left_early += 1

    async def sees(self, *bodies: bytes) -> None:
        """Wait until exactly these bodies were sent."""
        await until(lambda: len(self.peer.bodies) >= len(bodies))
        assert self.peer.bodies == list(bodies)

    async def beats(self, count: int) -> None:
        """Let that many beats pass, each one noticed before the next."""
        for _ in range(count):
            self.heart.beat()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def ends(self) -> tuple[bool, int]:
        """Wait for the end: whether the response was completed, and how often the client left early."""
        async with asyncio.timeout(10):
            await self.answering
        assert self.closed
        return self.peer.is_complete, self.left_early


def test_pieces_are_forwarded_in_order_until_they_end() -> None:
    async def check() -> None:
        streaming = Streaming()
        for piece in (b"1", b"2", b"3", None):
            streaming.source.put_nowait(piece)
        assert await streaming.ends() == (True, 0)
        assert streaming.peer.bodies == [HEARTBEAT, b"1", b"2", b"3"]

    asyncio.run(check())


def test_a_keepalive_is_sent_at_every_beat() -> None:
    async def check() -> None:
        streaming = Streaming()
        await streaming.sees(HEARTBEAT)
        streaming.source.put_nowait(b"1")
        await streaming.sees(HEARTBEAT, b"1")
        await streaming.beats(2)
        await streaming.sees(HEARTBEAT, b"1", HEARTBEAT, HEARTBEAT)
        streaming.source.put_nowait(None)
        assert await streaming.ends() == (True, 0)

    asyncio.run(check())


def leaves(streaming: Streaming) -> None:
    """The client goes."""
    streaming.peer.gone.set()


def stops(streaming: Streaming) -> None:
    """The process stops."""
    streaming.heart.close()


def breaks(streaming: Streaming) -> None:
    """The log cannot be read."""
    streaming.source.put_nowait(Unavailable("away"))


@pytest.mark.parametrize(("end", "left_early"), [(leaves, 1), (stops, 0), (breaks, 0)])
def test_every_end_closes_the_pieces_and_says_who_ended_it(end: Callable[[Streaming], None], left_early: int) -> None:
    async def check() -> None:
        streaming = Streaming()
        await streaming.sees(HEARTBEAT)
        end(streaming)
        assert await streaming.ends() == (not left_early, left_early)

    asyncio.run(check())


def test_a_stream_that_begins_while_the_process_stops_ends_at_once() -> None:
    async def check() -> None:
        heart = Heart()
        heart.close()
        streaming = Streaming(heart)
        async with asyncio.timeout(10):
            await streaming.answering
        assert streaming.peer.is_complete

    asyncio.run(check())


def test_a_client_that_reads_nothing_for_long_is_dropped() -> None:
    async def check() -> None:
        streaming = Streaming()
        await streaming.sees(HEARTBEAT)
        streaming.peer.reads.clear()
        streaming.source.put_nowait(b"1")
        await until(streaming.source.empty)
        await streaming.beats(BEATS_MAX)
        assert not streaming.answering.done()
        streaming.heart.beat()
        assert await streaming.ends() == (False, 1)
        assert streaming.peer.is_aborted

    asyncio.run(check())


def test_a_client_that_reads_slowly_is_kept() -> None:
    """However long one send waits: something of it is taken now and then."""

    async def check() -> None:
        streaming = Streaming()
        await streaming.sees(HEARTBEAT)
        streaming.peer.reads.clear()
        streaming.source.put_nowait(b"1")
        await until(streaming.source.empty)
        for _ in range(5):
            streaming.peer.unsent -= 1
            await streaming.beats(BEATS_MAX)
        assert not streaming.answering.done()
        streaming.peer.reads.set()
        await streaming.sees(HEARTBEAT, b"1")
        streaming.source.put_nowait(None)
        assert await streaming.ends() == (True, 0)

    asyncio.run(check())


def test_a_send_that_waits_again_is_not_the_one_before() -> None:
    """A client that takes one piece for each beat has the same to read each time."""

    async def check() -> None:
        streaming = Streaming()
        await streaming.sees(HEARTBEAT)
        for count in range(2 * BEATS_MAX):
            streaming.peer.reads.clear()
            streaming.source.put_nowait(b"1")
            await until(streaming.source.empty)
            await streaming.beats(1)
            streaming.peer.reads.set()
            await streaming.sees(HEARTBEAT, *[b"1"] * (count + 1))
        streaming.source.put_nowait(None)
        assert await streaming.ends() == (True, 0)
        assert not streaming.peer.is_aborted

    asyncio.run(check())


def test_streams_have_their_beats_one_after_the_other() -> None:
    async def check() -> None:
        heart = Heart()
        pulses = [Pulse() for _ in range(500)]
        for pulse in pulses:
            heart.join(pulse)
        groups = [sum(pulse.group == group for pulse in pulses) for group in {pulse.group for pulse in pulses}]
        assert len(groups) > 10 and max(groups) - min(groups) <= 1
        heart.beat()
        assert all(pulse.beats == 1 and pulse.wake.is_set() for pulse in pulses)
        for pulse in pulses:
            heart.leave(pulse)
        heart.beat()
        assert all(pulse.beats == 1 for pulse in pulses)

    asyncio.run(check())


def test_a_client_that_reads_again_is_kept() -> None:
    async def check() -> None:
        streaming = Streaming()
        await streaming.sees(HEARTBEAT)
        streaming.peer.reads.clear()
        streaming.source.put_nowait(b"1")
        await until(streaming.source.empty)
        await streaming.beats(BEATS_MAX)
        streaming.peer.reads.set()
        await streaming.sees(HEARTBEAT, b"1")
        await streaming.beats(1)
        streaming.source.put_nowait(None)
        assert await streaming.ends() == (True, 0)
        assert streaming.peer.bodies == [HEARTBEAT, b"1", HEARTBEAT]

    asyncio.run(check())
