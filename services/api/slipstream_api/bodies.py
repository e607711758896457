"""Reading requests: bodies and parameters into structs, with errors that say where they are wrong."""

import asyncio
from typing import Any, TypeVar

import msgspec
from litestar import Request

from slipstream_api.problems import invalid
from slipstream_schemas.codec import Unserialisable, to_plain
from slipstream_schemas.errors import InvalidArgument, TooLarge, TooSlow
from slipstream_schemas.limits import (
    BODY_BYTES_MAX,
    BODY_DEADLINE_S,
    IDEMPOTENCY_KEY_CHARS_MAX,
    JSON_DEPTH_MAX,
    NUMBER_DIGITS_MAX,
)

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)
AnyRequest = Request[Any, Any, Any]
NUMBER_MAX = 10**NUMBER_DIGITS_MAX


async def read(request: AnyRequest, kind: type[T]) -> T:
    """The JSON body as `kind`; an empty body is `{}`. Raises: InvalidArgument, TooLarge."""
    return convert(decode(await raw_body(request) or b"{}"), kind)


async def read_list(request: AnyRequest, kind: type[T]) -> list[T]:
    """The JSON body as a list of `kind`. Raises: InvalidArgument, TooLarge."""
    plain = decode(await raw_body(request))
    if not isinstance(plain, list):
        raise InvalidArgument("Expected an array", ("body",), "type_error")
    return [convert(each, kind) for each in plain]  # pyright: ignore[reportUnknownVariableType]


async def raw_body(request: AnyRequest) -> bytes:
    """The body as it came. Raises: TooLarge."""
    raw = bytearray()
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            async for piece in request.stream():
                raw.extend(piece)
                if len(raw) > BODY_BYTES_MAX:
                    raise TooLarge(f"the body is larger than {BODY_BYTES_MAX} bytes")
    except TimeoutError as error:
        raise TooSlow(f"the body did not arrive within {BODY_DEADLINE_S:.0f} s") from error
    return bytes(raw)


def decode(raw: bytes) -> Any:
    """JSON, cleaned of what the log and Postgres cannot hold (NUL). Raises: InvalidArgument."""
    try:
        decoded = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"Invalid JSON body: {error}", ("body",), "json_invalid") from error
    if _depth(decoded, 0) > JSON_DEPTH_MAX:
        raise InvalidArgument(f"JSON is nested deeper than {JSON_DEPTH_MAX} levels", ("body",), "json_too_deep")
    try:
        return to_plain(decoded)
    except Unserialisable as error:
        raise InvalidArgument(f"Invalid JSON body: {error.message}", ("body",), "json_invalid") from error


def _depth(value: Any, level: int) -> int:
    """How deep it goes. Raises: InvalidArgument for a number that clients could not read back."""
    if isinstance(value, int) and not -NUMBER_MAX < value < NUMBER_MAX:
        raise InvalidArgument(f"A number has more than {NUMBER_DIGITS_MAX} digits", ("body",), "json_invalid")
    if level > JSON_DEPTH_MAX or not isinstance(value, (dict, list)):
        return level
    inner = value.values() if isinstance(value, dict) else value  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return max((_depth(each, level + 1) for each in inner), default=level)  # pyright: ignore[reportUnknownVariableType]


def convert(plain: Any, kind: type[T]) -> T:
    """A plain value as `kind`. Raises: InvalidArgument."""
    if not isinstance(plain, dict):
        raise InvalidArgument("Expected an object", ("body",), "type_error")
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise invalid(error) from error


def changed(body: S, fields: dict[str, Any]) -> S:
    """A body with what an auth handler has made of some fields, checked like a request's. Raises: InvalidArgument."""
    whole = {name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not msgspec.UNSET}
    return convert({**whole, **{name: to_plain(value) for name, value in fields.items()}}, type(body))


def integer(request: AnyRequest, name: str, default: int, low: int, high: int) -> int:
    """A number of the query. Raises: InvalidArgument."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError as error:
        raise InvalidArgument("Expected an integer", ("query", name), "int_parsing") from error
    return bounded(value, low, high, ("query", name))


def bounded(value: int, low: int, high: int, loc: tuple[str | int, ...]) -> int:
    """A number within bounds. Raises: InvalidArgument."""
    if not low <= value <= high:
        raise InvalidArgument(f"Expected a number from {low} to {high}", loc, "out_of_range")
    return value


def flag(request: AnyRequest, name: str) -> bool:
    """A truth value of the query."""
    return (request.query_params.get(name) or "").lower() in ("1", "true", "yes")


def idempotency_key(request: AnyRequest) -> str | None:
    """The header, checked. Raises: InvalidArgument."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= IDEMPOTENCY_KEY_CHARS_MAX:
        text = f"Idempotency-Key must have 1 to {IDEMPOTENCY_KEY_CHARS_MAX} characters"
        raise InvalidArgument(text, ("header", "idempotency-key"))
    return key
