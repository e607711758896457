"""The stock React hooks in a page: those of protocol v2 and of v1, and what a restart of the API does to them.

The page lives in Node: happy-dom is its document. A real browser adds the network rules of another origin, which
`tests/integration/test_cors.py` holds.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testkit.node import RUN_DEADLINE_S, run_tests
from testkit.stack import Stack
from testkit.wait import until_now

FOLDER = Path(__file__).parent


@pytest.mark.parametrize("name", ["v2", "v1"])
def test_hooks(client_stack: Stack, name: str) -> None:
    run_tests(FOLDER, name, SLIPSTREAM_URL=client_stack.url)


def test_pages_survive_a_killed_api(client_stack: Stack) -> None:
    api = client_stack.apis[0]
    port = client_stack.url.rpartition(":")[2]
    with ThreadPoolExecutor(1) as pool:
        env = {"SLIPSTREAM_URL": client_stack.url, "API_PID": str(api.pid)}
        pages = pool.submit(run_tests, FOLDER, "restart", **env)
        until_now(lambda: pages.done() or not api.is_alive, RUN_DEADLINE_S)
        if not api.is_alive:
            # Not in a thread of its own: the kernel ends a guarded process with the thread that started it.
            client_stack.spawn_api(slipstream_port=port).wait_ready()
        pages.result()
