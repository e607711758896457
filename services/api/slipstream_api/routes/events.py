"""Protocol v2: the event stream of a thread, and its commands."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from litestar import Request, Response, post
from litestar.types import ASGIApp

from slipstream_api import runs
from slipstream_api.bodies import convert, decode, idempotency_key, read
from slipstream_api.context import Context
from slipstream_api.problems import as_json
from slipstream_api.render import v2
from slipstream_api.sse import Stream
from slipstream_api.thread_rows import row_of
from slipstream_nats.cursor import CursorLost
from slipstream_schemas import errors
from slipstream_schemas import run_state as rs
from slipstream_schemas.channels import ChannelFilter, parse_channels
from slipstream_schemas.commands import CommandEnvelope, EventStreamRequest, InputRespondParams, RunStartParams
from slipstream_schemas.ids import check_thread_id
from slipstream_schemas.limits import BODY_BYTES_MAX, SSE_SLICE_EVENTS_MAX
from slipstream_schemas.seq import SEQ_MAX, last_of

AnyRequest = Request[Any, Any, Any]
SSE_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}
PACED_CLIENTS = ("langgraph-sdk-py", "python-httpx")
"""User agents of the stock Python SDK, whose queue overflows on bursts."""
WATCHER = frozenset({"lifecycle", "input"})


def _cursor(request: AnyRequest, body: EventStreamRequest) -> int | None:
    """`since`, or `Last-Event-ID`: the same number. Raises: InvalidArgument."""
    since = body.since
    if since is msgspec.UNSET or since is None:
        text = request.headers.get("last-event-id")
        if not text:
            return None
        if not text.isascii() or not text.isdigit():
            raise errors.InvalidArgument("Expected a number", ("header", "last-event-id"), "int_parsing")
        since = int(text)
    if not 0 <= since <= SEQ_MAX:
        raise errors.InvalidArgument("Input should be greater than or equal to 0 and below 2^53",
                                     ("body", "since"), "greater_than_equal")  # fmt: skip
    return since


def _filter(body: EventStreamRequest) -> ChannelFilter:
    depth = None if body.depth is msgspec.UNSET else body.depth
    if isinstance(depth, int) and depth < 0:
        text = "Input should be greater than or equal to 0"
        raise errors.InvalidArgument(text, ("body", "depth"), "greater_than_equal")
    namespaces = None if body.namespaces is None else [tuple(each) for each in body.namespaces]
    return ChannelFilter(parse_channels(body.channels), namespaces, depth if isinstance(depth, int) else None)


async def _begin(context: Context, thread_id: str, since: int | None, channels: frozenset[str]) -> int:
    """Where the stream starts. Raises: CursorLost, Unavailable."""
    if since is not None:
        gap = await context.tails.check_cursor(context.scope, thread_id, since)
        if gap is not None:
            raise CursorLost(since, gap)
        return since
    if not channels <= WATCHER or context.fresh.take(thread_id):
        return 0
    # A client that follows only the run's life would take the end of an old run for that of its own.
    state = (await context.control.head(context.scope, thread_id)).state
    if state is None or state.deleted:
        return 0
    if state.running is not None:
        return last_of(state.running.log_seq)
    if state.pending:
        return last_of(state.pending[0].log_seq)
    return last_of(await context.threads.last_seq(context.scope, thread_id))


@post(["/threads/{thread_id:str}/stream/events"], status_code=200)
async def stream_events(request: AnyRequest, thread_id: str) -> ASGIApp:
    """Open a stream. It may be opened before the thread exists, spans runs, and never ends by itself."""
    context: Context = request.app.state.context
    check_thread_id(thread_id)
    body = await read(request, EventStreamRequest)
    chosen = _filter(body)
    since = await _begin(context, thread_id, _cursor(request, body), chosen.channels)
    agent = request.headers.get("user-agent", "")
    pace = context.settings.sdk_events_per_s if agent.startswith(PACED_CLIENTS) else 0
    return Stream(_pieces(context, thread_id, since, chosen, pace), context.heart, SSE_HEADERS)


async def _pieces(
    context: Context, thread_id: str, since: int, chosen: ChannelFilter, pace: int
) -> AsyncGenerator[bytes]:
    async with context.tails.open(context.scope, thread_id, since) as tail:
        async for batch in tail:
            frames: list[bytes] = []
            for record in batch:
                frames.extend(v2.frames(record, chosen))
                while len(frames) >= SSE_SLICE_EVENTS_MAX:
                    yield b"".join(frames[:SSE_SLICE_EVENTS_MAX])
                    del frames[:SSE_SLICE_EVENTS_MAX]
                    # uvicorn's send does not yield when its buffer has room.
                    await asyncio.sleep(SSE_SLICE_EVENTS_MAX / pace if pace else 0)
            if frames:
                yield b"".join(frames)
                await asyncio.sleep(len(frames) / pace if pace else 0)


# Commands


def _success(command_id: int, result: dict[str, Any], accepted: runs.Accepted) -> Response[bytes]:
    meta = {"applied_through_seq": last_of(accepted.log_seq)}
    return as_json({"type": "success", "id": command_id, "result": result, "meta": meta})


def _error(command_id: int | None, code: str, message: str, status: int = 200) -> Response[bytes]:
    return as_json({"type": "error", "id": command_id, "error": code, "message": message}, status)


def _code(error: errors.SlipstreamError) -> str:
    match error:
        case errors.NoSuchInterrupt():
            return "no_such_interrupt"
        case errors.InvalidArgument() | errors.TooLarge():
            return "invalid_argument"
        case errors.NotFound():
            return "no_such_run"
        case errors.Rejected():
            return "invalid_argument"
        case _:
            return "unknown_error"


async def _envelope(request: AnyRequest) -> CommandEnvelope | Response[bytes]:
    raw = await request.body()
    if len(raw) > BODY_BYTES_MAX:
        raise errors.TooLarge(f"the body is larger than {BODY_BYTES_MAX} bytes")
    plain: Any = None
    try:
        plain = decode(raw)
        return convert(plain, CommandEnvelope)
    except errors.InvalidArgument as error:
        known = plain.get("id") if isinstance(plain, dict) else None  # pyright: ignore[reportUnknownMemberType]
        command_id = known if isinstance(known, int) and not isinstance(known, bool) else None
        where = ".".join(str(part) for part in error.loc[1:])
        return _error(command_id, "invalid_argument", f"{where}: {error.message}" if where else error.message, 400)


@post("/threads/{thread_id:str}/commands", status_code=200)
async def commands(request: AnyRequest, thread_id: str) -> Response[bytes]:
    """Run a command. Errors of well-formed commands are envelopes with status 200, as clients expect."""
    context: Context = request.app.state.context
    check_thread_id(thread_id)
    envelope = await _envelope(request)
    if not isinstance(envelope, CommandEnvelope):
        return envelope
    key = idempotency_key(request)
    if envelope.id < 0:
        return _error(None, "invalid_argument", "id: Input should be greater than or equal to 0", 400)
    try:
        if envelope.method == "run.start":
            accepted = await _run_start(context, thread_id, envelope.params, key)
        elif envelope.method == "input.respond":
            accepted = await _input_respond(context, thread_id, envelope.params, key)
        else:
            return _error(envelope.id, "unknown_command", f"Unknown command: {envelope.method[:80]}")
    except errors.Unavailable:
        raise
    except errors.SlipstreamError as error:
        where = ".".join(str(p) for p in error.loc[1:]) + ": " if isinstance(error, errors.InvalidArgument) else ""
        prefix = "409: " if isinstance(error, errors.Conflict) else ""
        return _error(envelope.id, _code(error), f"{prefix}{where}{error.message}")
    return _success(envelope.id, {"run_id": accepted.run_id}, accepted)


async def _run_start(context: Context, thread_id: str, params: dict[str, Any], key: str | None) -> runs.Accepted:
    start = convert(params, RunStartParams)
    body = runs.RunCreate(
        start.assistant_id, input=start.input, config=start.config, metadata=start.metadata,
        multitask_strategy=start.multitask_strategy, interrupt_before=start.interrupt_before,
        interrupt_after=start.interrupt_after,
    )  # fmt: skip
    created = await runs.resolve(context, thread_id, body, key=key, creates_thread=True)
    known = await runs.repeated(context, created, key)
    if known is not None:
        return known
    accepted = await runs.accept(context, created, resumes=True)
    if accepted.created_thread:
        context.fresh.note(thread_id)
    return accepted


async def _input_respond(context: Context, thread_id: str, params: dict[str, Any], key: str | None) -> runs.Accepted:
    respond = convert(params, InputRespondParams)
    if respond.responses is not None:
        answers = [(e.interrupt_id, tuple(e.namespace), e.response) for e in respond.responses]
    elif respond.interrupt_id is not None and respond.response is not msgspec.UNSET:
        answers = [(respond.interrupt_id, tuple(respond.namespace), respond.response)]
    else:
        text = "interrupt_id and response, or responses, are required"
        raise errors.InvalidArgument(text, ("body", "params"), "missing")
    if not answers or len({answer[0] for answer in answers}) != len(answers):
        raise errors.InvalidArgument("responses must name each interrupt once", ("body", "params", "responses"))
    command: dict[str, Any] = {"resume": {interrupt_id: value for interrupt_id, _, value in answers}}
    command.update({k: v for k, v in (("update", respond.update), ("goto", respond.goto)) if v is not None})
    graph_id = await _graph_of(context, thread_id)
    body = runs.RunCreate(graph_id, command=command, config=respond.config, metadata=respond.metadata)
    created = await runs.resolve(context, thread_id, body, key=key)
    known = await runs.repeated(context, created, key)
    if known is not None:
        return known
    expected = tuple(rs.OpenInterrupt(interrupt_id, namespace) for interrupt_id, namespace, _ in answers)
    return await runs.accept(context, created, expected)


async def _graph_of(context: Context, thread_id: str) -> str:
    """The assistant of the thread's last run. Raises: NoSuchInterrupt, Unavailable."""
    try:
        row = await row_of(context, thread_id)
    except errors.NotFound as error:
        raise errors.NoSuchInterrupt("The thread does not exist.") from error
    known = msgspec.json.decode(row.metadata)
    found: str | None = known.get("assistant_id") or known.get("graph_id")
    if found is None:
        raise errors.NoSuchInterrupt("The thread has no run that could wait for an answer.")
    return found


ROUTES = [stream_events, commands]
