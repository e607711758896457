"""The same flows with the oldest SDK that knows protocol v2, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from testkit.stack import Stack

FOLDER: Final = Path(__file__).parent
LOCK: Final = FOLDER / "old-sdk.lock"
VERSION: Final = "0.4.3"
FLOWS: Final = ("test_streams.py", "test_interrupts.py", "test_projections.py")
LONG_REPLAY: Final = "test_threads.py::test_a_long_replay_reaches_a_slow_consumer"
CHOSEN: Final = "sse and not blocking and not in_a_subgraph_is_answered"
"""Its blocking client waits for a heartbeat at each close. What is opened right behind an answer comes back
empty at times, because the SDK swaps its stream then."""
INSTALL_DEADLINE_S: Final = 120.0
DEADLINE_S: Final = 300.0


@pytest.fixture(scope="module")
def old_sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with that SDK alone; what it needs comes from this environment."""
    folder = tmp_path_factory.mktemp("old-sdk")
    uv = Path(sys.executable).parent / "uv"
    command = [str(uv), "pip", "install", "--system-certs", "--quiet", "--target", str(folder), "--no-deps",
               "--require-hashes", "-r", str(LOCK)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_DEADLINE_S)
    if done.returncode:
        pytest.skip(f"cannot install {LOCK.name}: {done.stderr[-300:]}")
    return folder


@pytest.mark.promise("langgraph-sdk 0.4.3", reference="not recorded", aegra="not recorded")
def test_the_oldest_sdk(live: Stack, old_sdk: Path) -> None:
    """The asynchronous flows of the newest SDK over SSE pass with 0.4.3 too."""
    run_with(old_sdk, live, *FLOWS)


@pytest.mark.promise(
    "langgraph-sdk 0.4.3", reference="12,000 of 12,000", aegra="9,996 of 12,000: its list is capped at 10,000"
)
def test_a_long_replay_reaches_the_oldest_sdk(live: Stack, old_sdk: Path) -> None:
    """A replay of 20,000 events reaches a consumer of 0.4.3 that awaits at each, whole and in order."""
    run_with(old_sdk, live, LONG_REPLAY)


def run_with(old_sdk: Path, live: Stack, *flows: str) -> None:
    """Run flows of the newest SDK with the old one, in a process of its own. Raises: AssertionError."""
    env = {
        **os.environ,
        "CONFORMANCE_URL": live.url,
        "CONFORMANCE_SDK": VERSION,
        "CONFORMANCE_REPETITIONS": "2",
        "PYTHONPATH": os.pathsep.join([str(old_sdk), *(path for path in sys.path if path)]),
    }
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-k", CHOSEN]
    command += [str(FOLDER / flow) for flow in flows]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stdout[-4000:]
