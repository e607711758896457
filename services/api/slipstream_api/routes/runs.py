"""Protocol v1: runs of a thread."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.types import ASGIApp

from slipstream_api import access, runs
from slipstream_api.bodies import flag, idempotency_key, integer, read
from slipstream_api.context import Context
from slipstream_api.paging import picked
from slipstream_api.problems import as_json
from slipstream_api.render.outcome import Outcome
from slipstream_api.render.v1 import V1Renderer
from slipstream_api.routes.events import SSE_HEADERS
from slipstream_api.sse import NEWLINE, Empty, Stream
from slipstream_nats.cursor import CursorLost
from slipstream_postgres import runs as run_rows
from slipstream_postgres.rows import RunPlace, RunRow
from slipstream_schemas import run_state as rs
from slipstream_schemas.codec import dumps
from slipstream_schemas.errors import InvalidArgument, NotFound, Unavailable
from slipstream_schemas.ids import check_run_id, check_thread_id
from slipstream_schemas.limits import PROJECTION_WAIT_S, SEARCH_LIMIT_MAX, SEARCH_OFFSET_MAX
from slipstream_schemas.seq import last_of, unpack

AnyRequest = Request[Any, Any, Any]
EVENT_ID = re.compile(r"(\d{1,16})(?:-(\d{1,9}))?", re.ASCII)
FROM_START = frozenset({"-1", "-", "0"})
RUN_FIELDS = (*RunRow.__struct_fields__, "cancel_reason")
"""What clients may select; nobody gives a reason, so no run has one."""
RUN_STATUSES = ("pending", "running", "success", "error", "timeout", "interrupted")


def places(thread_id: str, run_id: str, what: str, query: str = "") -> dict[str, str]:
    """The headers that say where a run lies and how to come back to it."""
    path = f"/threads/{thread_id}/runs/{run_id}"
    return {"location": f"{path}/{what}{query}", "content-location": path}


def query_of(request: AnyRequest) -> str:
    """The query as it came: a client that comes back to a `Location` sends nothing but that."""
    query: bytes = request.scope["query_string"]
    return f"?{query.decode('latin-1')}" if query else ""


async def start(
    request: AnyRequest, thread_id: str, *, creates_thread: bool = False
) -> tuple[runs.RunCreate, runs.Accepted]:
    """Create a run from the request's body. Raises: what `runs.resolve` and `runs.accept` do."""
    context: Context = request.state.context
    check_thread_id(thread_id)
    body = await read(request, runs.RunCreate)
    key = idempotency_key(request)
    if body.on_disconnect not in (None, "cancel", "continue"):
        raise InvalidArgument("Expected one of cancel, continue", ("body", "on_disconnect"), "literal_error")
    created = await runs.resolve(context, thread_id, body, key=key, creates_thread=creates_thread)
    known = await runs.repeated(context, created, key)
    if known is not None:
        return body, known
    accept = runs.accept_alone(context, body, created) if creates_thread else runs.accept(context, created)
    return body, await accept


async def row_of(context: Context, thread_id: str, run_id: str) -> RunRow:
    """The run's row, as new as its thread's control head. Raises: NotFound, Unavailable."""
    check_thread_id(thread_id)
    check_run_id(run_id)
    head = await context.control.head(context.scope, thread_id)
    if head.state is None or head.state.deleted:
        raise NotFound("Thread not found.")
    if not await context.projected(head.stream_seq, PROJECTION_WAIT_S):
        raise Unavailable("the read model lags behind the log; try again")
    row = await run_rows.get(context.database, context.scope.tenant, run_id)
    if row is None or row.thread_id != thread_id:
        raise NotFound("Run not found.")
    return row


async def located(context: Context, thread_id: str, run_id: str) -> tuple[RunRow, RunPlace]:
    """The run and where it lies. Raises: NotFound, Unavailable."""
    row = await row_of(context, thread_id, run_id)
    place = await run_rows.place(context.database, context.scope.tenant, run_id)
    if place is None:
        raise NotFound("Run not found.")
    return row, place


async def place_of(context: Context, thread_id: str, run_id: str) -> RunPlace:
    """Where the run lies. Raises: NotFound, Unavailable."""
    return (await located(context, thread_id, run_id))[1]


