"""The store as the API asks a runner about it, and what a namespace, a key and a filter may be.

A namespace is a path of labels. LangGraph stores it joined with dots and keys it together with the item's key, so
labels hold no dot, and both are bounded by what one entry of a Postgres index takes.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from slipstream_schemas.codec import dumps
from slipstream_schemas.errors import InvalidArgument, TooLarge
from slipstream_schemas.limits import (
    STORE_FIELD_BYTES_MAX,
    STORE_FIELDS_MAX,
    STORE_FILTER_KEYS_MAX,
    STORE_KEY_BYTES_MAX,
    STORE_LABEL_BYTES_MAX,
    STORE_LABELS_MAX,
    STORE_NAMESPACE_BYTES_MAX,
    STORE_VALUE_BYTES_MAX,
)

RESERVED_ROOT = "langgraph"
EQUALITY = frozenset({"$eq", "$ne"})
ORDER = frozenset({"$gt", "$gte", "$lt", "$lte"})
Loc = tuple[str | int, ...]


class PutItem(msgspec.Struct, tag_field="ask", tag="put"):
    """Store an item. `index` False leaves it out of semantic search; `ttl` is in minutes, None means for ever."""

    tenant: str
    namespace: list[str]
    key: str
    value: dict[str, Any]
    index: bool | list[str] | None = None
    ttl: float | msgspec.UnsetType | None = msgspec.UNSET


class GetItem(msgspec.Struct, tag_field="ask", tag="get"):
    """One item, or null. `refresh_ttl` None leaves it to `store.ttl.refresh_on_read`."""

    tenant: str
    namespace: list[str]
    key: str
    refresh_ttl: bool | None = None


class DeleteItem(msgspec.Struct, tag_field="ask", tag="delete"):
    """Forget an item; one that does not exist is forgotten already."""

    tenant: str
    namespace: list[str]
    key: str


class SearchItems(msgspec.Struct, tag_field="ask", tag="search"):
    """Items below a namespace, the closest to `query` first, or the last changed first without one."""

    tenant: str
    namespace_prefix: list[str]
    filter: dict[str, Any] | None
    limit: int
    offset: int
    query: str | None
    refresh_ttl: bool | None


class ListNamespaces(msgspec.Struct, tag_field="ask", tag="namespaces"):
    """Namespaces that hold items, cut at `max_depth` labels."""

    tenant: str
    prefix: list[str]
    suffix: list[str]
    max_depth: int | None
    limit: int
    offset: int


StoreQuestion = PutItem | GetItem | DeleteItem | SearchItems | ListNamespaces


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))


def check_labels(labels: Sequence[str], loc: Loc) -> None:
    """Check a path of labels, which may be empty. Raises: InvalidArgument."""
    if len(labels) > STORE_LABELS_MAX:
        raise InvalidArgument(f"A namespace has at most {STORE_LABELS_MAX} labels", loc)
    for label in labels:
        if not label or _bytes(label) > STORE_LABEL_BYTES_MAX:
            raise InvalidArgument(f"A namespace label has 1 to {STORE_LABEL_BYTES_MAX} bytes", loc)
        if "." in label:
            raise InvalidArgument(f"Namespace labels must not contain periods ('.'), and {label!r} does", loc)
        if "\x00" in label:
            raise InvalidArgument("Namespace labels must not contain NUL", loc)
    if _bytes(".".join(labels)) > STORE_NAMESPACE_BYTES_MAX:
        raise InvalidArgument(f"A namespace is at most {STORE_NAMESPACE_BYTES_MAX} bytes long", loc)


def check_namespace(labels: Sequence[str], loc: Loc) -> None:
    """Check the namespace of an item. Raises: InvalidArgument."""
    if not labels:
        raise InvalidArgument("A namespace must have at least one label", loc)
    check_labels(labels, loc)
    if labels[0] == RESERVED_ROOT:
        raise InvalidArgument(f'The first label of a namespace must not be "{RESERVED_ROOT}"', loc)


def check_key(key: str, loc: Loc) -> None:
    """Check an item's key. Raises: InvalidArgument."""
    if not key or _bytes(key) > STORE_KEY_BYTES_MAX:
        raise InvalidArgument(f"A key has 1 to {STORE_KEY_BYTES_MAX} bytes", loc)
    if "\x00" in key:
        raise InvalidArgument("A key must not contain NUL", loc)


def check_value(value: Any) -> None:
    """Check an item's value. Raises: TooLarge."""
    if len(dumps(value)) > STORE_VALUE_BYTES_MAX:
        raise TooLarge(f"the value is larger than {STORE_VALUE_BYTES_MAX} bytes")


def check_item(labels: Sequence[str], key: str, value: Any) -> None:
    """Check an item that a graph puts: what is stored, the API can show. Raises: InvalidArgument, TooLarge."""
    check_labels(labels, ("namespace",))
    check_key(key, ("key",))
    check_value(value)


def check_index(index: bool | list[str] | None, loc: Loc) -> None:
    """Check which fields of an item semantic search sees. Raises: InvalidArgument."""
    if index is True:
        raise InvalidArgument("Expected false, null or a list of field paths", loc, "type_error")
    fields = index or []
    if len(fields) > STORE_FIELDS_MAX:
        raise InvalidArgument(f"At most {STORE_FIELDS_MAX} field paths can be indexed", loc)
    if any(not field or _bytes(field) > STORE_FIELD_BYTES_MAX for field in fields):
        raise InvalidArgument(f"A field path has 1 to {STORE_FIELD_BYTES_MAX} bytes", loc)


def check_filter(wanted: dict[str, Any] | None, loc: Loc) -> None:
    """Check a filter: a value to equal, or an object of operators. Raises: InvalidArgument."""
    if wanted is not None and len(wanted) > STORE_FILTER_KEYS_MAX:
        raise InvalidArgument(f"A filter has at most {STORE_FILTER_KEYS_MAX} keys", loc)
    for field, value in (wanted or {}).items():
        if not isinstance(value, dict):
            continue
        operators: dict[str, Any] = value
        if not operators or not operators.keys() <= EQUALITY | ORDER:
            known = ", ".join(sorted(EQUALITY | ORDER))
            raise InvalidArgument(f"Expected a value, or an object with operators out of {known}", (*loc, field))
        for operator, against in operators.items():
            if operator in ORDER and (isinstance(against, bool) or not isinstance(against, (str, int, float))):
                raise InvalidArgument("Expected a string or a number to compare with", (*loc, field, operator))
