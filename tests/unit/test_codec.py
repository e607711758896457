"""What a graph's state may hold, and how the wire shows it."""

import collections
import dataclasses
import datetime
import decimal
import enum
import ipaddress
import pathlib
import uuid
from typing import Any

import msgspec
import pydantic
import pytest

from slipstream_schemas.codec import Unserialisable, dumps, loads, to_plain


@dataclasses.dataclass
class Point:
    """A dataclass in a state."""

    x: int
    seen: datetime.timedelta


class Colour(enum.Enum):
    """An enum in a state."""

    RED = "red"


class Model(pydantic.BaseModel):
    """A pydantic model in a state."""

    name: str
    at: datetime.datetime


UTC_NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)
CASES: list[tuple[object, object]] = [
    (float("nan"), None),
    ([float("inf"), 1.5], [None, 1.5]),
    ("a\x00b", "a\ufffdb"),
    ({"k\x00": 1}, {"k\ufffd": 1}),
    ("\ud800x", "?x"),
    (b"ab", "YWI="),
    ({1}, [1]),
    (collections.deque([1, 2]), [1, 2]),
    (datetime.timedelta(seconds=90), 90.0),
    (UTC_NOON, "2026-01-02T12:00:00+00:00"),
    (decimal.Decimal("1.5"), 1.5),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (pathlib.PurePosixPath("/a"), "/a"),
    (ipaddress.ip_address("::1"), "::1"),
    (Colour.RED, "red"),
    ({Colour.RED: 1, 2: 2, None: 3, True: 4}, {"red": 1, "2": 2, "null": 3, "true": 4}),
    (Point(1, datetime.timedelta(seconds=1)), {"x": 1, "seen": 1.0}),
    (Model(name="m", at=UTC_NOON), {"name": "m", "at": "2026-01-02T12:00:00+00:00"}),
    (ValueError("boom"), {"error": "ValueError", "message": "boom"}),
    (msgspec.Raw(b'{"a":[1]}'), {"a": [1]}),
    ("P is for Paris", "P is for Paris"),
    ("Z", "Z"),
]


@pytest.mark.parametrize(("value", "expected"), CASES)
def test_values_look_on_the_wire_as_from_the_reference(value: object, expected: object) -> None:
    assert loads(dumps(value)) == expected
    assert loads(dumps({"deep": [value]})) == {"deep": [expected]}
    plain: Any = to_plain(value)
    assert plain == expected


def test_a_tuple_key_is_refused_by_name() -> None:
    with pytest.raises(Unserialisable, match="tuple"):
        dumps({(1, 2): 3})


def test_an_unknown_object_becomes_its_text() -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd"

    assert loads(dumps([Odd()])) == ["odd"]
