"""The limit of this machine for sending one stream to many: a bare ASGI app that sends given pieces, and nothing else.

`python -m bench.bare_server PORT FOLDER`: the pieces are the files of the folder, by name. `GET /` streams them as they
are released; `POST /<seconds>` releases them, with that pause behind each.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import uvicorn

HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]


class Bare:
    """Sends each piece to every stream."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self._released = [asyncio.Event() for _ in pieces]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        if scope["method"] == "POST":
            for event in self._released:
                event.set()
                await asyncio.sleep(float(scope["path"][1:]))
        else:
            await send({"type": "http.response.body", "body": b": heartbeat\n\n", "more_body": True})
            for piece, event in zip(self._pieces, self._released, strict=True):
                await event.wait()
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def main() -> None:
    """Serve until killed."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    app = Bare([file.read_bytes() for file in sorted(folder.iterdir())])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False, lifespan="off",
                http="httptools", loop="uvloop", backlog=2048)  # fmt: skip


if __name__ == "__main__":
    main()
