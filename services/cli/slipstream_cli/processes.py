"""Child processes that never outlive us, with their output prefixed line by line."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

COLOURS: Final = {"slipstream": 36, "api": 32, "runner": 33, "projector": 35}
PR_SET_PDEATHSIG: Final = 1
STOP_DEADLINE_S: Final = 8.0
LINE_BYTES_MAX: Final = 1024 * 1024


def say(name: str, text: str) -> None:
    """One line of output."""
    colour = COLOURS.get(name.split("-")[0], 37)
    prefix = f"\x1b[{colour}m{name:>10} |\x1b[0m" if sys.stdout.isatty() else f"{name:>10} |"
    print(f"{prefix} {text}", flush=True)


def _die_with(parent: int) -> Callable[[], None]:
    """What runs in the child before its program: the kernel kills it when `parent` dies."""
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def prepare() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have died before the line above.
        if os.getppid() != parent:
            os._exit(1)

    return prepare


class Child:
    """One service."""

    def __init__(self, name: str, module: str, env: dict[str, str]) -> None:
        self.name, self._module, self._env = name, module, env
        self.process: asyncio.subprocess.Process | None = None
        self.ready = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it. From the main thread only: the kernel ties the child to the thread that made it."""
        self.ready.clear()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", self._module, env={**self._env, "PYTHONUNBUFFERED": "1"},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            start_new_session=True, preexec_fn=_die_with(os.getpid()), limit=LINE_BYTES_MAX,
        )  # fmt: skip
        self._pump = asyncio.create_task(self._show())

    async def _show(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        while True:
            try:
                line = await self.process.stdout.readline()
            except ValueError:
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            if "ready" in text:
                self.ready.set()
            say(self.name, text)

    async def wait(self) -> int:
        """Wait until it has ended; its exit code."""
        assert self.process is not None
        code = await self.process.wait()
        if self._pump is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._pump
        return code

    async def stop(self) -> None:
        """Ask it to stop, and kill it when it does not."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_DEADLINE_S):
                await process.wait()
        except TimeoutError:
            say(self.name, "did not stop in time, killing it")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
