"""One service process under test: started, watched, paused, killed."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

READY_DEADLINE_S: Final = 60.0
STOP_DEADLINE_S: Final = 60.0
POLL_S: Final = 0.02
PROBE_DEADLINE_S: Final = 2.0
LOG_TAIL_BYTES: Final = 6000
READY_LINE: Final = re.compile(rb"\bready\b")


class Service:
    """A running `python -m …main`. `url` is set for what serves HTTP; the others say `ready` in their log."""

    def __init__(self, name: str, module: str, env: dict[str, str], log: Path, url: str | None = None) -> None:
        self.name, self.log, self.url = name, log, url
        # A killed test session must leave nothing behind: the kernel kills what it started.
        guard = ["setpriv", "--pdeathsig=KILL", "--"] if shutil.which("setpriv") else []
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [*guard, sys.executable, "-m", module],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs (a paused one does)."""
        return self.process.poll() is None

    @property
    def is_stopped(self) -> bool:
        """Whether the process stands still (SIGSTOP), by its own doing or another's."""
        with contextlib.suppress(ChildProcessError):
            found = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
            return found is not None and found.si_status == signal.SIGSTOP
        return False

    def is_ready(self) -> bool:
        """Whether it serves. Raises: AssertionError when it has ended."""
        assert self.is_alive, f"{self.name} ended with {self.process.returncode}:\n{self.log_tail()}"
        if self.url is None:
            return READY_LINE.search(self.log.read_bytes()) is not None
        try:
            with urllib.request.urlopen(f"{self.url}/ready", timeout=PROBE_DEADLINE_S) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def wait_ready(self, deadline_s: float = READY_DEADLINE_S) -> "Service":
        """Wait without an event loop until it serves."""
        end = time.monotonic() + deadline_s
        while not self.is_ready():
            assert time.monotonic() < end, f"{self.name} is not ready in {deadline_s} s:\n{self.log_tail()}"
            time.sleep(POLL_S)
        return self

    async def ready(self, deadline_s: float = READY_DEADLINE_S) -> "Service":
        """Wait until it serves, while the test's own tasks go on."""
        end = time.monotonic() + deadline_s
        while not await asyncio.to_thread(self.is_ready):
            assert time.monotonic() < end, f"{self.name} is not ready in {deadline_s} s:\n{self.log_tail()}"
            await asyncio.sleep(POLL_S)
        return self

    def kill(self) -> None:
        """End it as a crash does, and wait until it is gone."""
        if self.is_alive:
            self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): alive to the kernel, dead to everyone else."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to stop (SIGTERM) and return at once."""
        self.process.terminate()

    async def ended(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """Wait until it has ended; its exit code. Raises: AssertionError."""
        end = time.monotonic() + deadline_s
        while (code := self.process.poll()) is None:
            assert time.monotonic() < end, f"{self.name} did not end in {deadline_s} s:\n{self.log_tail()}"
            await asyncio.sleep(POLL_S)
        return code

    def log_text(self) -> str:
        """All it has written so far."""
        return self.log.read_text(errors="replace")

    def log_tail(self, offset: int = 0) -> str:
        """The end of what it wrote after `offset` bytes."""
        written = self.log.read_bytes()[offset:]
        return written[-LOG_TAIL_BYTES:].decode(errors="replace")
