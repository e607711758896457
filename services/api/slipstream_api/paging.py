"""Pages of what matches: how long, from where, in which order, with which fields."""

from collections.abc import Sequence
from typing import Any

import msgspec

from slipstream_api.bodies import bounded
from slipstream_schemas.errors import InvalidArgument
from slipstream_schemas.limits import SEARCH_LIMIT_MAX, SEARCH_OFFSET_MAX


class Page(msgspec.Struct, kw_only=True):
    """What the body of every search says."""

    limit: int = 10
    offset: int = 0
    sort_by: str | None = None
    sort_order: str | None = None
    select: list[str] | None = None


class Order(msgspec.Struct, frozen=True):
    """A page that was checked."""

    limit: int
    offset: int
    sort_by: str
    sort_order: str


def one_of(value: str | None, allowed: tuple[str, ...], *loc: str | int) -> None:
    """Raises: InvalidArgument for another value than these, or none."""
    if value is not None and value not in allowed:
        raise InvalidArgument(f"Expected one of {', '.join(allowed)}", ("body", *loc), "literal_error")


def checked(page: Page, sortable: tuple[str, ...], selectable: tuple[str, ...]) -> Order:
    """The page, newest first unless it says otherwise. Raises: InvalidArgument."""
    one_of(page.sort_by, sortable, "sort_by")
    one_of(page.sort_order, ("asc", "desc"), "sort_order")
    for number, name in enumerate(page.select or ()):
        one_of(name, selectable, "select", number)
    return Order(
        bounded(page.limit, 1, SEARCH_LIMIT_MAX, ("body", "limit")),
        bounded(page.offset, 0, SEARCH_OFFSET_MAX, ("body", "offset")),
        page.sort_by or "created_at",
        page.sort_order or "desc",
    )


def picked(rows: Sequence[msgspec.Struct], select: Sequence[str] | None) -> list[Any]:
    """Rows, or the selected fields of each."""
    if not select:
        return list(rows)
    return [{name: getattr(row, name) for name in select if hasattr(row, name)} for row in rows]
