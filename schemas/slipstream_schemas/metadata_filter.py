"""Which rows a caller may touch: conditions on their metadata, from what an auth handler returns. Pure.

Wire form (langgraph_sdk's `FilterType`): `{"owner": "a"}` and `{"owner": {"$eq": "a"}}` ask for that very value,
`{"members": {"$contains": "a"}}` (or a list, all of it) for items of a list; several keys, and `$and`, mean all, `$or`
means one. There is one evaluation, in Postgres: `slipstream_postgres.conditions`.
"""

from typing import Any, TypeAlias

import msgspec

from slipstream_schemas.codec import to_plain
from slipstream_schemas.errors import Rejected
from slipstream_schemas.limits import AUTH_FILTER_DEPTH_MAX, AUTH_FILTER_TERMS_MAX


class Equal(msgspec.Struct, frozen=True):
    """The key is there and has that value."""

    key: str
    value: Any


class Contains(msgspec.Struct, frozen=True):
    """The key holds a list with all of these items, which are no lists or objects."""

    key: str
    items: tuple[Any, ...]


class Every(msgspec.Struct, frozen=True):
    """All of these hold; true when there is none."""

    parts: "tuple[MetadataFilter, ...]"


class Either(msgspec.Struct, frozen=True):
    """One of these holds; false when there is none."""

    parts: "tuple[MetadataFilter, ...]"


MetadataFilter: TypeAlias = Equal | Contains | Every | Either


def parse_filter(result: object) -> MetadataFilter | None:
    """The filter that a handler returned, None for an empty one. Raises: Rejected when it is none."""
    found = _every(to_plain(result), 0)
    if _terms(found) > AUTH_FILTER_TERMS_MAX:
        raise Rejected(f"a filter has more than {AUTH_FILTER_TERMS_MAX} terms")
    return found if found.parts else None


def _every(result: Any, depth: int) -> Every:
    if not isinstance(result, dict):
        raise Rejected(f"a filter is an object, not a {type(result).__name__}")
    if depth > AUTH_FILTER_DEPTH_MAX:
        raise Rejected(f"a filter is nested deeper than {AUTH_FILTER_DEPTH_MAX} levels")
    terms: dict[str, Any] = result
    return Every(tuple(_term(key, value, depth) for key, value in terms.items()))


def _term(key: str, value: Any, depth: int) -> MetadataFilter:
    if key in ("$and", "$or"):
        if not isinstance(value, list) or not value:
            raise Rejected(f"{key} takes a list of filters")
        groups: list[Any] = value
        parts = tuple(_every(group, depth + 1) for group in groups)
        return Every(parts) if key == "$and" else Either(parts)
    if key.startswith("$"):
        raise Rejected(f"unknown operator {key[:40]}")
    if not isinstance(value, dict):
        return Equal(key, value)
    if len(value) != 1:
        raise Rejected("a condition on a key has one operator")
    ((operator, operand),) = value.items()
    if operator == "$eq":
        return Equal(key, operand)
    if operator != "$contains":
        raise Rejected(f"unknown operator {str(operator)[:40]}")
    items: list[Any] = operand if isinstance(operand, list) else [operand]
    if any(isinstance(item, (dict, list)) for item in items):
        raise Rejected("$contains takes a string, a number or a truth value, or a list of them")
    return Contains(key, tuple(items))


def _terms(part: MetadataFilter) -> int:
    return sum(map(_terms, part.parts)) if isinstance(part, (Every, Either)) else 1
