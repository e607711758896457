"""Clients that follow a thread or a run, lose their connection, and come back by their cursor."""

import asyncio
from typing import Final, NamedTuple

import httpx

from simulation.model import Thread
from simulation.world import World
from slipstream_api.render.v1 import DELETED
from testkit.client import ALL_CHANNELS, Frame, frames

CHOICES: Final[tuple[tuple[str, ...], ...]] = (
    ALL_CHANNELS,
    ("values",),
    ("lifecycle", "values"),
    ("custom", "updates", "input"),
    ("checkpoints", "tasks"),
)
V1_MODES: Final = ("values", "updates", "custom")
RETRY_S: Final = 0.1


class Place(NamedTuple):
    """The cursor of a v1 frame: `<seq>` is the last one of its line, `<seq>-<k>` come before it."""

    seq: int
    part: int


def place_of(text: str) -> Place:
    """The place of an SSE id."""
    seq, _, part = text.partition("-")
    return Place(int(seq), int(part) if part else 1 << 30)


class Reader:
    """A client with a cursor. `seen` is the union of all its connections, in the order in which it came."""

    def __init__(
        self, world: World, thread: Thread, choice: int, run_id: str | None = None, *, since: str = ""
    ) -> None:
        self._world, self.thread, self.run_id = world, thread, run_id
        self._choice, self._since = choice, since
        self.channels = CHOICES[choice % len(CHOICES)]
        self.seen: list[Frame] = []
        self.wrong: list[str] = []
        self.lost = False
        self.connections = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def cursor(self) -> str:
        """The id of the last frame; before the first the one it began behind, or empty."""
        return self.seen[-1].id if self.seen else self._since

    def beginning_behind(self, since: str) -> "Reader":
        """Another client that wants the same, from the frame with this id on."""
        return Reader(self._world, self.thread, self._choice, self.run_id, since=since)

    @property
    def name(self) -> str:
        """For messages."""
        what = f"run {self.run_id} in v1" if self.run_id else f"channels {','.join(self.channels)}"
        return f"reader of thread {self.thread.thread_id}, {what}, {self.connections} connections"

    def connect(self, api: int) -> None:
        """Come back by the cursor, on this API."""
        self.disconnect()
        self.connections += 1
        self._task = self._world.begin(self._read(api))

    def disconnect(self) -> None:
        """Be gone, in the middle of whatever comes."""
        if self._task is not None:
            self._world.run(self._stop(self._task))
            self._task = None

    @staticmethod
    async def _stop(task: "asyncio.Task[None]") -> None:
        task.cancel()
        await asyncio.wait([task])

    def _request(self, api: int) -> httpx.Request:
        client = self._world.clients[api]
        path = f"/threads/{self.thread.thread_id}"
        if self.run_id is not None:
            headers = {"last-event-id": self.cursor or "-1"}
            params = {"stream_mode": list(V1_MODES)}
            return client.build_request("GET", f"{path}/runs/{self.run_id}/stream", params=params, headers=headers)
        body: dict[str, object] = {"channels": list(self.channels), "since": int(self.cursor or 0)}
        return client.build_request("POST", f"{path}/stream/events", json=body)

    async def _read(self, api: int) -> None:
        client = self._world.clients[api]
        try:
            answer = await client.send(self._request(api), stream=True)
            try:
                if answer.status_code == 422:
                    self.lost = True
                elif answer.status_code == 500:
                    self.wrong.append(f"500: {(await answer.aread()).decode()}")
                elif answer.status_code == 200:
                    async for frame in frames(answer.aiter_bytes()):
                        self._take(frame)
            finally:
                await answer.aclose()
        except httpx.TransportError:
            return

    def _take(self, frame: Frame) -> None:
        if frame.event == "gap":
            self.lost = True
        if frame.event == "error" and not frame.id and not (self.thread.was_deleted and frame.body == DELETED):
            self.wrong.append(f"an error frame: {frame.data}")
        if not frame.id:
            return
        if self.cursor and place_of(frame.id) <= place_of(self.cursor):
            self.wrong.append(f"{frame.id} came behind {self.cursor}")
        self.seen.append(frame)

    async def follow_until(self, last: str, deadline_s: float) -> None:
        """Read on, over as many connections as it takes, until the frame `last` has come. Raises: TimeoutError."""
        api = 0
        async with asyncio.timeout(deadline_s):
            while last and not self.lost and (not self.seen or place_of(self.cursor) < place_of(last)):
                self.connections += 1
                reading = asyncio.create_task(self._read(api))
                try:
                    while not reading.done() and (not self.seen or place_of(self.cursor) < place_of(last)):
                        await asyncio.sleep(0.01)
                finally:
                    await self._stop(reading)
                api = 1 - api
                await asyncio.sleep(RETRY_S)


async def replay(world: World, thread: Thread, run_id: str, api: int, deadline_s: float) -> list[Frame]:
    """All frames of a run that is over, without a cursor. Raises: TimeoutError, AssertionError."""
    reader = Reader(world, thread, 0, run_id)
    async with asyncio.timeout(deadline_s):
        await reader._read(api)  # pyright: ignore[reportPrivateUsage]
    assert not reader.wrong and not reader.lost, (reader.name, reader.wrong)
    return reader.seen
