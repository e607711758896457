"""A headless Chromium for a test: a profile of its own, an address for whoever drives it, and a certain end."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from testkit.wait import until_now

PROGRAMS: Final = ("chromium", "/usr/bin/chromium", "chromium-browser", "google-chrome")
START_DEADLINE_S: Final = 60.0
END_DEADLINE_S: Final = 20.0
ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "about:blank",
)


def require_chromium() -> str:
    """The program: what `CHROMIUM` names, or the first on the path. Skips the test where there is none."""
    named = os.environ.get("CHROMIUM")
    for program in (named,) if named else PROGRAMS:
        if found := shutil.which(program):
            return found
    return pytest.skip(f"no Chromium: {named or 'none on the path'} (apt-get install chromium, or CHROMIUM=<program>)")


@contextmanager
def running_chromium(program: str, folder: Path) -> Iterator[str]:
    """A browser with its profile in the folder; the address for DevTools. Leaving the block kills all its processes."""
    guard = ["setpriv", "--pdeathsig=KILL", "--"] if shutil.which("setpriv") else []
    profile, log = folder / "profile", folder / "chromium.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*guard, program, f"--user-data-dir={profile}", *ARGUMENTS],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        said = profile / "DevToolsActivePort"
        until_now(lambda: process.poll() is not None or (said.exists() and "\n" in said.read_text()), START_DEADLINE_S)
        assert process.poll() is None, f"Chromium ended with {process.returncode}:\n{log.read_text()[-3000:]}"
        yield f"http://127.0.0.1:{said.read_text().splitlines()[0]}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(END_DEADLINE_S)
