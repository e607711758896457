"""A bare WebSocket client of protocol v2."""

import asyncio
import json
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect

from testkit.client import ALL_CHANNELS, ROOT_ENDS

DEADLINE_S: Final = 30.0
Message = dict[str, Any]


class Socket:
    """One connection to a thread. Use it as an async context manager. Waits have a deadline."""

    def __init__(
        self, url: str, thread_id: str, path: str = "stream/events", user_agent: str = "test", *,
        headers: dict[str, str] | None = None, query: str = "",
    ) -> None:  # fmt: skip
        address = f"{url.replace('http', 'ws', 1)}/threads/{thread_id}/{path}{'?' if query else ''}{query}"
        self._connecting = connect(address, user_agent_header=user_agent, max_size=None, additional_headers=headers)
        self._socket: ClientConnection | None = None
        self._ids = 0
        self.seen: list[Message] = []
        """Everything that is no answer, in order."""

    async def __aenter__(self) -> "Socket":
        self._socket = await self._connecting
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()

    @property
    def socket(self) -> ClientConnection:
        """The open connection."""
        assert self._socket is not None
        return self._socket

    async def receive(self) -> Message:
        """The next frame: always an object. Raises: ConnectionClosed."""
        async with asyncio.timeout(DEADLINE_S):
            found = json.loads(await self.socket.recv())
        assert isinstance(found, dict)
        if "id" not in found:
            self.seen.append(found)
        return found

    async def send(self, frame: Any) -> None:
        """Send a frame as it is."""
        await self.socket.send(frame if isinstance(frame, (str, bytes)) else json.dumps(frame))

    async def command(self, method: str, **params: Any) -> Message:
        """Send a command; its answer. What came before it is in `seen`."""
        self._ids += 1
        await self.send({"id": self._ids, "method": method, "params": params})
        while True:
            found = await self.receive()
            if found.get("id") == self._ids:
                return found

    async def subscribe(self, *channels: str, **params: Any) -> str:
        """Subscribe; the id of the subscription."""
        answer = await self.command("subscription.subscribe", channels=list(channels or ALL_CHANNELS), **params)
        assert answer["type"] == "success", answer
        return str(answer["result"]["subscription_id"])

    async def until(self, kind: str, count: int = 1) -> list[Message]:
        """Read until that many frames of a type have been seen since the beginning; all events seen."""
        while sum(each["type"] == kind for each in self.seen) < count:
            await self.receive()
        return self.events

    async def until_ended(self, runs: int = 1) -> list[Message]:
        """Read until that many runs have ended; all events seen."""
        while sum(ends_root(each) for each in self.events) < runs:
            await self.receive()
        return self.events

    @property
    def events(self) -> list[Message]:
        """The events seen so far."""
        return [each for each in self.seen if each["type"] == "event"]


def ends_root(event: Message) -> bool:
    """Whether it is the terminal event of a run."""
    params = event["params"]
    return event["method"] == "lifecycle" and not params["namespace"] and params["data"]["event"] in ROOT_ENDS
