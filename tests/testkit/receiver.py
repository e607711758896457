"""A receiver of webhooks: a real HTTP server that remembers what it was sent and answers as the test says."""

import asyncio
import json
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

HOST: Final = "127.0.0.1"
REASON: Final = "Whatever"


class Delivery(NamedTuple):
    """One POST as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


class Receiver:
    """Use it as an async context manager. `answers` are statuses to give first; after them, 200."""

    def __init__(self, answers: tuple[int, ...] = (), extra: str = "") -> None:
        self.deliveries: list[Delivery] = []
        self._answers, self._extra = list(answers), extra
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where to send to."""
        return f"http://{HOST}:{self.port}/hook?from=slipstream"

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def listen(self) -> None:
        """Be up, on the port of before if there was one."""
        self._server = await asyncio.start_server(self._answer, HOST, self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Be down: connections are refused."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            request, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.deliveries.append(Delivery(request.split()[1], headers, body))
            status = self._answers.pop(0) if self._answers else 200
            writer.write(f"HTTP/1.1 {status} {REASON}\r\n{self._extra}content-length: 0\r\n\r\n".encode())
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