@post("/threads/{thread_id:str}/runs", status_code=200)
async def create(request: AnyRequest, thread_id: str) -> Response[bytes]:
    """Create a run and answer at once."""
    context: Context = request.state.context
    _, accepted = await start(request, thread_id)
    headers = {"content-location": places(thread_id, accepted.run_id, "")["content-location"]}
    return as_json(await runs.row_of(context, accepted), headers=headers)


@post("/threads/{thread_id:str}/runs/stream", status_code=200)
async def create_and_stream(request: AnyRequest, thread_id: str) -> ASGIApp:
    """Create a run and stream it. A client that leaves early cancels it, unless it may come back.

    It may with `on_disconnect: continue`, or with `stream_resumable` when it says nothing of `on_disconnect`.
    """
    return await stream_new(request, thread_id)


async def stream_new(request: AnyRequest, thread_id: str, *, creates_thread: bool = False) -> Stream:
    """Create a run and answer with its stream."""
    context: Context = request.state.context
    body, accepted = await start(request, thread_id, creates_thread=creates_thread)
    renderer = V1Renderer(accepted.run_id, runs.modes_of(body), bool(body.stream_subgraphs))
    stays = body.on_disconnect == "continue" or (body.on_disconnect is None and body.stream_resumable)
    on_gone = None if stays else _canceller(context, accepted.thread_id, accepted.run_id)
    pieces = follow(context, accepted.thread_id, last_of(accepted.log_seq), renderer)
    headers = {**SSE_HEADERS, **places(accepted.thread_id, accepted.run_id, "stream")}
    return Stream(pieces, context.heart, headers, on_gone=on_gone)


def _canceller(context: Context, thread_id: str, run_id: str) -> Callable[[], Awaitable[None]]:
    async def cancel() -> None:
        try:
            await runs.cancel(context, thread_id, run_id, "interrupt")
        except NotFound:
            return

    return cancel


async def follow(context: Context, thread_id: str, since: int, renderer: V1Renderer) -> AsyncGenerator[bytes]:
    """The frames of one run from a cursor to its end."""
    async with context.tails.open(context.scope, thread_id, since) as tail:
        async for batch in tail:
            frames: list[bytes] = []
            for record in batch:
                if record.is_erasure:
                    yield b"".join((*frames, renderer.deleted()))
                    return
                if renderer.needs_opening and record.header.run_id == renderer.run_id:
                    await learn_open(context, thread_id, renderer, record.header.open.messages)
                frames.append(renderer.feed(record))
            # Joining one piece gives it back as it is: live records go to all streams without a copy.
            if piece := b"".join(frames):
                yield piece
            if renderer.done:
                return


async def learn_open(context: Context, thread_id: str, renderer: V1Renderer, opened: Any) -> None:
    """Read the message-starts that lie before the point where the stream begins."""
    renderer.needs_opening = False
    for message in opened:
        stream_seq, line = unpack(message.seq)
        record = await context.threads.get(context.scope, thread_id, stream_seq)
        if record is not None and line < len(record.lines):
            renderer.learn(record.lines[line])


async def outcome_of(context: Context, thread_id: str, run_id: str, since: int) -> Outcome:
    """What a run comes to, once it is over."""
    outcome = Outcome(run_id)
    async with context.tails.open(context.scope, thread_id, since) as tail:
        async for batch in tail:
            for record in batch:
                outcome.feed(record)
            if outcome.done:
                break
    return outcome


@post("/threads/{thread_id:str}/runs/wait", status_code=200)
async def create_and_wait(request: AnyRequest, thread_id: str) -> ASGIApp:
    """Create a run and answer with its final values."""
    return await wait_new(request, thread_id)


async def wait_new(request: AnyRequest, thread_id: str, *, creates_thread: bool = False) -> Stream:
    """Create a run and answer with its result."""
    context: Context = request.state.context
    body, accepted = await start(request, thread_id, creates_thread=creates_thread)
    on_gone = None
    if body.on_disconnect == "cancel":
        on_gone = _canceller(context, accepted.thread_id, accepted.run_id)
    where = places(accepted.thread_id, accepted.run_id, "join")
    return waiting(context, accepted.thread_id, accepted.run_id, accepted.log_seq, where, on_gone)


