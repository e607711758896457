"""A run's metadata in its trace: bounded, and nothing but what one can filter by."""

from slipstream_schemas.limits import TRACE_METADATA_KEYS_MAX, TRACE_METADATA_VALUE_CHARS_MAX
from slipstream_schemas.trace_metadata import PREFIX, trace_attributes


def test_what_fits_is_an_attribute_and_the_rest_is_not() -> None:
    metadata = {
        "tenant": "acme", "retries": 3, "share": 0.5, "beta": True, "long": "x" * 600, "k" * 64: "fits",
        "k" * 65: "no", "with space": "no", "käse": "no", "object": {"no": 1}, "list": [1], "nothing": None, "": "no",
    }  # fmt: skip
    wanted = {"tenant": "acme", "retries": 3, "share": 0.5, "beta": True,
              "long": "x" * TRACE_METADATA_VALUE_CHARS_MAX, "k" * 64: "fits"}  # fmt: skip
    assert trace_attributes(metadata) == {PREFIX + key: value for key, value in wanted.items()}


def test_there_are_so_many_at_most() -> None:
    found = trace_attributes({f"k{number}": number for number in range(TRACE_METADATA_KEYS_MAX + 8)})
    assert list(found.values()) == list(range(TRACE_METADATA_KEYS_MAX))
