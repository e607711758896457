"""Following a thread's events (protocol v2): what a stream carries, where it begins, and what it says besides events.

Both transports, SSE and WebSocket, are built on this; they differ in how they frame it.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, NamedTuple

import msgspec
from litestar.connection import ASGIConnection

from slipstream_api.access import Watch
from slipstream_api.context import Context
from slipstream_api.watchers import WATCHER, Reader
from slipstream_nats.cursor import CursorLost
from slipstream_nats.tail import TailRecord
from slipstream_schemas import lines
from slipstream_schemas.channels import ChannelFilter, parse_channels
from slipstream_schemas.commands import EventStreamRequest
from slipstream_schemas.errors import InvalidArgument
from slipstream_schemas.record import RecordHeader
from slipstream_schemas.seq import SEQ_MAX, last_of, pack

PACED_CLIENTS: Final = ("langgraph-sdk-py", "python-httpx")
PACED_SOCKETS: Final = "websockets/"
"""User agents of the stock Python SDK, whose queue overflows on bursts."""
_ROOT_LIFECYCLE: Final = lines.head(lines.EVENT, "lifecycle", ())
_RESPONDED: Final = b'{"type":"event","method":"input.responded",'


class CaughtUp(msgspec.Struct, frozen=True, tag_field="type", tag="caught_up"):
    """Everything has been sent that the log held when the stream was opened. `seq` is a cursor behind it."""

    seq: int


class RunEnded(msgspec.Struct, frozen=True, tag_field="type", tag="run_ended"):
    """A run is over, whatever channels the stream carries. `seq` is that of its terminal event."""

    run_id: str
    status: str
    seq: int


class Missing(msgspec.Struct, frozen=True, tag_field="type", tag="gap"):
    """Records behind `since` are gone: retention overtook the stream, which goes on at `earliest_seq`."""

    since: int
    earliest_seq: int


class _Answers(msgspec.Struct, frozen=True):
    interrupt_ids: list[str]


class _AnsweredParams(msgspec.Struct, frozen=True):
    data: _Answers
    timestamp: int
    namespace: tuple[str, ...] = ()


class Answered(msgspec.Struct, frozen=True, tag_field="type", tag="event"):
    """A run begins that answers these interrupts: the stock hooks take them off a page that did not answer.

    In the form of an event without a `seq`, said while a stream is live and never again: a hook that is told of it in a
    replay would hide what was asked anew under the same id (ADR 41). The `event_id` is for its two streams.
    """

    params: _AnsweredParams
    event_id: str
    method: str = "input.answered"


Note = CaughtUp | RunEnded | Missing | Answered
Item = TailRecord | Note
Batch = list[Item]


def check_since(since: int, loc: tuple[str | int, ...] = ("body", "since")) -> int:
    """Return the cursor. Raises: InvalidArgument."""
    if not 0 <= since <= SEQ_MAX:
        raise InvalidArgument("Input should be greater than or equal to 0 and below 2^53", loc, "greater_than_equal")
    return since


def filter_of(body: EventStreamRequest) -> ChannelFilter:
    """What a stream carries. Raises: UnsupportedChannels, InvalidArgument, Rejected."""
    depth = None if body.depth is msgspec.UNSET else body.depth
    if isinstance(depth, int) and depth < 0:
        text = "Input should be greater than or equal to 0"
        raise InvalidArgument(text, ("body", "depth"), "greater_than_equal")
    namespaces = None if body.namespaces is None else [tuple(each) for each in body.namespaces]
    return ChannelFilter(parse_channels(body.channels), namespaces, depth if isinstance(depth, int) else None)


class Client(NamedTuple):
    """Who reads. Streams with the same address and program belong together."""

    address: str
    user_agent: str


def client_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Client:
    """The client behind a request or a socket."""
    return Client(connection.client.host if connection.client else "", connection.headers.get("user-agent", ""))


def pace_of(context: Context, client: Client) -> int:
    """How many events a second this client stands, 0 for any number."""
    is_paced = client.user_agent.startswith(PACED_CLIENTS) or PACED_SOCKETS in client.user_agent
    return context.settings.sdk_events_per_s if is_paced else 0


async def begin(context: Context, thread_id: str, since: int | None, channels: frozenset[str], watch: Watch) -> int:
    """The cursor where a stream starts. Raises: CursorLost, Unavailable."""
    if not watch.is_open:
        return since or 0
    if since is not None:
        gap = await context.tails.check_cursor(context.scope, thread_id, since)
        if gap is not None:
            raise CursorLost(since, gap)
        return since
    return await _begin_watching(context, thread_id) if channels <= WATCHER else 0


async def _begin_watching(context: Context, thread_id: str) -> int:
    """Where a watcher starts. It would take the end of an old run for that of its own. Raises: Unavailable."""
    # The end is read before the state: a run that begins and ends between the two lies behind it.
    end = await context.threads.last_seq(context.scope, thread_id)
    state = (await context.control.head(context.scope, thread_id)).state
    # And last the note, in one step with joining: a run that was accepted meanwhile has left one.
    unwatched = context.unwatched.take(context.own_key(thread_id))
    if unwatched is not None:
        return last_of(unwatched)
    if state is None or state.deleted:
        return 0
    if state.running is not None:
        # What the runs before it wrote lies below the fence, also where it was created while they ran.
        return last_of(min(state.running.fence, end))
    if state.interrupts and not state.pending:
        # Who opens a thread that waits for an answer learns here, and nowhere else, what was asked.
        return last_of(min(state.asked_behind, end))
    return last_of(end)


async def follow(
    context: Context, thread_id: str, since: int, watch: Watch, reader: Reader | None = None
) -> AsyncGenerator[Batch]:
    """The records behind a cursor, and what is to be said between them, until the thread is deleted.

    Nothing at all while the thread is not the caller's.

    Raises: CursorLost, Corrupt, Unavailable.
    """
    before: RecordHeader | None = None
    has_ended = is_live = False
    position = since
    async with context.tails.open(context.scope, thread_id, since) as tail:
        async for batch in tail:
            items: list[Item] = []
            asks_at = 0
            is_over = False
            for record in batch:
                if record.is_erasure:
                    # Whoever was not told of the thread is not told of its end.
                    is_over = watch.is_open
                    continue
                if record.header.is_ahead or not await watch.lets(record.header.run_id, record.stream_seq):
                    continue
                if before is not None and _lacks_predecessor(before, record.header, has_ended=has_ended):
                    items.append(Missing(position, pack(record.stream_seq, 0)))
                position = last_of(record.stream_seq)
                if record.header.attempt:
                    before, has_ended = record.header, False
                items.append(record)
                if is_live and (answered := _answered(record)) is not None:
                    items.append(answered)
                if (ended := _end_of_run(record)) is not None:
                    has_ended = has_ended or (before is not None and before.run_id == ended.run_id)
                    items.append(ended)
                if reader is not None and reader.is_watcher and _asks(record, ended):
                    asks_at = position
            if is_over:
                if items:
                    yield items
                return
            # An empty batch says that the stream has caught up; one of which nothing is shown says nothing.
            if not items and (batch or not watch.is_open):
                continue
            is_live = is_live or not batch
            if reader is not None and asks_at:
                await reader.may_ask(asks_at)
            yield items or [CaughtUp(max(position, last_of(tail.position)))]
            if reader is not None:
                reader.has_sent(position)


def _lacks_predecessor(before: RecordHeader, header: RecordHeader, *, has_ended: bool) -> bool:
    """Attempts number their records from 1 and runs have an end, so a hole shows. Records of no attempt do not tell."""
    if header.attempt == 0:
        return False
    if before.run_id != header.run_id and not has_ended:
        return True
    is_same = (before.run_id, before.attempt) == (header.run_id, header.attempt)
    return header.ordinal != (before.ordinal + 1 if is_same else 1)


def _end_of_run(record: TailRecord) -> RunEnded | None:
    """The end of a run that a record holds: its last line, in a record that no attempt wrote."""
    if record.header.attempt or not record.lines[-1].startswith(_ROOT_LIFECYCLE):
        return None
    last = lines.decode_line(record.lines[-1])
    return RunEnded(record.header.run_id, last.x["status"], pack(record.stream_seq, len(record.lines) - 1))


def _answered(record: TailRecord) -> Answered | None:
    """What a run answers: it says so behind its `running`."""
    if not record.lines[0].startswith((_ROOT_LIFECYCLE, _RESPONDED)):
        return None
    said = [lines.decode_line(line) for line in record.lines if line.startswith(_RESPONDED)]
    ids = [each.data["interrupt_id"] for each in said]
    if not said:
        return None
    return Answered(_AnsweredParams(_Answers(ids), said[0].timestamp_ms), f"{record.header.run_id}:answered")


def _asks(record: TailRecord, ended: RunEnded | None) -> bool:
    """Whether a record ends the iterators of a stock SDK that sees it on its narrow stream."""
    if ended is not None and ended.status != "success":
        return True
    return any(lines.decode_prefix(lines.prefix(line)).method == "input.requested" for line in record.lines)


async def until_caught_up(context: Context, thread_id: str, since: int, watch: Watch) -> AsyncGenerator[TailRecord]:
    """What the log holds behind a cursor now, and no more. Raises: CursorLost, Corrupt."""
    async with aclosing(follow(context, thread_id, since, watch)) as batches:
        async for batch in batches:
            for item in batch:
                if isinstance(item, CaughtUp):
                    return
                if isinstance(item, TailRecord):
                    yield item
