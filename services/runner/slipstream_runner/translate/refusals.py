"""What a graph says and no line can hold: too large for a record, or not to be written as JSON at all."""

from typing import Any

from slipstream_schemas.codec import Path, Unserialisable, dumps, shown_path, to_plain
from slipstream_schemas.errors import TooLarge
from slipstream_schemas.limits import PATH_STEPS_MAX


def too_large(mode: str, payload: Any, size_bytes: int, bytes_max: int) -> TooLarge:
    """The error for a part whose line is over the limit; it names the part's largest key."""
    text = f"{mode}: {size_bytes} bytes as JSON, and a record of the log holds {bytes_max}"
    path, part_bytes = _largest(_inner(mode, payload))
    if path:
        text += f"; the largest is {shown_path(path)!r} with {part_bytes} bytes"
    return TooLarge(text)


def unserialisable(mode: str, error: Unserialisable) -> Unserialisable:
    """The same error, with the mode of the part before its way."""
    return Unserialisable(error.reason, (mode, *error.path))


def _inner(mode: str, payload: Any) -> Any:
    """The part of a payload that its author wrote."""
    if mode == "messages":
        return payload[0]
    if mode == "checkpoints":
        return payload.get("values")
    return payload


def _largest(value: Any) -> tuple[Path, int]:
    """The way to what makes a value large, and its size: down while one part is more than half of the whole."""
    try:
        plain = to_plain(value)
    except Unserialisable:
        return (), 0
    path: Path = ()
    size_bytes = len(dumps(plain))
    while len(path) < PATH_STEPS_MAX:
        steps: Any = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType, reportUnknownMemberType]
        sizes = [(len(dumps(part)), step, part) for step, part in steps]
        found = max(sizes, key=lambda each: each[0], default=None)
        if found is None or (path and found[0] * 2 < size_bytes):
            break
        size_bytes, step, plain = found
        path = (*path, step)
    return path, size_bytes
