"""What is made of a record once, for all the streams that ask for the same."""

from collections.abc import Hashable
from typing import Any, Final

import msgspec

from slipstream_nats.tail import TailRecord

RENDERINGS_MAX: Final = 4
"""What a record keeps: every SDK opens two streams, and some clients speak the other protocol."""
RENDERED_RATIO_MAX: Final = 4
"""All that a record keeps is no larger than so many times the record, whatever a mode makes of it."""


class Rendered(msgspec.Struct, frozen=True):
    """The frames of a record, joined, and how many they are."""

    frames: bytes
    count: int


def kept(record: TailRecord, asked: Hashable) -> Any:
    """What was kept of this record under `asked`, None for nothing."""
    return None if record.rendered is None else record.rendered.get(asked)


def keep(record: TailRecord, asked: Hashable, rendered: Rendered) -> None:
    """Keep what was made of all lines of a record, if there is room.

    `asked` names all that it depends on besides the record, and no other renderer uses the same.
    """
    assert record.first_line == 0, "a part of a record is for one reader"
    if record.rendered is None:
        record.rendered = {}
    size = len(rendered.frames) + sum(len(each.frames) for each in record.rendered.values())
    if len(record.rendered) < RENDERINGS_MAX and size <= RENDERED_RATIO_MAX * len(record.body):
        record.rendered[asked] = rendered
