"""Protocol v2: the event stream of a thread, and its commands, over HTTP and over WebSocket."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from litestar import Request, Response, WebSocket, post, websocket
from litestar.types import ASGIApp

from slipstream_api import access, commands, following
from slipstream_api.bodies import idempotency_key, read
from slipstream_api.context import Context
from slipstream_api.problems import as_json
from slipstream_api.render import v2
from slipstream_api.socket_session import Session
from slipstream_api.sse import Stream
from slipstream_api.watchers import WATCHER
from slipstream_nats.tail import TailRecord
from slipstream_schemas import errors, seq
from slipstream_schemas.channels import ChannelFilter
from slipstream_schemas.commands import CommandEnvelope, EventStreamRequest
from slipstream_schemas.ids import check_thread_id
from slipstream_schemas.limits import SSE_SLICE_EVENTS_MAX

AnyRequest = Request[Any, Any, Any]
SSE_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}
STREAM_PATHS = ["/threads/{thread_id:str}/stream/events", "/threads/{thread_id:str}/stream"]
"""The path that the SDKs use, and the specification's."""


def _cursor(request: AnyRequest, body: EventStreamRequest) -> int | None:
    """`since`, or `Last-Event-ID`: the same number. Raises: InvalidArgument."""
    since = body.since
    if since is not msgspec.UNSET and since is not None:
        return following.check_since(since)
    text = request.headers.get("last-event-id")
    if not text:
        return None
    found = seq.parse(text)
    if found is None:
        raise errors.InvalidArgument("Expected a number below 2^53", ("header", "last-event-id"), "int_parsing")
    return found


@post(STREAM_PATHS, status_code=200)
async def stream_events(request: AnyRequest, thread_id: str) -> ASGIApp:
    """Open a stream. It may be opened before the thread exists, spans runs, and never ends by itself."""
    context: Context = request.state.context
    check_thread_id(thread_id)
    body = await read(request, EventStreamRequest)
    chosen = following.filter_of(body)
    watch = await access.stream(context, thread_id)
    asked, client = _cursor(request, body), following.client_of(request)
    since = await following.begin(context, thread_id, asked, chosen.channels, watch)
    leave = context.unwatched.join(context.own_key(thread_id)) if chosen.channels <= WATCHER else None
    pieces = _pieces(context, thread_id, since, chosen, client, watch)
    return Stream(pieces, context.heart, SSE_HEADERS, on_end=leave)


async def _pieces(
    context: Context, thread_id: str, since: int, chosen: ChannelFilter, client: following.Client, watch: access.Watch
) -> AsyncGenerator[bytes]:
    pace = following.pace_of(context, client)
    reading = context.readers.joined(context.own_key(thread_id), client, is_watcher=chosen.channels <= WATCHER)
    with reading as reader:
        async with aclosing(following.follow(context, thread_id, since, watch, reader)) as batches:
            async for batch in batches:
                slice_, count = list[bytes](), 0
                for item in batch:
                    piece = v2.frames(item, chosen) if isinstance(item, TailRecord) else v2.note(item, chosen)
                    if count + piece.count > SSE_SLICE_EVENTS_MAX:
                        yield b"".join(slice_)
                        # uvicorn's send does not yield when its buffer has room; the next batch of a tail does.
                        await asyncio.sleep(count / pace if pace else 0)
                        slice_, count = [], 0
                    if piece.count:
                        slice_.append(piece.frames)
                        count += piece.count
                if count:
                    # Joining one piece gives it back as it is: live records go to all streams without a copy.
                    yield b"".join(slice_)
                    if pace:
                        await asyncio.sleep(count / pace)


@post("/threads/{thread_id:str}/commands", status_code=200)
async def run_command(request: AnyRequest, thread_id: str) -> Response[bytes]:
    """Run a command. Errors of well-formed commands are envelopes with status 200, as clients expect."""
    context: Context = request.state.context
    check_thread_id(thread_id)
    envelope = commands.envelope_of(await request.body())
    if isinstance(envelope, CommandEnvelope):
        call = commands.Call(context, thread_id, envelope.params, idempotency_key(request))
        answer = await commands.execute(call, envelope, commands.METHODS)
    else:
        answer = envelope
    return as_json(answer.body, answer.status)


@websocket(STREAM_PATHS)
async def open_socket(socket: WebSocket[Any, Any, Any], thread_id: str) -> None:
    """Commands and events over one connection."""
    await Session(socket.state.context, thread_id, socket).run()


ROUTES = [stream_events, run_command, open_socket]
