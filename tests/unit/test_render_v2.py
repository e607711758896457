"""Frames that a record keeps for its next readers are those that each reader would have rendered."""

import msgspec

from slipstream_api.render import v2
from slipstream_nats.tail import TailRecord
from slipstream_schemas.channels import ChannelFilter
from slipstream_schemas.lines import encode_line
from slipstream_schemas.record import RecordHeader

CHANNELS = ("messages", "updates", "custom")
BODY = b"\n".join(encode_line(channel, (), {"payload": n}, 1, f"r:1:1:{n}") for n, channel in enumerate(CHANNELS))
SEQ = 7 << 8


def record() -> TailRecord:
    """A record that nobody has read."""
    return TailRecord(7, RecordHeader("r", 1, 1), BODY)


def test_readers_with_different_filters_share_a_record() -> None:
    shared = record()
    filters = [frozenset({channel}) for channel in CHANNELS] + [frozenset(CHANNELS)]
    assert len(filters) > v2.RENDERINGS_MAX
    for _ in range(2):
        for channels in filters:
            chosen = ChannelFilter(channels)
            assert v2.frames(shared, chosen) == v2.frames(record(), chosen)
    assert len(shared.rendered or ()) == v2.RENDERINGS_MAX


def test_a_reader_that_knows_a_part_gets_the_rest() -> None:
    shared, chosen = record(), ChannelFilter(frozenset(CHANNELS))
    whole = v2.frames(shared, chosen)
    rest = msgspec.structs.replace(shared, first_line=1)
    assert v2.frames(rest, chosen) == whole[1:]
    assert v2.frames(shared, chosen) == whole
    assert whole[1].startswith(b"id: %d\n" % (SEQ + 1))
