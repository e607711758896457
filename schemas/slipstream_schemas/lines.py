r"""Lines: the events of a record, as bytes that need no decoding to be filtered and sent.

A line is one compact JSON object with its keys in a fixed order:

    {"type":"event","method":M,"params":{"namespace":[…],"data":D,"timestamp":T,"node":N},"event_id":E}
    {"type":"event", … ,"event_id":E\t,"x":X}

- The bytes before the first `],"data":` are the *prefix*: they decide channel and namespace. A string inside the
  namespace cannot contain that sequence, because its quotes are escaped.
- `x` is what protocol v1 needs and v2 does not carry. The raw TAB before it is JSON white space for every parser, and
  cannot stand anywhere else in compact JSON (inside strings it is escaped), so `line.partition(b"\t")` cuts `x` off.
- A line that only v1 needs has the type `x` in place of `event`.
"""

from functools import lru_cache
from typing import Any, Final

import msgspec

from slipstream_schemas.codec import dumps
from slipstream_schemas.errors import Corrupt

EVENT: Final = "event"
V1_ONLY: Final = "x"
_HEAD: Final = b'{"type":"event",'
_HEAD_LEN: Final = len(_HEAD)
_PREFIX_END: Final = b'],"data":'


class Prefix(msgspec.Struct, frozen=True):
    """What the prefix of a line says."""

    kind: str
    method: str
    namespace: tuple[str, ...]


class LineView(msgspec.Struct, frozen=True):
    """A line, decoded."""

    kind: str
    method: str
    namespace: tuple[str, ...]
    data: Any
    timestamp_ms: int
    event_id: str
    node: str | None = None
    x: Any = None


class _Params(msgspec.Struct):
    namespace: tuple[str, ...]
    data: Any
    timestamp: int
    node: str | None = None


class _Line(msgspec.Struct):
    type: str
    method: str
    params: _Params
    event_id: str
    x: Any = None


_decode = msgspec.json.Decoder(_Line).decode


@lru_cache(maxsize=4096)
def head(kind: str, method: str, namespace: tuple[str, ...]) -> bytes:
    """The bytes of a line up to and including `"data":`, memoised."""
    return b'{"type":%b,"method":%b,"params":{"namespace":%b,"data":' % (dumps(kind), dumps(method), dumps(namespace))


def body(head_bytes: bytes, encoded_data: bytes, timestamp_ms: int, node: str | None) -> bytes:
    """A line from its head to just before the value of `event_id`."""
    if node is None:
        return b'%b%b,"timestamp":%d},"event_id":' % (head_bytes, encoded_data, timestamp_ms)
    return b'%b%b,"timestamp":%d,"node":%b},"event_id":' % (head_bytes, encoded_data, timestamp_ms, dumps(node))


def encode_line(
    method: str,
    namespace: tuple[str, ...],
    data: object,
    timestamp_ms: int,
    event_id: str,
    *,
    node: str | None = None,
    x: object = None,
    v1_only: bool = False,
) -> bytes:
    """One line. `data` and `x` are anything that `codec.dumps` takes, or `msgspec.Raw`."""
    start = body(head(V1_ONLY if v1_only else EVENT, method, namespace), dumps(data), timestamp_ms, node)
    if x is None:
        return b"%b%b}" % (start, dumps(event_id))
    return b'%b%b\t,"x":%b}' % (start, dumps(event_id), dumps(x))


def prefix(line: bytes) -> bytes:
    """The bytes that decide channel and namespace. Raises: Corrupt."""
    end = line.find(_PREFIX_END)
    if end < 0:
        raise Corrupt("a line without a prefix")
    return line[: end + 1]


@lru_cache(maxsize=8192)
def decode_prefix(prefix_bytes: bytes) -> Prefix:
    """Decode a prefix, memoised: a thread has few of them."""
    view = msgspec.json.decode(prefix_bytes + b"}}")
    return Prefix(view["type"], view["method"], tuple(view["params"]["namespace"]))


def data_offset(line: bytes) -> int:
    """Where the value of `data` begins."""
    return line.find(_PREFIX_END) + len(_PREFIX_END)


def split_x(line: bytes) -> tuple[bytes, bytes | None]:
    """The line as complete JSON without `x`, and the value of `x`."""
    v2, tab, x = line.partition(b"\t")
    if not tab:
        return line, None
    return v2 + b"}", x[5:-1]


def splice_seq(line: bytes, seq: int) -> bytes:
    """The protocol event of a line: `x` cut off, `"seq"` put in. Only for lines of the type `event`."""
    v2, tab, _ = line.partition(b"\t")
    if tab:
        return b'{"type":"event","seq":%d,%b}' % (seq, v2[_HEAD_LEN:])
    return b'{"type":"event","seq":%d,%b' % (seq, line[_HEAD_LEN:])


def is_event(line: bytes) -> bool:
    """Whether protocol v2 sees the line."""
    return line.startswith(_HEAD)


def decode_line(line: bytes) -> LineView:
    """Decode a whole line. Raises: Corrupt."""
    try:
        view = _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"a line that cannot be decoded: {error}") from error
    params = view.params
    return LineView(
        view.type, view.method, params.namespace, params.data, params.timestamp, view.event_id, params.node, view.x
    )
