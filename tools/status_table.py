"""The statuses of every route, written into docs/migrate.md from the API's own description.

python tools/status_table.py           write the section of docs/migrate.md
python tools/status_table.py --check   fail when it is not what the description says
"""

import sys
from pathlib import Path
from typing import Any, Final

from generated_page import write_or_compare
from slipstream_api.openapi import DOCUMENT

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "migrate.md"
BEGIN: Final = "<!-- statuses: written by `just status-table`, do not edit -->\n"
END: Final = "<!-- end of statuses -->\n"


class NoSection(Exception):
    """The page has no place for the table."""


def table(document: dict[str, Any]) -> str:
    """A row for each operation, in the order of the description."""
    lines = ["| Route | What it does | Answers | Refuses with |", "|---|---|---|---|"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            statuses = sorted(operation["responses"])
            good, bad = ([s for s in statuses if (s < "400") is wanted] for wanted in (True, False))
            summary = operation["summary"]
            lines.append(f"| `{method.upper()} {path}` | {summary} | {', '.join(good)} | {', '.join(bad)} |")
    return "\n".join(lines) + "\n"


def replaced(page: str, section: str) -> str:
    """The page with its section. Raises: NoSection."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoSection(f"{PAGE} lacks {BEGIN.strip()} or {END.strip()}")
    return f"{before}{BEGIN}\n{section}\n{END}{after}"


def generate() -> str:
    """The page as the description has it now. Raises: NoSection."""
    return replaced(PAGE.read_text(encoding="utf-8"), table(DOCUMENT))


if __name__ == "__main__":
    sys.exit(
        write_or_compare(
            PAGE, generate(), "status-table", "The statuses in docs/migrate.md, from the API's description."
        )
    )
