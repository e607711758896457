"""Protocol v2: lines filtered by their prefix, with `seq` put in. No payload is decoded."""

from typing import Final

import msgspec

from slipstream_api.following import CaughtUp, Missing, Note, RunEnded
from slipstream_nats.tail import TailRecord
from slipstream_schemas import lines
from slipstream_schemas.channels import ChannelFilter
from slipstream_schemas.seq import pack

RENDERINGS_MAX: Final = 2
"""What a record keeps for its next readers, each as large as the record; every SDK opens two streams."""


def frame(seq: int, line: bytes) -> bytes:
    """One SSE frame; `id` is what a client sends back as `since`."""
    method = lines.decode_prefix(lines.prefix(line)).method.encode()
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (seq, method, lines.splice_seq(line, seq))


def frames(record: TailRecord, chosen: ChannelFilter) -> list[bytes]:
    """The frames of a record that a stream carries."""
    if record.first_line:
        return _render(record, chosen)
    if record.rendered is None:
        record.rendered = {}
    known = record.rendered.get(chosen.key)
    if known is None:
        known = _render(record, chosen)
        if len(record.rendered) < RENDERINGS_MAX:
            record.rendered[chosen.key] = known
    return known


def _render(record: TailRecord, chosen: ChannelFilter) -> list[bytes]:
    first, base = record.first_line, pack(record.stream_seq, 0)
    return [
        frame(base + number, line)
        for number, line in enumerate(record.lines)
        if number >= first and chosen.matches(line)
    ]


def note(found: Note) -> bytes:
    """What is said between events. Never with an `id`: a frame that has only an `id` makes the stock SDKs skip."""
    match found:
        case CaughtUp(seq):
            return b": caught-up %d\n\n" % seq
        case RunEnded(run_id, status, seq):
            return b": run-ended %b %b %d\n\n" % (run_id.encode(), status.encode(), seq)
        case Missing():
            return b"event: gap\ndata: %b\n\n" % msgspec.json.encode(found)
