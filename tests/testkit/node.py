"""Clients that run in Node: their packages are installed from the folder's lock, their tests by Node's own runner.

The packages lie in the folder's git-ignored `node_modules` and are installed anew only when the lock changes. A machine
without Node skips these tests; one with Node on which the packages cannot be installed fails them.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

import pytest

NODE_MAJOR_MIN: Final = 20
INSTALL_DEADLINE_S: Final = 180
RUN_DEADLINE_S: Final = 180
PROBE_DEADLINE_S: Final = 20
STAMP: Final = "node_modules/.slipstream-stamp"


@functools.cache
def has_node() -> bool:
    """Whether a Node that is new enough and npm are on the path."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=PROBE_DEADLINE_S).stdout
    major = said.strip().removeprefix("v").split(".")[0]
    return major.isdigit() and int(major) >= NODE_MAJOR_MIN


def require_node() -> None:
    """Skip the test on a machine without Node."""
    if not has_node():
        pytest.skip(f"node >= {NODE_MAJOR_MIN} and npm are not installed")


def install(folder: Path) -> None:
    """Install the folder's packages, once for all workers. Fails the test when npm does."""
    lock, stamp = folder / "package-lock.json", folder / STAMP
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        wanted = hashlib.sha256(held.read()).hexdigest()
        if stamp.exists() and stamp.read_text() == wanted:
            return
        _npm_ci(folder)
        stamp.write_text(wanted)


def run_tests(folder: Path, name: str, **env: str) -> None:
    """Run `<name>.test.mjs` of the folder; nothing of it is left when this returns.

    Raises: AssertionError, with what Node's runner said.
    """
    install(folder)
    # Ends before the deadline of this process, so that the report of what hangs is not lost.
    limit = f"--test-timeout={(RUN_DEADLINE_S - PROBE_DEADLINE_S) * 1000}"
    command = ["node", "--test", limit, "--test-reporter=spec", f"{name}.test.mjs"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **env, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=RUN_DEADLINE_S)
    finally:
        # Node's runner has a child for each file, which would keep the pipe open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PROBE_DEADLINE_S)
    assert process.returncode == 0, f"{name}.test.mjs failed:\n{said}"


def _npm_ci(folder: Path) -> None:
    said = ""
    # What npm has kept may be older than the lock: then it asks the registry.
    for source in ("--prefer-offline", "--prefer-online"):
        command = ["npm", "ci", source, "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        try:
            ran = subprocess.run(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=INSTALL_DEADLINE_S,
            )
        except subprocess.TimeoutExpired:
            pytest.fail(f"npm ci in {folder} did not end within {INSTALL_DEADLINE_S} s")
        if not ran.returncode:
            return
        said = ran.stdout[-3000:]
    pytest.fail(f"npm ci in {folder} failed; these tests need an npm registry once:\n{said}")
