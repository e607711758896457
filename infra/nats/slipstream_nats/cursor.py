"""Where a thread log begins and ends, as its stream's leader sees it, and whether a cursor still lies in it."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec
from nats.aio.msg import Msg

from slipstream_nats.inbox import Answer, ApiError, Inbox, Message
from slipstream_schemas.errors import Conflict
from slipstream_schemas.seq import last_of, pack, unpack
from slipstream_schemas.subjects import Scope, thread_log, threads_stream

NO_MESSAGE_FOUND: Final = 10037


class Gap(msgspec.Struct, frozen=True):
    """A cursor from which the log cannot be continued. Both seqs are 0 when the log is empty."""

    earliest_seq: int
    """The first line that the log still holds."""
    last_seq: int
    """The cursor behind the last record of the log."""


class CursorLost(Conflict):
    """The log does not continue from the cursor; `gap` says what it holds."""

    def __init__(self, since_seq: int, gap: Gap) -> None:
        super().__init__(f"the log does not continue from {since_seq}; it begins at {gap.earliest_seq}")
        self.gap = gap


class _Stored(msgspec.Struct):
    seq: int = 0
    subject: str = ""


class _Found(Answer):
    message: _Stored = msgspec.field(default_factory=_Stored)


async def _stored_seq(inbox: Inbox, stream: str, query: dict[str, Any]) -> tuple[int, str]:
    try:
        found = await inbox.ask(f"STREAM.MSG.GET.{stream}", query, _Found)
    except ApiError as refusal:
        if refusal.err_code == NO_MESSAGE_FOUND:
            return 0, ""
        raise
    return found.message.seq, found.message.subject


async def last_stream_seq(inbox: Inbox, scope: Scope, thread_id: str) -> int:
    """The stream_seq of the last record of a thread, from the leader; 0 for none. Raises: Unavailable, ApiError."""
    query = {"last_by_subj": thread_log(scope, thread_id), "no_hdr": True}
    return (await _stored_seq(inbox, threads_stream(scope.region), query))[0]


async def check_cursor(inbox: Inbox, scope: Scope, thread_id: str, since_seq: int) -> Gap | None:
    """None when the log continues from a cursor: it is 0, or its record exists and is the thread's.

    Raises: Unavailable, ApiError.
    """
    if since_seq <= 0:
        return None
    stream, subject = threads_stream(scope.region), thread_log(scope, thread_id)
    stream_seq, _ = unpack(since_seq)
    # Below the first record there is nothing to read, and a broker refuses the question.
    if stream_seq and await _stored_seq(inbox, stream, {"seq": stream_seq, "no_hdr": True}) == (stream_seq, subject):
        return None
    first, _ = await _stored_seq(inbox, stream, {"seq": 1, "next_by_subj": subject, "no_hdr": True})
    if not first:
        return Gap(0, 0)
    return Gap(pack(first, 0), last_of(await last_stream_seq(inbox, scope, thread_id)))


class Page(msgspec.Struct):
    """Consecutive messages of a subject. `more` counts those behind them that the answering replica knows."""

    messages: list[Message]
    more: int


async def read_page(
    inbox: Inbox, stream: str, subject: str, from_stream_seq: int, records: int, size_bytes: int
) -> Page:
    """Direct Get: some messages from a seq on, without a consumer, from a replica that may lag. Raises: Unavailable."""
    page = Page([], 0)
    query = {"seq": from_stream_seq, "next_by_subj": subject, "batch": records, "max_bytes": size_bytes}
    await inbox.collect(f"DIRECT.GET.{stream}", query, _collector(page))
    return page


def _collector(page: Page) -> Callable[[Msg], bool]:
    def take(msg: Msg) -> bool:
        headers = msg.headers or {}
        # Stored headers could carry a Status of their own; an answer with a sequence is always a message.
        if "Nats-Sequence" not in headers:
            page.more = int(headers.get("Nats-Num-Pending", "0"))
            return True
        stamp_ms = int(datetime.fromisoformat(headers["Nats-Time-Stamp"]).timestamp() * 1000)
        page.messages.append(
            Message(int(headers["Nats-Sequence"]), headers["Nats-Subject"], headers, msg.data, stamp_ms)
        )
        return False

    return take
