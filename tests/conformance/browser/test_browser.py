"""The stock React hooks in a page: those of protocol v2 and of v1, and what a restart of the API does to them.

Most pages live in Node: happy-dom is their document. The last ones live in a headless Chromium, on another origin than
the API; a machine without one skips those.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testkit.chromium import require_chromium, running_chromium
from testkit.node import RUN_DEADLINE_S, run_tests
from testkit.stack import Stack
from testkit.wait import until_now

FOLDER = Path(__file__).parent
HOOKS = [("v2", "@langchain/react"), ("v1", "@langchain/langgraph-sdk"), ("v1", "langgraph-sdk-2.0")]
"""A file of tests and whose hook it tries. Where no version is asked for, npm installs the old 2.0.0 of the SDK."""


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's program. Asked for first, so that a machine without one starts nothing else."""
    return require_chromium()


@pytest.mark.promise("useStream", reference="not recorded", aegra="not recorded")
@pytest.mark.parametrize(("name", "package"), HOOKS)
def test_hooks(client_stack: Stack, name: str, package: str) -> None:
    """The React hooks of both protocols show messages as they grow, tool calls, subgraphs, questions and failures, also
    in a page that is reloaded or opened later."""
    run_tests(FOLDER, name, SLIPSTREAM_URL=client_stack.url, SDK=package)


@pytest.mark.promise("useStream", reference="not recorded", aegra="not recorded")
def test_pages_survive_a_killed_api(client_stack: Stack) -> None:
    """A message goes on, once and whole, when the API is killed in the middle of it and another takes its place."""
    run_through_a_kill(client_stack, "restart")


@pytest.mark.promise("useStream in Chromium", reference="not recorded", aegra="not recorded")
def test_pages_of_another_origin_survive_a_killed_api(chromium: str, client_stack: Stack, tmp_path: Path) -> None:
    """In a real browser and from another origin the hook of v2, over server-sent events and over a WebSocket, and the
    reloaded one of v1 show each token once when the API is killed in the middle of a message."""
    with running_chromium(chromium, tmp_path) as address:
        run_through_a_kill(client_stack, "chromium", CHROMIUM_URL=address)


def run_through_a_kill(stack: Stack, name: str, **env: str) -> None:
    """Run a file of tests that kills the API, and start another on its port as soon as that has happened."""
    api = stack.apis[0]
    port = (api.url or "").rpartition(":")[2]
    with ThreadPoolExecutor(1) as pool:
        pages = pool.submit(run_tests, FOLDER, name, SLIPSTREAM_URL=stack.url, API_PID=str(api.pid), **env)
        until_now(lambda: pages.done() or not api.is_alive, RUN_DEADLINE_S)
        if not api.is_alive:
            # Not in a thread of its own: the kernel ends a guarded process with the thread that started it.
            stack.spawn_api(slipstream_port=port).wait_ready()
        pages.result()
