"""A bare client of the wire: what it sends and sees is exactly what goes over HTTP.

The stock SDKs hide frames, cursors and reconnects; tests about those need to see them.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import httpx

REQUEST_DEADLINE_S: Final = 30.0
RUNS_DEADLINE_S: Final = 120.0
ALL_CHANNELS: Final = (
    "lifecycle", "values", "updates", "messages", "tools", "custom", "checkpoints", "tasks", "input",
)  # fmt: skip
ROOT_ENDS: Final = frozenset({"completed", "failed", "interrupted"})


class Frame(NamedTuple):
    """One SSE frame as it came: comments have an event of `:`."""

    event: str
    data: str
    id: str

    @property
    def body(self) -> Any:
        """The decoded data."""
        return json.loads(self.data)

    @property
    def seq(self) -> int:
        """The cursor of a v2 frame."""
        return int(self.id)

    @property
    def ends_root(self) -> bool:
        """Whether this is the terminal event of a run (v2)."""
        if self.event != "lifecycle":
            return False
        params = self.body["params"]
        return params["namespace"] == [] and params["data"]["event"] in ROOT_ENDS


async def frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[Frame]:
    """The frames of an SSE body, from its bytes. Split at LF alone: httpx's lines also end at U+2028 and others."""
    rest = b""
    async for chunk in chunks:
        *blocks, rest = (rest + chunk).split(b"\n\n")
        for block in blocks:
            yield frame_of(block.decode())


def frame_of(block: str) -> Frame:
    """One frame from its lines."""
    if block.startswith(":"):
        return Frame(":", block[1:].strip(), "")
    fields: dict[str, list[str]] = {}
    for line in block.split("\n"):
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    event, body, cursor = ("\n".join(fields.get(name, [])) for name in ("event", "data", "id"))
    return Frame(event, body, cursor)


class Client:
    """One API instance, over a pool of its own. Use it as an async context manager."""

    def __init__(self, url: str) -> None:
        # Nothing here speaks TLS, and to read the certificates costs each client 30 ms.
        self.http = httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(REQUEST_DEADLINE_S), verify=False)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def command(self, thread_id: str, method: str, **params: Any) -> dict[str, Any]:
        """Send a v2 command; its whole answer. Raises: httpx.HTTPStatusError."""
        body = {"id": 1, "method": method, "params": params}
        answer = await self.http.post(f"/threads/{thread_id}/commands", json=body)
        return dict(answer.raise_for_status().json())

    async def start(self, thread_id: str, assistant_id: str, graph_input: Any, **params: Any) -> str:
        """`run.start`; the run's id."""
        answer = await self.command(thread_id, "run.start", assistant_id=assistant_id, input=graph_input, **params)
        assert answer["type"] == "success", answer
        return str(answer["result"]["run_id"])

    @asynccontextmanager
    async def stream(
        self, thread_id: str, since: int | None = None, path: str = "stream/events", **body: Any
    ) -> AsyncGenerator[AsyncIterator[Frame]]:
        """The v2 stream of a thread behind `since`, comments too; all channels unless `channels` says less."""
        body = {"channels": list(ALL_CHANNELS), **body} | ({} if since is None else {"since": since})
        async with self.http.stream("POST", f"/threads/{thread_id}/{path}", json=body) as answer:
            assert answer.status_code == 200, (await answer.aread()).decode(errors="replace")
            yield frames(answer.aiter_bytes())

    @asynccontextmanager
    async def events(
        self, thread_id: str, since: int | None = None, **body: Any
    ) -> AsyncGenerator[AsyncIterator[Frame]]:
        """The v2 stream of a thread behind `since`, comments left out."""
        async with self.stream(thread_id, since, **body) as found:
            yield (frame async for frame in found if frame.event != ":")

    async def run_events(self, thread_id: str, since: int | None = None, ends: int = 1, **body: Any) -> list[Frame]:
        """All frames of a thread behind `since`, up to the end of that many runs. Raises: TimeoutError."""
        seen: list[Frame] = []
        async with asyncio.timeout(RUNS_DEADLINE_S), self.events(thread_id, since, **body) as stream:
            async for frame in stream:
                seen.append(frame)
                ends -= frame.ends_root
                if ends == 0:
                    break
        return seen


def new_thread() -> str:
    """A thread id that nobody has used."""
    return str(uuid.uuid4())
