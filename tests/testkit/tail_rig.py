"""What tests of reading need: a broker, a region of its own for each test, writers, and conditions with deadlines."""

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from slipstream_nats.connection import Connection, connect
from slipstream_nats.embedded import NatsProcess, start_nats
from slipstream_nats.provision import provision
from slipstream_nats.publisher import Publisher, open_publisher
from slipstream_nats.tail import Tail, TailRecord, Tails
from slipstream_schemas.errors import Unavailable
from slipstream_schemas.record import RECORD_HEADER, RecordHeader, header_value
from slipstream_schemas.seq import pack
from slipstream_schemas.subjects import Scope, control_stream, thread_log, threads_stream

DEADLINE_S: Final = 30.0
POLL_S: Final = 0.01

Line = tuple[int, bytes]
"""A line as a client gets it: its seq and its bytes."""

_regions = itertools.count(1)


def run(test: Coroutine[Any, Any, None], deadline_s: float = 2 * DEADLINE_S) -> None:
    """Run a test on a loop of its own, bounded in time."""

    async def bounded() -> None:
        async with asyncio.timeout(deadline_s):
            await test

    asyncio.run(bounded())


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool], what: str) -> None:
    """Wait until a condition holds. Raises: AssertionError after the deadline."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                held = condition()
                if held if isinstance(held, bool) else await held:
                    return
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"not within {DEADLINE_S} s: {what}") from None


def free_port() -> int:
    """A port that nobody listens on now, for a broker that comes back under the same address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Broker:
    """A broker that can be killed and started again on its store and port."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._port = free_port()
        self._process: NatsProcess | None = None
        self.url = ""

    def start(self) -> None:
        """Start it, again if need be."""
        self._process = start_nats(self._root, self._port)
        self.url = self._process.url

    def kill(self) -> None:
        """Kill it as a crash would."""
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        """Stop it for good."""
        if self._process is not None:
            self._process.stop()


class Rig:
    """A provisioned region with a connection for writers and one for readers. Use as `async with Rig(url) as rig`."""

    def __init__(self, url: str, window_bytes_max: int | None = None) -> None:
        self._url = url
        self._window = {} if window_bytes_max is None else {"window_bytes_max": window_bytes_max}
        self.scope = Scope(region=f"t{next(_regions)}")
        self.stream = threads_stream(self.scope.region)
        self.control_stream = control_stream(self.scope.region)
        self.written: dict[str, list[Line]] = {}
        self._stack = AsyncExitStack()

    connection: Connection
    publisher: Publisher
    tails: Tails

    async def __aenter__(self) -> Self:
        self.connection = await self.connect("writer")
        await provision(self.connection, self.scope.region)
        self.publisher = await open_publisher(self.connection)
        self.tails = await self.open_tails(await self.connect("reader"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def connect(self, name: str) -> Connection:
        """One more connection, closed with the rig."""
        connection = await connect(self._url, name)
        self._stack.push_async_callback(connection.close)
        return connection

    async def open_tails(self, connection: Connection) -> Tails:
        """The tails of one more process."""
        return await self._stack.enter_async_context(Tails(connection, **self._window))

    async def write(self, thread_id: str, lines: int = 1, line_bytes: int = 40) -> int:
        """Append one record and return its stream_seq; what clients must see of it is added to `written`."""
        log = self.written.setdefault(thread_id, [])
        ordinal = len(log)
        texts = [f"{thread_id}/{ordinal + i}/".encode().ljust(line_bytes, b".") for i in range(lines)]
        stream_seq = await self.write_body(thread_id, ordinal, b"\n".join(texts))
        log.extend((pack(stream_seq, i), text) for i, text in enumerate(texts))
        return stream_seq

    async def write_body(self, thread_id: str, ordinal: int, body: bytes) -> int:
        """Append a record and retry through outages; the message id makes that exact."""
        headers = {
            RECORD_HEADER: header_value(RecordHeader("run-1", 1, ordinal)),
            "Nats-Msg-Id": f"{thread_id}:1:{ordinal}",
        }
        while True:
            try:
                ack = await self.publisher.publish(thread_log(self.scope, thread_id), body, headers)
            except Unavailable:
                await asyncio.sleep(POLL_S)
                continue
            return ack.stream_seq

    async def consumers(self) -> dict[str, str]:
        """Name and filter subject of all consumers of the region's thread logs."""
        answer = await self.connection.api(f"CONSUMER.LIST.{self.stream}", {})
        return {found["name"]: found["config"]["filter_subject"] for found in answer["consumers"] or ()}

    async def delete_consumers(self) -> int:
        """Delete all consumers under their readers, and count them."""
        names = list(await self.consumers())
        for name in names:
            await self.connection.api(f"CONSUMER.DELETE.{self.stream}.{name}", {})
        return len(names)

    async def purge(self, thread_id: str, below_stream_seq: int) -> None:
        """Remove a thread's records below a stream_seq."""
        query = {"filter": thread_log(self.scope, thread_id), "seq": below_stream_seq}
        await self.connection.api(f"STREAM.PURGE.{self.stream}", query)

    def after(self, thread_id: str, since_seq: int) -> list[Line]:
        """What a client that has `since_seq` must still get."""
        return [line for line in self.written.get(thread_id, ()) if line[0] > since_seq]


def fresh_lines(records: list[TailRecord]) -> list[Line]:
    """The lines of a batch that lie above the tail's cursor."""
    return [
        (pack(record.stream_seq, i), line)
        for record in records
        for i, line in enumerate(record.lines)
        if i >= record.first_line
    ]


async def take(tail: Tail, count: int) -> list[Line]:
    """At least the next `count` lines. Raises: TimeoutError after the deadline."""
    lines: list[Line] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(lines) < count:
            lines.extend(fresh_lines(await anext(tail)))
    return lines
