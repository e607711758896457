#!/usr/bin/env python3
"""Set up Slipstream's environment and run something in it. Needs Python 3.11+ and pip, nothing else.

    python3 dev.py                      run the example graphs: NATS, Postgres, API, runner and projector
    python3 dev.py test                 every check and every test
    python3 dev.py test -k resume       the tests whose name matches, without the checks
    python3 dev.py slipstream dev --port 9000 --config my/langgraph.json
    python3 dev.py just --list          the recipes of a contributor
    python3 dev.py <anything>           run that inside the environment

The first call makes .venv and installs the locked requirements (about a minute); later ones start at once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
LOCK = ROOT / "requirements-dev.lock"
UV = "uv>=0.13"
STAMP = VENV / ".slipstream-stamp"
CHECKS = (
    ("format", ["ruff", "format", "--check", "."]),
    ("lint", ["ruff", "check", "."]),
    ("imports", ["lint-imports"]),
    ("mypy", ["mypy", "."]),
    ("pyright", ["basedpyright"]),
)


def say(text: str) -> None:
    """One line of progress."""
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


def fail(text: str) -> NoReturn:
    """Say what to do next and stop."""
    raise SystemExit(f"dev.py: {text}")


def place() -> str:
    """Where the environment lies and what it is made from; scripts in it name both."""
    return f"{ROOT} {PYTHON.resolve()}"


def wanted_stamp() -> str:
    """Changes when the environment must be brought up to date."""
    content = LOCK.read_bytes() + b"\0" + (ROOT / "pyproject.toml").read_bytes()
    return f"{place()}\n{hashlib.sha256(content).hexdigest()}"


def is_set_up(stamp: str) -> bool:
    """Whether .venv is what the stamp says."""
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == stamp


def run(step: str, command: list[str]) -> None:
    """Run one step of the set-up; show its output only when it fails."""
    begun = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        fail(f"{step} failed ({' '.join(command[:4])} …):\n{done.stdout[-4000:]}")
    say(f"{step} ({time.monotonic() - begun:.1f} s)")


def make_environment() -> None:
    """Make a bare .venv that holds uv alone.

    Debian's python3 has no ensurepip, and its pip may not touch the system: the system's pip, pointed at a bare
    environment, avoids both. A pip before 22.3 cannot be pointed elsewhere; then the environment needs one of its own.
    """
    shutil.rmtree(VENV, ignore_errors=True)
    probe = [sys.executable, "-m", "pip", "--python", sys.executable, "--version"]
    if subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0:
        run("made the environment", [sys.executable, "-m", "venv", "--without-pip", str(VENV)])
        run("installed uv", [sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "--quiet", UV])
    elif importlib.util.find_spec("ensurepip"):
        run("made the environment", [sys.executable, "-m", "venv", str(VENV)])
        run("installed uv", [str(PYTHON), "-m", "pip", "install", "--quiet", UV])
    else:
        fail("this Python has neither pip 22.3+ nor ensurepip. On Debian: apt-get install python3-pip")


def wait_for_others(file: IO[str]) -> None:
    """One set-up at a time: hold a lock on the file until it is closed."""
    try:
        import fcntl  # not on Windows, where nobody has asked for two at once
    except ImportError:
        return
    fcntl.flock(file, fcntl.LOCK_EX)


def set_up() -> None:
    """Make .venv as the lock file says, unless it is so already."""
    if sys.version_info < (3, 11):
        fail(f"Slipstream needs Python 3.11 or later, this is {sys.version.split()[0]}. Try python3.11 dev.py")
    stamp = wanted_stamp()
    if is_set_up(stamp):
        return
    with Path(__file__).open() as file:
        wait_for_others(file)
        if not is_set_up(stamp):
            install()
            STAMP.write_text(wanted_stamp())


def install() -> None:
    """Install the locked requirements and Slipstream itself, for editing."""
    say("setting up .venv" if PYTHON.exists() else "first start: setting up .venv")
    uv = BIN / "uv"
    moved = STAMP.exists() and STAMP.read_text().split("\n")[0] != place()
    if moved or not PYTHON.exists() or not uv.exists():
        make_environment()
    # The system's certificates: behind a company's proxy, uv's own list knows too little.
    command = [str(uv), "pip", "install", "--system-certs", "--python", str(PYTHON), "--compile-bytecode", "--quiet"]
    run("installed the locked requirements", [*command, "--require-hashes", "-r", str(LOCK)])
    run("installed Slipstream", [*command, "--no-deps", "--no-build-isolation", "-e", str(ROOT)])


def environment() -> dict[str, str]:
    """The environment of what runs inside."""
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "VIRTUAL_ENV": str(VENV), "PATH": path, "PYTHONUNBUFFERED": "1"}


def test(arguments: list[str]) -> int:
    """The checks, then the tests; with arguments only pytest with them."""
    env, failed = environment(), []
    for name, command in () if arguments else CHECKS:
        begun = time.monotonic()
        code = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, env=env).returncode
        say(f"{name}: {'ok' if code == 0 else 'FAILED'} ({time.monotonic() - begun:.1f} s)")
        if code:
            failed.append(name)
    pytest = [str(BIN / "pytest"), *(arguments or ["-n", "2", "--dist", "loadfile"])]
    if subprocess.run(pytest, cwd=ROOT, env=env).returncode:
        failed.append("tests")
    if failed:
        say(f"FAILED: {', '.join(failed)}")
    return 1 if failed else 0


def main(arguments: list[str]) -> int:
    """Set up, then run what the arguments name."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    set_up()
    if arguments[:1] == ["test"]:
        return test(arguments[1:])
    command = arguments or ["slipstream", "dev", "--config", str(ROOT / "examples" / "langgraph.json")]
    program = BIN / command[0]
    env = environment()
    target = str(program) if program.exists() else shutil.which(command[0], path=env["PATH"])
    if target is None:
        fail(f"no command {command[0]!r} in the environment. See python3 dev.py --help")
    return os.execve(target, command, env)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
