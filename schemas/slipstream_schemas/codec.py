"""JSON the way the LangGraph wire has it, from anything that a graph's state may hold.

Theory of operation. msgspec encodes plain values at C speed. What it does not know goes through one hook, and what it
encodes otherwise than the wire (times, decimals, lone surrogates, NUL, keys that are not strings) makes `dumps` fall
back to `to_plain`, which walks the value. The fast path must therefore notice: the encoder is configured so that those
cases either raise or show in the output. Source of the rules: the reference server's serialiser.

Nothing else than `Unserialisable` comes out, whatever a value's own methods do, and it says where in the value the
trouble lies: the walk that failed is done once more, this time noting the way.
"""

import base64
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
from slipstream_schemas.limits import (
    INTEGER_DIGITS_MAX,
    NUMBER_DIGITS_MAX,
    PATH_KEY_CHARS_MAX,
    PATH_STEPS_MAX,
    VALUE_DEPTH_MAX,
)

_PLAIN = (str, int, float, bool, type(None))
_BASES: tuple[type[Any], ...] = (str, int, float, bytes)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_INTEGER_MAX = 10**INTEGER_DIGITS_MAX
Path = tuple[str | int, ...]
"""Keys and positions that lead into a value."""
_BACKSLASH, _CAPITAL_Z, _CAPITAL_P, _CAPITAL_E, _CAPITAL_I, _CAPITAL_N = b"\\ZPEIN"
_SURROGATE = re.compile("[\ud800-\udfff]")


class Unserialisable(Rejected):
    """A value cannot be written as JSON; the message says where in it (`path`), and why."""

    def __init__(self, reason: str, path: Path = ()) -> None:
        super().__init__(f"{shown_path(path)}: {reason}" if path else reason)
        self.reason, self.path = reason, path


def shown_path(path: Path) -> str:
    """A way into a value as its author would write it: `report.rows[3]`."""
    shown = (
        f"[{step}]" if isinstance(step, int) else f".{step[:PATH_KEY_CHARS_MAX]}" for step in path[:PATH_STEPS_MAX]
    )
    return "".join(shown).removeprefix(".") + ("…" if len(path) > PATH_STEPS_MAX else "")


def _hook(value: object) -> object:
    """What msgspec does not know, as something that it does."""
    dump = getattr(value, "model_dump", None)
    if dump is not None and not isinstance(value, type):
        return dump()
    if isinstance(value, (set, frozenset, collections.deque)):
        return list(cast("set[object]", value))
    # msgspec knows the plain types, and not what is derived of them.
    for kind in _BASES:
        if isinstance(value, kind):
            return kind(value)
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
    except Exception:  # noqa: BLE001  the value's own methods run in here, and may raise anything
        return _strict(to_plain(value))
    # Looking for one byte costs a tenth of looking for two, and usually settles it.
    if (
        (_BACKSLASH in out and b"\\u0000" in out)
        or (_CAPITAL_Z in out and b'Z"' in out)
        or (_CAPITAL_P in out and b'"P' in out)
        # A decimal with an exponent may be larger than any float, and those that are no numbers are no JSON.
        or (_CAPITAL_E in out and (b"E+" in out or b"E-" in out))
        or (_CAPITAL_I in out and b"Infinity" in out)
        or (_CAPITAL_N in out and b"NaN" in out)
    ):
        return _strict(to_plain(value))
    return out


def dumps_bounded(value: object) -> bytes:
    """As `dumps`, and no deeper than every reader can decode. Raises: Unserialisable.

    `to_plain` minds the depth; what is encoded without it is looked at only where it has brackets enough to be deep.
    """
    out = dumps(value)
    if out.count(b"[") + out.count(b"{") > VALUE_DEPTH_MAX and _is_deep(out):
        to_plain(value)
        raise Unserialisable(_TOO_DEEP)
    return out


_TOO_DEEP = f"nested deeper than {VALUE_DEPTH_MAX} levels"


def _is_deep(encoded: bytes) -> bool:
    """Whether JSON is nested deeper than the limit: each pass takes the innermost level away."""
    left = _STRING.sub(b"", encoded).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(VALUE_DEPTH_MAX):
        if not left:
            return False
        left = left.replace(b"[]", b"")
    return bool(left)


