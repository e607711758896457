"""Whatever a graph holds: it is written as JSON that every reader can read, or refused by name, and nothing else."""

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import uuid
from typing import Any

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipstream_schemas.codec import Unserialisable, dumps, dumps_bounded, loads, to_plain
from slipstream_schemas.limits import INTEGER_DIGITS_MAX, VALUE_DEPTH_MAX


class Level(enum.IntEnum):
    """Numbers with names."""

    LOW = 1


class Metres(int):
    """What is derived of a number is one."""


class Name(str):
    """What is derived of a text is one, whatever it says of itself."""

    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class Share(float):
    """What is derived of a float is one."""


class Hostile:
    """An object whose own methods fail."""

    def __str__(self) -> str:
        raise RuntimeError("boom")


class HostileModel(pydantic.BaseModel):
    """A model that cannot be dumped."""

    name: str = "x"

    def model_dump(self, **_: Any) -> dict[str, Any]:
        """Fail."""
        raise KeyError("boom")


@dataclasses.dataclass
class Box:
    """A dataclass around anything."""

    inner: Any


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=5), st.binary(max_size=5),
    st.decimals(), st.dates(), st.datetimes(), st.times(), st.timedeltas(), st.uuids(),
    st.fractions(), st.complex_numbers(), st.sampled_from([INTEGER_DIGITS_MAX, 5000]).map(lambda digits: -(10**digits)),
    st.sampled_from([
        Level.LOW, Metres(3), Share("nan"), Name("x\x00\ud800"), Hostile(), HostileModel(), object, Ellipsis,
        ValueError("\ud800"), np.float32(1.5), np.int64(2**60), np.bool_(True), np.float64("inf"), np.str_("x\ud800"),
        np.array([[1, 2], [3, 4]]), np.array([]), np.array([1.0, float("nan")]), np.datetime64("2026-01-02"),
        np.array(["a", None], dtype=object), np.bytes_(b"\xff"), np.timedelta64(5, "s"), np.array(7),
        decimal.Decimal("1e999999"), decimal.Decimal("-Infinity"),
        decimal.Decimal("sNaN"), range(3), "\ud83d\ude00", "P", "Z", "\\u0000",
        memoryview(b"ab"), collections.Counter("aab"),
    ]),
)  # fmt: skip
KEYS = st.one_of(
    st.text(st.characters(), max_size=3), st.integers(), st.floats(), st.booleans(), st.none(), st.uuids(),
    st.datetimes(), st.dates(), st.times(), st.timedeltas(), st.binary(max_size=3), st.tuples(st.integers()),
    st.sampled_from([Level.LOW, np.int64(3), np.str_("k"), Metres(3), Name("n"), Share(1.5), Hostile()]),
)  # fmt: skip
VALUES = st.recursive(
    ODD,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner), st.dictionaries(KEYS, inner, max_size=3),
        st.builds(Box, inner), st.lists(inner, max_size=3).map(collections.deque),
    ),
    max_leaves=10,
)  # fmt: skip


def is_plain(value: Any) -> bool:
    """Only what JSON has, of exactly these types."""
    if type(value) is dict:
        return all(type(key) is str for key in value) and all(map(is_plain, value.values()))
    if type(value) is list:
        return all(map(is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


@given(VALUES)
def test_what_is_encoded_decodes_and_else_the_codec_says_so_itself(value: object) -> None:
    try:
        encoded = dumps(value)
    except Unserialisable:
        with pytest.raises(Unserialisable):
            to_plain(value)
        return
    decoded = loads(encoded)
    assert decoded == json.loads(encoded)
    assert b"\\u0000" not in encoded.replace(b"\\\\", b"")
    plain = to_plain(value)
    assert is_plain(plain)
    # Both ways to the wire agree, but for how they round decimals and what is not ordered.
    assert loads(dumps(plain)) == plain


@given(VALUES)
def test_what_the_plain_walk_gives_is_encoded_as_it_is(value: object) -> None:
    try:
        plain = to_plain(value)
    except Unserialisable:
        return
    assert loads(dumps_bounded(plain)) == plain == to_plain(plain)


CYCLE: list[Any] = []
CYCLE.append({"again": CYCLE})
LOOP = Box(None)
LOOP.inner = {"box": LOOP}


def nested(levels: int, inner: Any = 1) -> Any:
    """Lists in lists."""
    for _ in range(levels):
        inner = [inner]
    return inner


REFUSED: list[tuple[object, str]] = [
    ({"report": {"rows": [1, {(1, 2): 3}]}}, "report.rows[1]: a tuple cannot be the key"),
    ({"fine": 1, "odd": [Hostile()]}, "odd[0]: a Hostile cannot be written as JSON (RuntimeError)"),
    ({"model": HostileModel()}, "model: a HostileModel cannot be written as JSON (KeyError)"),
    ({"count": 10**5000}, f"count: an integer of more than {INTEGER_DIGITS_MAX} digits"),
    ({"k": CYCLE}, "k[0].again[0].again"),
    ({"k": LOOP}, "k.inner.box.inner"),
    ({"deep": nested(5000)}, "deep[0]"),
    ({"deep": nested(VALUE_DEPTH_MAX)}, f"nested deeper than {VALUE_DEPTH_MAX} levels"),
]


@pytest.mark.parametrize(("value", "text"), REFUSED, ids=lambda case: case if isinstance(case, str) else "")
def test_what_cannot_be_written_is_refused_with_the_way_to_it(value: object, text: str) -> None:
    for encode in (to_plain, dumps_bounded):
        with pytest.raises(Unserialisable) as caught:
            encode(value)
        assert text in caught.value.message
        assert len(caught.value.message) < 1000


def test_the_deepest_value_that_is_written_is_read_everywhere() -> None:
    deepest = nested(VALUE_DEPTH_MAX)
    assert loads(dumps_bounded(deepest)) == deepest == to_plain(deepest)
    wide = [{"[": ["]" * 3, '"[[']}] * 1000
    assert loads(dumps_bounded(wide)) == wide


SHOWN: list[tuple[object, object]] = [
    (np.float32(1.5), 1.5), (np.int64(2**60), 2**60), (np.bool_(True), True), (np.array([[1, 2]]), [[1, 2]]),
    (np.array([1.0, float("nan")]), [1.0, None]), ({np.int64(3): np.array(7)}, {"3": 7}),
    (Metres(3), 3), (Share(1.5), 1.5), (Name("x"), "x"), (Level.LOW, 1), ({Metres(3): 1}, {"3": 1}),
    (2**64, 2**64), (-(2**80), -(2**80)), (decimal.Decimal("1e999999"), None),
    (decimal.Decimal("-Infinity"), None), ({b"ab": 1}, {"YWI=": 1}), (uuid.UUID(int=1), str(uuid.UUID(int=1))),
    (datetime.date(2026, 1, 2), "2026-01-02"), (Box({1}), {"inner": [1]}), ("\ud83d\ude00", "??"),
    ("\\u0000", "\\u0000"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), SHOWN)
def test_odd_values_have_one_form(value: object, expected: object) -> None:
    assert loads(dumps(value)) == expected
    assert to_plain([value]) == [expected]