def waiting(
    context: Context, thread_id: str, run_id: str, log_seq: int, headers: dict[str, str],
    on_gone: Callable[[], Awaitable[None]] | None = None, shape: Callable[[Outcome], Any] = Outcome.result,
) -> Stream:  # fmt: skip
    """An answer of white space until the run is over, then its result: proxies see life, JSON parsers do not."""

    async def pieces() -> AsyncGenerator[bytes]:
        yield dumps(shape(await outcome_of(context, thread_id, run_id, last_of(log_seq))))

    json_headers = {"content-type": "application/json", **headers}
    return Stream(pieces(), context.heart, json_headers, keepalive=NEWLINE, opening=b"", on_gone=on_gone, breaks=True)


@get("/threads/{thread_id:str}/runs/{run_id:str}/join")
async def join(request: AnyRequest, thread_id: str, run_id: str) -> ASGIApp:
    """Wait for a run and answer with its final values."""
    context: Context = request.state.context
    await access.thread(context, check_thread_id(thread_id), "read", {"run_id": run_id})
    place = await place_of(context, thread_id, run_id)
    on_gone = _canceller(context, thread_id, run_id) if flag(request, "cancel_on_disconnect") else None
    where = places(thread_id, run_id, "join", query_of(request))
    return waiting(context, thread_id, run_id, place.log_seq, where, on_gone)


def last_event_id(request: AnyRequest) -> tuple[int, int] | None:
    """`(seq, part)`; `(0, 0)` from the start; None without the header. Raises: InvalidArgument."""
    text = request.headers.get("last-event-id")
    if text is None or text == "":
        return None
    if text in FROM_START:
        return 0, 0
    found = EVENT_ID.fullmatch(text)
    if found is None:
        raise InvalidArgument("Expected <seq> or <seq>-<part>", ("header", "last-event-id"), "value_error")
    return int(found[1]), int(found[2] or 0)


@get("/threads/{thread_id:str}/runs/{run_id:str}/stream")
async def join_stream(request: AnyRequest, thread_id: str, run_id: str) -> ASGIApp:
    """Stream a run: from `Last-Event-ID` on, or without it from now on."""
    context: Context = request.state.context
    await access.thread(context, check_thread_id(thread_id), "read", {"run_id": run_id})
    asked = modes_asked(request)
    row, place = await located(context, thread_id, run_id)
    renderer = renderer_of(row, asked, subgraphs=flag(request, "stream_subgraphs") or flag(request, "subgraphs"))
    last = last_event_id(request)
    is_over = place.status not in ("pending", "running")
    headers = {**SSE_HEADERS, **places(thread_id, run_id, "stream", query_of(request))}
    if last is None:
        since = last_of(await context.threads.last_seq(context.scope, thread_id))
        if is_over:
            return Stream(_nothing(), context.heart, headers)
    elif last == (0, 0):
        since = last_of(place.log_seq)
    else:
        gap = await context.tails.check_cursor(context.scope, thread_id, last[0])
        if gap is not None:
            raise CursorLost(last[0], gap)
        # A part of a line is known: begin at the line and leave those parts out.
        since, renderer.known = (last[0] - 1, last) if last[1] else (last[0], None)
    renderer.needs_opening = True
    if is_over and await _ends_before(context, thread_id, run_id, since):
        return Stream(_nothing(), context.heart, headers)
    on_gone = _canceller(context, thread_id, run_id) if flag(request, "cancel_on_disconnect") else None
    return Stream(follow(context, thread_id, since, renderer), context.heart, headers, on_gone=on_gone)


async def _ends_before(context: Context, thread_id: str, run_id: str, since: int) -> bool:
    """Whether the run's terminal record lies at or below the cursor, so that nothing would ever come."""
    stream_seq, line = unpack(since)
    # Below the first record there is nothing to read, and a broker refuses the question.
    record = await context.threads.get(context.scope, thread_id, stream_seq) if stream_seq else None
    if record is None:
        return False
    if record.header.run_id == run_id:
        return (
            f'"synth:{run_id}:lc||'.encode() in record.lines[-1]
            and line >= len(record.lines) - 1
            and (b'lc||running"' not in record.lines[-1])
        )
    following = await context.threads.next(context.scope, thread_id, stream_seq + 1)
    while following is not None:
        if following.header.run_id == run_id:
            return False
        following = await context.threads.next(context.scope, thread_id, following.stream_seq + 1)
    return True


