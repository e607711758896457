"""Frames that a record keeps for its next readers are those that each reader would have rendered."""

import msgspec

from slipstream_api.render import v2
from slipstream_api.render.shared import RENDERED_RATIO_MAX, RENDERINGS_MAX, Rendered, keep, kept
from slipstream_nats.tail import TailRecord
from slipstream_schemas.channels import ChannelFilter
from slipstream_schemas.lines import encode_line
from slipstream_schemas.record import RecordHeader

CHANNELS = ("messages", "updates", "custom", "tasks")
BODY = b"\n".join(encode_line(channel, (), {"payload": n}, 1, f"r:1:1:{n}") for n, channel in enumerate(CHANNELS))
SEQ = 7 << 8


def record() -> TailRecord:
    """A record that nobody has read."""
    return TailRecord(7, RecordHeader("r", 1, 1), BODY)


def test_readers_with_different_filters_share_a_record() -> None:
    shared = record()
    filters = [frozenset({channel}) for channel in CHANNELS] + [frozenset(CHANNELS)]
    assert len(filters) > RENDERINGS_MAX
    for _ in range(2):
        for channels in filters:
            chosen = ChannelFilter(channels)
            assert v2.frames(shared, chosen) == v2.frames(record(), chosen)
    assert len(shared.rendered or ()) == RENDERINGS_MAX


def test_a_reader_that_knows_a_part_gets_the_rest() -> None:
    shared, chosen = record(), ChannelFilter(frozenset(CHANNELS))
    whole = v2.frames(shared, chosen)
    rest = msgspec.structs.replace(shared, first_line=1)
    got = v2.frames(rest, chosen)
    assert (whole.count, got.count) == (len(CHANNELS), len(CHANNELS) - 1)
    assert whole.frames.endswith(got.frames)
    assert got.frames.startswith(b"id: %d\n" % (SEQ + 1))
    assert v2.frames(shared, chosen) == whole


def test_a_record_keeps_no_more_than_its_bound() -> None:
    shared = record()
    most = RENDERED_RATIO_MAX * len(BODY)
    keep(shared, "larger", Rendered(bytes(most + 1), 1))
    keep(shared, "all", Rendered(bytes(most), 1))
    keep(shared, "one more", Rendered(b"1", 1))
    assert [kept(shared, asked) is not None for asked in ("larger", "all", "one more")] == [False, True, False]
