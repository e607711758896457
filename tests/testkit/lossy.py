"""A network between a client and its server that can lose what the server answers."""

import asyncio
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

CHUNK_BYTES = 65_536


class LossyNetwork:
    """A TCP relay to `url`. Use as `async with LossyNetwork(url) as network` and connect to `network.url`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url.split(",")[0])
        self._scheme = parts.scheme
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 4222
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._losing_answers = False
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.url = f"{self._scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def lose_answers(self) -> None:
        """From now on the server hears the client, and the client nothing."""
        self._losing_answers = True

    def cut(self) -> None:
        """Break the connections; new ones lose nothing."""
        self._losing_answers = False
        for writer in tuple(self._writers):
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, server_writer}
        for task in (
            asyncio.create_task(self._copy(reader, server_writer, answers=False)),
            asyncio.create_task(self._copy(server_reader, writer, answers=True)),
        ):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                if answers and self._losing_answers:
                    continue
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
            self._writers.discard(writer)
