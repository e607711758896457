"""JSON the way the LangGraph wire has it, from anything that a graph's state may hold.

Theory of operation. msgspec encodes plain values at C speed. What it does not know goes through one hook, and what it
encodes otherwise than the wire (times, decimals, lone surrogates, NUL, keys that are not strings) makes `dumps` fall
back to `to_plain`, which walks the value. The fast path must therefore notice: the encoder is configured so that those
cases either raise or show in the output. Source of the rules: the reference server's serialiser.
"""

import collections
import dataclasses
import datetime
import decimal
import enum
import ipaddress
import math
import pathlib
import re
import uuid
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from slipstream_schemas.errors import Rejected

_PLAIN = (str, int, float, bool, type(None))
_BACKSLASH, _CAPITAL_Z, _CAPITAL_P = b"\\ZP"
_SURROGATE = re.compile("[\ud800-\udfff]")


class Unserialisable(Rejected):
    """A value cannot be written as JSON; the message names its type."""


def _hook(value: object) -> object:
    """What msgspec does not know, as something that it does."""
    dump = getattr(value, "model_dump", None)
    if dump is not None and not isinstance(value, type):
        return dump()
    if isinstance(value, (set, frozenset, collections.deque)):
        return list(cast("set[object]", value))
    if isinstance(value, BaseException):
        return {"error": type(value).__name__, "message": str(value)}
    if isinstance(value, (pathlib.PurePath, ipaddress._BaseAddress, re.Pattern)):  # pyright: ignore[reportPrivateUsage]
        return str(value) if not isinstance(value, re.Pattern) else cast("re.Pattern[str]", value).pattern
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    listed = getattr(value, "tolist", None)
    if listed is not None:
        return listed()
    if hasattr(value, "_asdict"):
        return cast("Any", value)._asdict()
    return str(value)


class _NeedsPlain(Exception):
    """The value holds something whose msgspec form is not the wire's."""


def _fast_hook(value: object) -> object:
    # msgspec asks about these only where they are keys, and would take the hook's answer for the key's text.
    if value is None or isinstance(value, (bool, tuple)):
        raise _NeedsPlain
    return _hook(value)


_fast = msgspec.json.Encoder(enc_hook=_fast_hook, decimal_format="number").encode
_strict = msgspec.json.Encoder(enc_hook=_hook).encode


def dumps(value: object) -> bytes:
    """Compact JSON bytes without NUL escapes. Raises: Unserialisable."""
    try:
        out = _fast(value)
    except (_NeedsPlain, UnicodeEncodeError, TypeError, ValueError, msgspec.MsgspecError):
        return _dump_plain(value)
    # Looking for one byte costs a tenth of looking for two, and usually settles it.
    if (
        (_BACKSLASH in out and b"\\u0000" in out)
        or (_CAPITAL_Z in out and b'Z"' in out)
        or (_CAPITAL_P in out and b'"P' in out)
    ):
        return _dump_plain(value)
    return out


def _dump_plain(value: object) -> bytes:
    try:
        return _strict(to_plain(value))
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise Unserialisable(f"a {type(value).__name__} cannot be written as JSON: {error}") from error


def _text(value: str) -> str:
    if "\x00" in value:
        value = value.replace("\x00", "\ufffd")
    return value if value.isascii() else _SURROGATE.sub("?", value)


def _key(key: object) -> str:
    if isinstance(key, str):
        return _text(key)
    if isinstance(key, enum.Enum):
        return _key(key.value)
    if key is None:
        return "null"
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, (int, float, uuid.UUID)):
        return str(key)
    if isinstance(key, (datetime.datetime, datetime.date)):
        return key.isoformat()
    raise Unserialisable(f"a {type(key).__name__} cannot be the key of a JSON object")


def to_plain(value: object) -> Any:
    """The value as str, int, float, bool, None, list and dict with str keys. Raises: Unserialisable."""
    if isinstance(value, str):
        return _text(value.value if isinstance(value, enum.Enum) else value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    if isinstance(value, dict):
        return {_key(k): to_plain(v) for k, v in cast("dict[object, object]", value).items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_asdict"):
        return [to_plain(v) for v in cast("list[object]", value)]
    return _plain_of_other(value)


def _plain_of_other(value: object) -> Any:
    if isinstance(value, enum.Enum):
        return to_plain(value.value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() and value.is_finite() else to_plain(float(value))
    if isinstance(value, msgspec.Struct):
        return {name: to_plain(getattr(value, name)) for name in value.__struct_fields__}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (bytes, bytearray, memoryview, uuid.UUID)):
        return msgspec.to_builtins(value)
    plain = _hook(value)
    return plain if isinstance(plain, _PLAIN) and not isinstance(plain, (str, float)) else to_plain(plain)


def loads(value: bytes | str) -> Any:
    """Decode JSON. Raises: msgspec.DecodeError."""
    return msgspec.json.decode(value)