async def _nothing() -> AsyncGenerator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for piece in nothing:
        yield piece


def modes_asked(request: AnyRequest) -> list[str]:
    """The modes of the query, each by itself or as a JSON array. Raises: InvalidArgument."""
    asked: list[str] = []
    for text in request.query_params.getall("stream_mode", []):
        try:
            asked.extend(msgspec.json.decode(text, type=list[str]) if text.startswith("[") else [text])
        except msgspec.DecodeError as error:
            text = "Expected a mode or a JSON array of modes"
            raise InvalidArgument(text, ("query", "stream_mode"), "json_invalid") from error
    return asked


def renderer_of(row: RunRow, asked: list[str], *, subgraphs: bool = False) -> V1Renderer:
    """In the modes that are asked for, else in those that the run was created with.

    The SDKs come back to a stream that broke with `Last-Event-ID` alone.
    """
    created = msgspec.json.decode(row.kwargs)
    modes = runs.modes_of(runs.RunCreate("", stream_mode=asked or created.get("stream_mode")))
    return V1Renderer(row.run_id, modes, subgraphs or bool(created.get("stream_subgraphs")))


@get("/threads/{thread_id:str}/runs")
async def list_runs(request: AnyRequest, thread_id: str) -> Response[bytes]:
    """A thread's runs, newest first."""
    context: Context = request.state.context
    check_thread_id(thread_id)
    limit, offset = (
        integer(request, "limit", 10, 1, SEARCH_LIMIT_MAX),
        integer(request, "offset", 0, 0, SEARCH_OFFSET_MAX),
    )
    status = request.query_params.get("status")
    if status is not None and status not in RUN_STATUSES:
        raise InvalidArgument(f"Expected one of {', '.join(RUN_STATUSES)}", ("query", "status"), "literal_error")
    select = request.query_params.getall("select", [])
    for name in select:
        if name not in RUN_FIELDS:
            raise InvalidArgument(f"Expected one of {', '.join(RUN_FIELDS)}", ("query", "select"), "literal_error")
    await access.thread(context, thread_id, "search")
    head = await context.control.head(context.scope, thread_id)
    rs.existing(head.state)
    await context.projected(head.stream_seq, PROJECTION_WAIT_S)
    rows = await run_rows.of_thread(
        context.database, context.scope.tenant, thread_id, status=status, limit=limit, offset=offset
    )
    return as_json(picked(rows, select))


@get("/threads/{thread_id:str}/runs/{run_id:str}")
async def get_one(request: AnyRequest, thread_id: str, run_id: str) -> Response[bytes]:
    """One run."""
    context: Context = request.state.context
    await access.thread(context, check_thread_id(thread_id), "read", {"run_id": run_id})
    return as_json(await row_of(context, thread_id, run_id))


@delete("/threads/{thread_id:str}/runs/{run_id:str}", status_code=204)
async def delete_one(request: AnyRequest, thread_id: str, run_id: str) -> None:
    """Take a run that is over off the list. What it said and what it wrote stays."""
    context: Context = request.state.context
    await access.thread(context, check_thread_id(thread_id), "delete", {"run_id": run_id})
    await row_of(context, thread_id, run_id)
    await runs.delete(context, thread_id, run_id)


@post("/threads/{thread_id:str}/runs/{run_id:str}/cancel", status_code=200)
async def cancel(request: AnyRequest, thread_id: str, run_id: str) -> ASGIApp:
    """Stop a run. `action` is `interrupt` (keeps what it wrote) or `rollback`; `wait` answers when it has stopped."""
    context: Context = request.state.context
    action = runs.cancel_action(request.query_params.get("action"))
    await access.thread(context, check_thread_id(thread_id), "update", {"run_id": run_id, "action": action})
    place = await place_of(context, thread_id, run_id)
    await runs.cancel(context, thread_id, run_id, action)
    if not flag(request, "wait"):
        return Empty(202)
    return waiting(context, thread_id, run_id, place.log_seq, places(thread_id, run_id, "join"))


ROUTES = [
    create, create_and_stream, create_and_wait, join, join_stream, list_runs, get_one, delete_one, cancel,
]  # fmt: skip
