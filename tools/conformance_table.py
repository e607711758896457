"""The conformance table: every promise that a stock client's tests mark, and how two other servers behave.

    python tools/conformance_table.py           write docs/conformance.md
    python tools/conformance_table.py --check   fail when it is not what the tests say

A promise is `@pytest.mark.promise(wire, reference=…, aegra=…)` on a test whose docstring says what clients rely on.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from generated_page import write_or_compare

REPOSITORY: Final = Path(__file__).resolve().parents[1]
TESTS: Final = REPOSITORY / "tests" / "conformance"
TABLE: Final = REPOSITORY / "docs" / "conformance.md"
PATTERNS: Final = ("python_sdk/test_*.py", "js_sdk/test_*.py", "browser/test_*.py", "test_instances.py")
PEERS: Final = ("reference", "aegra")
HEAD: Final = """\
# What stock clients rely on, and who keeps it

Each row is a promise of the wire that a test holds with an unmodified client against a running Slipstream. *Reference*
is langgraph-api 0.16.7 (in-memory runtime) and *Aegra* is 0.10.4, both as they were recorded with the same requests.
"Not recorded" means that nobody has looked, not that it fails.

Written by `just conformance-table` from the marks on the tests; do not edit.

"""


class Promise(NamedTuple):
    """One row."""

    wire: str
    says: str
    test: str
    reference: str
    aegra: str


class Unmarked(Exception):
    """A test that makes no promise, or one that cannot be read."""


def marks(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.Call]:
    """The promise marks of a test."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.promise":
            yield decorator


def text(node: ast.expr, where: str) -> str:
    """A literal text. Raises: Unmarked."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise Unmarked(f"{where}: the arguments of a promise are literal texts")


def promise_of(function: ast.FunctionDef | ast.AsyncFunctionDef, module: Path) -> Promise:
    """What a test promises. Raises: Unmarked."""
    test = f"{module.relative_to(TESTS).as_posix()}::{function.name}"
    found, says = list(marks(function)), ast.get_docstring(function)
    if len(found) != 1 or says is None:
        raise Unmarked(f"{test}: a conformance test has one promise mark and a docstring that says what it holds")
    (mark,) = found
    peers = {str(keyword.arg): text(keyword.value, test) for keyword in mark.keywords}
    if len(mark.args) != 1 or sorted(peers) != sorted(PEERS):
        raise Unmarked(f"{test}: promise(wire, reference=…, aegra=…)")
    return Promise(text(mark.args[0], test), " ".join(says.split()), test, peers["reference"], peers["aegra"])


def promises(modules: list[Path]) -> list[Promise]:
    """The promises of all tests, in the order of the wire. Raises: Unmarked."""
    found = [
        promise_of(node, module)
        for module in modules
        for node in ast.parse(module.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    return sorted(found, key=lambda each: (each.wire.lower(), each.test))


def cell(value: str) -> str:
    """A cell of a Markdown table."""
    return value.replace("|", "\\|")


def render(rows: list[Promise]) -> str:
    """The whole page."""
    lines = ["| On the wire | What a client relies on | Reference | Aegra | Test |", "|---|---|---|---|---|"]
    for row in rows:
        peers = [cell(peer) for peer in (row.reference, row.aegra)]
        lines.append(f"| `{cell(row.wire)}` | {cell(row.says)} | {peers[0]} | {peers[1]} | `{row.test}` |")
    return HEAD + "\n".join(lines) + "\n"


def generate() -> str:
    """The page that the tests describe now. Raises: Unmarked."""
    return render(promises([module for pattern in PATTERNS for module in sorted(TESTS.glob(pattern))]))


if __name__ == "__main__":
    sys.exit(
        write_or_compare(TABLE, generate(), "conformance-table", "The conformance table, from the marks on the tests.")
    )