def _text(value: str) -> str:
    if "\x00" in value:
        value = value.replace("\x00", "\ufffd")
    return value if value.isascii() else _SURROGATE.sub("?", value)


def _key(key: object) -> str:
    if isinstance(key, enum.Enum):
        return _key(key.value)
    if isinstance(key, str):
        return _text(str.__str__(key))
    if key is None:
        return "null"
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, (int, float, uuid.UUID)):
        return str(key)
    if isinstance(key, (datetime.datetime, datetime.date, datetime.time)):
        return key.isoformat()
    if isinstance(key, datetime.timedelta):
        return str(key.total_seconds())
    if isinstance(key, bytes):
        return base64.b64encode(key).decode()
    listed = getattr(key, "tolist", None)
    if listed is not None and not isinstance(listed(), (list, type(key))):
        return _key(listed())
    raise Unserialisable(f"a {type(key).__name__} cannot be the key of a JSON object")


def to_plain(value: object) -> Any:
    """The value as str, int, float, bool, None, list and dict with str keys. Raises: Unserialisable."""
    try:
        return _plain(value, 0)
    except Exception as error:
        reason = error.reason if isinstance(error, Unserialisable) else _reason(value, error)
        raise Unserialisable(reason, _way(value)) from error


def _reason(value: object, error: Exception) -> str:
    culprit: object = value
    for step in _steps(value):
        culprit = step[1]
    return f"a {type(culprit).__name__} cannot be written as JSON ({type(error).__name__})"


def _plain(value: object, level: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value.value if isinstance(value, enum.Enum) else str.__str__(value))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        return _integer(value)
    if level == VALUE_DEPTH_MAX:
        raise Unserialisable(_TOO_DEEP)
    level += 1
    if isinstance(value, dict):
        return {_key(k): _plain(v, level) for k, v in cast("dict[object, object]", value).items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_asdict"):
        return [_plain(v, level) for v in cast("list[object]", value)]
    return _plain_of_other(value, level)


def _integer(value: int) -> int:
    if -_INTEGER_MAX < value < _INTEGER_MAX:
        return int(value)
    raise Unserialisable(f"an integer of more than {INTEGER_DIGITS_MAX} digits")


def _plain_of_other(value: object, level: int) -> Any:
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    inner = _inner(value)
    return inner if isinstance(inner, _PLAIN) and not isinstance(inner, (str, float, int)) else _plain(inner, level)


def _inner(value: object) -> Any:
    """One step from a value that is not plain towards one that is."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        return _of_decimal(value)
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, uuid.UUID):
        return str(value)
    return _hook(value)


def _of_decimal(value: decimal.Decimal) -> int | float:
    if not value.is_finite() or abs(value.adjusted()) >= NUMBER_DIGITS_MAX:
        # float() knows infinities and what is too large or too small for it; int() would write out every digit.
        return float(value)
    return int(value) if value == value.to_integral_value() else float(value)


def _steps(value: object) -> list[tuple[str | int | None, object]]:
    """The way to the first part of a value that cannot be written: the key or position of each step, and what is there.

    A step without a key is one from an object to what stands for it.
    """
    out: list[tuple[str | int | None, object]] = []
    while len(out) < 2 * VALUE_DEPTH_MAX:
        found = next((part for part in _parts(value) if not _is_writable(part[1], len(out) + 1)), None)
        if found is None:
            break
        out.append(found)
        value = found[1]
    return out


def _way(value: object) -> Path:
    return tuple(step for step, _ in _steps(value) if step is not None)


def _parts(value: object) -> list[tuple[str | int | None, object]]:
    if value is None or isinstance(value, _PLAIN):
        return []
    try:
        if isinstance(value, dict):
            return [(_key(k), v) for k, v in cast("dict[object, object]", value).items()]
        if isinstance(value, (list, tuple)) and not hasattr(value, "_asdict"):
            return list(enumerate(cast("list[object]", value)))
        return [(None, _inner(value))]
    except Exception:  # noqa: BLE001  this very step is what fails
        return []


def _is_writable(value: object, level: int) -> bool:
    try:
        _plain(value, min(level, VALUE_DEPTH_MAX))
    except Exception:  # noqa: BLE001  as in `to_plain`
        return False
    return True


def loads(value: bytes | str) -> Any:
    """Decode JSON. Raises: msgspec.DecodeError."""
    return msgspec.json.decode(value)
