"""Who may import what, read from the sources: the contracts of import-linter hold, and a process pays only for its own.

import-linter checks the direct imports of the whole graph; this reads what an import really loads.
"""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = (
    "slipstream_schemas",
    "slipstream_nats",
    "slipstream_postgres",
    "slipstream_telemetry",
    "slipstream_api",
    "slipstream_runner",
    "slipstream_projector",
    "slipstream_cli",
)
LISTING: Final = "import sys, {module}; print('\\n'.join(sorted(sys.modules)))"


def loaded_by(module: str) -> set[str]:
    """The top-level packages in memory after a fresh interpreter has imported the module."""
    command = [sys.executable, "-c", LISTING.format(module=module)]
    paths = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["pythonpath"]
    env = {"PYTHONPATH": ":".join(str(REPOSITORY / path) for path in paths)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    ("module", "foreign"),
    [
        ("slipstream_schemas", {"nats", "litestar", "langgraph", "langchain_core", "sqlalchemy", "asyncpg", "psycopg"}),
        ("slipstream_api.main", {"langgraph", "langchain_core", "psycopg", "opentelemetry"}),
        ("slipstream_projector.main", {"langgraph", "langchain_core", "litestar", "psycopg", "opentelemetry"}),
        ("slipstream_runner.main", {"litestar", "uvicorn"}),
        ("slipstream_cli.main", {"langgraph", "langchain_core", "litestar"}),
    ],
)
def test_a_process_loads_only_its_own(module: str, foreign: set[str]) -> None:
    assert loaded_by(module) & foreign == set()


def test_runtime_holds_no_aiohttp() -> None:
    """nats-py imports aiohttp where it is installed, which triples its import time."""
    lock = (REPOSITORY / "requirements.lock").read_text()
    assert "\naiohttp==" not in lock


def test_wheel_lists_every_package() -> None:
    """A package that the wheel does not name would be missing from an installation, and from no checkout."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    listed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(Path(path).name for path in listed) == sorted(PACKAGES)
    assert all((REPOSITORY / path / "py.typed").exists() for path in listed)
    assert project["tool"]["importlinter"]["root_packages"] == list(PACKAGES)
