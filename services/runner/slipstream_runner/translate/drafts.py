"""Lines without their event ids, which are known only when the record is put together."""

from slipstream_schemas import lines
from slipstream_schemas.codec import dumps

Draft = tuple[bytes, bytes | None]
"""A line before and behind the value of `event_id`; None behind: the line is whole and has an id of its own."""

PLAIN_END = b"}"


def draft(
    method: str,
    namespace: tuple[str, ...],
    data: bytes,
    timestamp_ms: int,
    *,
    node: str | None = None,
    x: bytes | None = None,
    v1_only: bool = False,
) -> Draft:
    """A draft of one line; `data` and `x` are JSON already."""
    head = lines.head(lines.V1_ONLY if v1_only else lines.EVENT, method, namespace)
    end = PLAIN_END if x is None else b'\t,"x":%b}' % x
    return lines.body(head, data, timestamp_ms, node), end


def encode_x(**fields: object) -> bytes | None:
    """The `x` of a line from the fields that are not None."""
    kept = {name: value for name, value in fields.items() if value is not None}
    return dumps(kept) if kept else None


def assemble(drafts: list[Draft], run_id: str, attempt: int, ordinal: int) -> bytes:
    """The body of a record: each line with the event id `<run>:<attempt>:<ordinal>:<line>`."""
    stem = f'"{run_id}:{attempt}:{ordinal}:'.encode()
    return b"\n".join(
        [
            before if after is None else b'%b%b%d"%b' % (before, stem, n, after)
            for n, (before, after) in enumerate(drafts)
        ]
    )
