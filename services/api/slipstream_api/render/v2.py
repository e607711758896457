"""Protocol v2: lines filtered by their prefix, with `seq` put in. No payload is decoded."""

import msgspec

from slipstream_api.following import Answered, CaughtUp, Missing, Note, RunEnded
from slipstream_api.render.shared import Rendered, keep, kept
from slipstream_nats.tail import TailRecord
from slipstream_schemas import lines
from slipstream_schemas.channels import ChannelFilter
from slipstream_schemas.seq import pack


def frame(seq: int, line: bytes) -> bytes:
    """One SSE frame; `id` is what a client sends back as `since`."""
    method = lines.decode_prefix(lines.prefix(line)).method.encode()
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (seq, method, lines.splice_seq(line, seq))


def frames(record: TailRecord, chosen: ChannelFilter) -> Rendered:
    """The frames of a record that a stream carries."""
    if record.first_line:
        return _render(record, chosen)
    known: Rendered | None = kept(record, chosen.key)
    if known is None:
        known = _render(record, chosen)
        keep(record, chosen.key, known)
    return known


def _render(record: TailRecord, chosen: ChannelFilter) -> Rendered:
    first, base = record.first_line, pack(record.stream_seq, 0)
    found = [
        frame(base + number, line)
        for number, line in enumerate(record.lines)
        if number >= first and chosen.matches(line)
    ]
    return Rendered(b"".join(found), len(found))


def note(found: Note, chosen: ChannelFilter) -> Rendered:
    """What is said between events. Never with an `id`: a frame that has only an `id` makes the stock SDKs skip."""
    match found:
        case Answered():
            if "input" not in chosen.channels:
                return Rendered(b"", 0)
            text = b"event: %b\ndata: %b\n\n" % (found.method.encode(), msgspec.json.encode(found))
        case CaughtUp(seq):
            text = b": caught-up %d\n\n" % seq
        case RunEnded(run_id, status, seq):
            text = b": run-ended %b %b %d\n\n" % (run_id.encode(), status.encode(), seq)
        case Missing():
            text = b"event: gap\ndata: %b\n\n" % msgspec.json.encode(found)
    return Rendered(text, 1)
