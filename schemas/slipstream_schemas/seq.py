"""The cursor of the wire: `stream_seq << 8 | line`.

It is monotonic in a thread, sparse, and the same on every connection, instance and mirror. Lines count from 0,
so a stream position as a cursor ("everything through this record") is `last_of(stream_seq)`.
"""

from typing import Final

from slipstream_schemas.limits import RECORD_LINES_MAX

LINE_BITS: Final = 8
LINE_MASK: Final = (1 << LINE_BITS) - 1
SEQ_MAX: Final = (1 << 53) - 1
_DIGITS_MAX: Final = len(str(SEQ_MAX))

assert RECORD_LINES_MAX - 1 <= LINE_MASK


def pack(stream_seq: int, line: int) -> int:
    """The wire seq of one line of a record."""
    return stream_seq << LINE_BITS | line


def unpack(seq: int) -> tuple[int, int]:
    """`(stream_seq, line)` of a wire seq."""
    return seq >> LINE_BITS, seq & LINE_MASK


def parse(text: str) -> int | None:
    """The cursor that a text names, None for a text that is no number or one beyond all cursors."""
    # Python refuses numbers of thousands of digits by an exception of its own.
    if not text.isascii() or not text.isdigit() or len(text.lstrip("0")) > _DIGITS_MAX:
        return None
    found = int(text[-_DIGITS_MAX:])
    return found if found <= SEQ_MAX else None


def last_of(stream_seq: int) -> int:
    """The cursor behind all lines of a record; 0 for an empty log."""
    return pack(stream_seq, LINE_MASK) if stream_seq else 0
