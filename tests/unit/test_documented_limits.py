"""The table of limits in docs/operations.md says what limits.py says."""

import re
from pathlib import Path
from typing import Final

from slipstream_schemas import limits

OPERATIONS: Final = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
ROW: Final = re.compile(r"^\| `([A-Z0-9_]+)` \| ([\d,.]+) \|", re.MULTILINE)


def test_the_table_of_limits_is_true() -> None:
    rows: list[tuple[str, str]] = ROW.findall(OPERATIONS.read_text())
    assert len(rows) > 20
    assert [
        (name, number)
        for name, number in rows
        if f"{getattr(limits, name):,g}" != f"{float(number.replace(',', '')):,g}"
    ] == []
