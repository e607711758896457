"""Requests over a bound: each is refused with its status and a reason, before it costs memory."""

import asyncio
import json
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from slipstream_api import bounded_http
from slipstream_api.bounded_http import BoundedProtocol
from slipstream_schemas.limits import BODY_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, JSON_DEPTH_MAX, URL_BYTES_MAX
from testkit.client import new_thread
from testkit.stack import Stack
from testkit.wait import until

AUTH: Final = Path(__file__).parents[2] / "examples" / "auth.json"
PIECE: Final = b"a" * 4096
ENOUGH: Final = 400
"""Pieces of a part that never ends: far above every bound, far below what a socket's buffers hide for ever."""


async def exchange(url: str, *pieces: bytes) -> tuple[int, bytes]:
    """Send raw bytes until an answer comes; its status and body."""
    return await asyncio.to_thread(_exchange, urlsplit(url).port or 0, pieces)


def _exchange(port: int, pieces: tuple[bytes, ...]) -> tuple[int, bytes]:
    # A server that closes while we send resets the connection; what it said before is still to be read.
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as opened:
        try:
            for piece in pieces:
                opened.sendall(piece)
        except ConnectionError:
            pass
        try:
            while more := opened.recv(65536):
                found += more
        except ConnectionError:
            pass
    head, _, body = found.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


LINE: Final = b"GET /ok HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
POST: Final = b"POST /threads HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
OVER: Final[dict[str, tuple[int, list[bytes]]]] = {
    "a URL": (414, [b"GET /" + b"a" * URL_BYTES_MAX + b" HTTP/1.1\r\nhost: x\r\n\r\n"]),
    "a query": (414, [b"GET /ok?" + b"a" * URL_BYTES_MAX + b" HTTP/1.1\r\nhost: x\r\n\r\n"]),
    "a URL without end": (414, [b"GET /", *[PIECE] * ENOUGH]),
    "a header": (431, [LINE + b"x: " + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n"]),
    "a header without end": (431, [LINE + b"x: ", *[PIECE] * ENOUGH]),
    "a name without end": (431, [LINE, *[PIECE] * ENOUGH]),
    "many headers": (431, [LINE + b"".join(b"x-%d: 1\r\n" % count for count in range(HEADERS_MAX)) + b"\r\n"]),
    "headers without end": (431, [LINE, *[b"a: b\r\n"] * 50_000]),
    "the head of a socket": (
        431,
        [b"GET /threads/t/stream HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
         b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nx: " + b"a" * HEAD_BYTES_MAX
         + b"\r\n\r\n"],
    ),
    "no HTTP": (400, [b"\x16\x03\x01\x02\x00\x01\x00"]),
    "a body": (413, [POST + b"content-length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1),
                     *[b" " * 65536] * (BODY_BYTES_MAX // 65536 + 1)]),
    "a body without end": (413, [POST + b"transfer-encoding: chunked\r\n\r\n",
                                 *[b"10000\r\n" + b" " * 65536 + b"\r\n"] * (BODY_BYTES_MAX // 65536 + 8)]),
}  # fmt: skip


@pytest.mark.parametrize("what", OVER)
async def test_what_is_over_a_bound_is_refused(live: Stack, what: str) -> None:
    wanted, pieces = OVER[what]
    status, body = await exchange(live.url, *pieces)
    assert status == wanted
    if wanted != 400:
        assert json.loads(body)["detail"]


async def test_what_is_within_the_bounds_passes(live: Stack) -> None:
    many = b"".join(b"x-%d: %s\r\n" % (count, b"a" * 200) for count in range(HEADERS_MAX - 4))
    status, _ = await exchange(live.url, LINE + many + b"\r\n")
    assert status == 200
    async with httpx.AsyncClient(base_url=live.url) as http:
        nested = "[" * (JSON_DEPTH_MAX - 4) + "]" * (JSON_DEPTH_MAX - 4)
        answer = await http.post("/threads", content=f'{{"metadata":{{"a":{nested}}}}}')
        assert answer.status_code == 200
        deeper = "[" * JSON_DEPTH_MAX + "]" * JSON_DEPTH_MAX
        assert (await http.post("/threads", content=f'{{"metadata":{{"a":{deeper}}}}}')).status_code == 422


async def test_a_frame_over_the_bound_closes_the_socket(live: Stack) -> None:
    url = live.url.replace("http", "ws") + f"/threads/{new_thread()}/stream"
    async with connect(url, max_size=None) as opened:

        async def talk() -> None:
            await opened.send("a" * (BODY_BYTES_MAX + 1))
            while True:
                await opened.recv()

        with pytest.raises(ConnectionClosed) as closed:
            await talk()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009


@pytest.mark.parametrize("sent", [b"", b"GET /ok HTTP/1.1\r\nhost: "])
async def test_who_asks_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    import uvicorn

    monkeypatch.setattr(bounded_http, "HEAD_DEADLINE_S", 0.2)

    async def app(scope: object, receive: object, send: object) -> None:
        raise AssertionError("no request was whole")

    server = uvicorn.Server(uvicorn.Config(app, port=0, http=BoundedProtocol, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started, what="the server")
    port = server.servers[0].sockets[0].getsockname()[1]
    status, _ = await exchange(f"http://127.0.0.1:{port}", sent)
    assert status == 408
    server.should_exit = True
    await serving


@pytest.fixture
async def api(stack: Stack) -> str:
    """An API with auth whose callers may have two things open."""
    service = await stack.spawn_api(slipstream_config=str(AUTH), slipstream_caller_requests_max="2").ready()
    return service.url or ""


async def test_a_caller_has_so_many_streams_and_no_more(api: str) -> None:
    alice, bob = ({"authorization": f"Bearer {name}-token"} for name in ("alice", "bob"))
    body = {"channels": ["values"]}
    path = f"/threads/{new_thread()}/stream/events"
    where = api.replace("http", "ws") + path
    async with httpx.AsyncClient(base_url=api, timeout=20) as http, AsyncExitStack() as opened:
        first = await opened.enter_async_context(http.stream("POST", path, json=body, headers=alice))
        assert first.status_code == 200
        async with connect(where, additional_headers=alice):
            refused = await http.post("/threads", json={}, headers=alice)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert "2 requests and streams" in refused.json()["detail"]
            with pytest.raises(InvalidStatus) as found:
                await connect(where, additional_headers=alice)
            assert found.value.response.status_code == 429
            assert (await http.post("/threads/search", json={}, headers=bob)).status_code == 200

        async def is_free() -> bool:
            return (await http.post("/threads/search", json={}, headers=alice)).status_code == 200

        await until(is_free, what="the place of the socket that closed")
