"""`slipstream dev` as a process under test."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

from testkit.stack import EXAMPLES, free_port
from testkit.wait import until_now

DEADLINE_S = 60.0


class DevServer:
    """A `slipstream dev` with a log of what it says."""

    def __init__(
        self,
        state_dir: Path,
        config: Path = EXAMPLES,
        port: int | None = None,
        given: dict[str, str] | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = state_dir.parent / f"dev-{self.port}.log"
        command = [sys.executable, "-m", "slipstream_cli.main", "dev", "--config", str(config), "--port",
                   str(self.port), "--state-dir", str(state_dir)]  # fmt: skip
        unset = ("NATS_URL", "DATABASE_URL")
        env = {k: v for k, v in os.environ.items() if k not in unset and not k.startswith("SLIPSTREAM_")}
        env |= given or {}
        env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self.log.read_text()

    def ready(self) -> "DevServer":
        """Wait for its ready line."""
        until_now(self._is_ready, DEADLINE_S, "slipstream dev is ready")
        return self

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.text[-3000:]
        return "| ready in" in self.text

    def family(self) -> list[psutil.Process]:
        """It and all that it has started."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def end(self, number: int) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)
