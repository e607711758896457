"""The house's bounds on size, and what may not be committed."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = ("schemas", "infra", "services", "examples", "tests", "tools")
MODULE_LINES_MAX: Final = 500
FUNCTION_LINES_MAX: Final = 70
MODULES: Final = sorted(
    [REPOSITORY / "dev.py", *(path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py"))]
)
LOCKS: Final = sorted([*REPOSITORY.glob("requirements*.lock"), *(REPOSITORY / "tests").rglob("*.lock")])
PACKAGE_LOCKS: Final = sorted((REPOSITORY / "tests" / "conformance").glob("*/package-lock.json"))
ADDRESS: Final = re.compile(r"https?://|file:|--(extra-)?index-url|--find-links|^-[if] ", re.MULTILINE)


def long_functions(module: Path) -> Iterator[str]:
    """Each function of the module that is over the bound, nested ones included."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{node.name} (line {node.lineno}): {lines} lines"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_modules_and_functions_stay_small(module: Path) -> None:
    lines = module.read_text(encoding="utf-8").count("\n")
    assert lines <= MODULE_LINES_MAX, f"{lines} lines: split it by reason to change"
    assert list(long_functions(module)) == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_hold_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert ADDRESS.search(text) is None, "compile it with `just lock`"
    pins = re.findall(r"^[a-z0-9].*$", text, re.MULTILINE)
    assert pins
    assert all("==" in pin and pin.endswith("\\") for pin in pins), "every requirement is pinned and hashed"


@pytest.mark.parametrize("lock", PACKAGE_LOCKS, ids=lambda path: path.parent.name)
def test_locks_of_javascript_packages_hold_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert ADDRESS.search(text) is None, "resolve it with `just lock-js`"
    packages = {name: package for name, package in json.loads(text)["packages"].items() if name}
    assert packages
    assert all("version" in package and "integrity" in package for package in packages.values())


def test_a_bound_is_seen(tmp_path: Path) -> None:
    module = tmp_path / "long.py"
    module.write_text("def long():\n" + "    x = 1\n" * FUNCTION_LINES_MAX)
    assert list(long_functions(module)) == ["long (line 1): 71 lines"]
