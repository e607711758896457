"""Protocol v1: everything that happens on a thread, over all of its runs."""

from collections.abc import AsyncGenerator
from typing import Any

from litestar import Request, get
from litestar.types import ASGIApp

from slipstream_api import access
from slipstream_api.context import Context
from slipstream_api.render.thread import MODES, ThreadRenderer
from slipstream_api.render.v1 import V1Renderer
from slipstream_api.routes.events import SSE_HEADERS
from slipstream_api.routes.runs import last_event_id, learn_open, modes_asked, query_of, renderer_of
from slipstream_api.sse import Stream
from slipstream_nats.cursor import CursorLost
from slipstream_nats.tail import TailRecord
from slipstream_postgres import runs as run_rows
from slipstream_schemas import run_state as rs
from slipstream_schemas.errors import InvalidArgument
from slipstream_schemas.ids import check_thread_id
from slipstream_schemas.limits import PROJECTION_WAIT_S
from slipstream_schemas.seq import last_of

AnyRequest = Request[Any, Any, Any]


@get("/threads/{thread_id:str}/stream")
async def stream_thread(request: AnyRequest, thread_id: str) -> ASGIApp:
    """Follow a thread: from `Last-Event-ID` on, or without it from now on. It does not end by itself."""
    context: Context = request.state.context
    check_thread_id(thread_id)
    modes = frozenset(modes_asked(request) or ["run_modes"])
    if not modes <= set(MODES):
        raise InvalidArgument(f"Expected one of {', '.join(MODES)}", ("query", "stream_mode"), "literal_error")
    last = last_event_id(request)
    watch = await access.thread(context, thread_id)
    rs.existing((await context.control.head(context.scope, thread_id)).state)
    skip: tuple[int, int] | None = None
    if last is None:
        since = last_of(await context.threads.last_seq(context.scope, thread_id))
    else:
        gap = await context.tails.check_cursor(context.scope, thread_id, last[0])
        if gap is not None:
            raise CursorLost(last[0], gap)
        # A part of a line is known: begin at the line and leave those parts out.
        since, skip = (last[0] - 1, last) if last[1] else (last[0], None)
    headers = {**SSE_HEADERS, "location": f"/threads/{thread_id}/stream{query_of(request)}"}
    return Stream(_pieces(context, thread_id, watch, since, modes, skip), context.heart, headers)


async def _pieces(
    context: Context,
    thread_id: str,
    watch: access.Watch,
    since: int,
    modes: frozenset[str],
    skip: tuple[int, int] | None,
) -> AsyncGenerator[bytes]:
    async def shown(record: TailRecord) -> V1Renderer:
        """A run that was rolled back has no row any more, and no modes."""
        head = await context.control.head(context.scope, thread_id)
        await context.projected(head.stream_seq, PROJECTION_WAIT_S)
        row = await run_rows.get(context.database, context.scope.tenant, record.header.run_id)
        renderer = V1Renderer(record.header.run_id, ()) if row is None else renderer_of(row, [])
        await learn_open(context, thread_id, renderer, record.header.open.messages)
        return renderer

    renderer = ThreadRenderer(modes, shown, skip)
    async with context.tails.open(context.scope, thread_id, since) as tail:
        async for batch in tail:
            frames: list[bytes] = []
            for record in batch:
                if record.is_erasure and watch.is_open:
                    return
                if not await watch.lets(record.header.run_id, record.stream_seq):
                    continue
                frames.append(await renderer.feed(record))
            if piece := b"".join(frames):
                yield piece


ROUTES = [stream_thread]
