"""The cursor of the wire as text, which clients send in headers."""

import pytest

from slipstream_schemas import seq


@pytest.mark.parametrize(
    ("text", "found"),
    [("0", 0), ("007", 7), ("0" * 5000 + "7", 7), (str(seq.SEQ_MAX), seq.SEQ_MAX), (str(seq.SEQ_MAX + 1), None),
     ("9" * 5000, None), ("", None), ("-1", None), ("1.5", None), ("²", None), ("1_0", None), ("run:1:2:3", None)],
)  # fmt: skip
def test_a_text_is_a_cursor_or_none(text: str, found: int | None) -> None:
    assert seq.parse(text) == found
