"""The unmodified JavaScript SDK against a running stack: the newest, one from before 1.13, and 2.0.0.

The last is older than both and knows runs and threads alone, but npm installs it where no version is asked for. The
other two receive events over server-sent events and over a WebSocket (`transport: "websocket"`); their commands then
travel on the socket too.
"""

from pathlib import Path

import pytest

from testkit.node import run_tests
from testkit.stack import Stack

FOLDER = Path(__file__).parent
PACKAGES = {"1.15.0": "@langchain/langgraph-sdk", "1.9.31": "langgraph-sdk-1.9", "2.0.0": "langgraph-sdk-2.0"}
"""The name that each version has in `package.json`."""
WHOLE = ("1.15.0", "1.9.31")
"""Those with streams of threads, and with all that a cron has."""


def run(stack: Stack, name: str, version: str, **env: str) -> None:
    """Run a file of tests with that version."""
    run_tests(FOLDER, name, SLIPSTREAM_URL=stack.url, SDK=PACKAGES[version], SDK_VERSION=version, **env)


@pytest.mark.promise("@langchain/langgraph-sdk runs, threads", reference="not recorded", aegra="not recorded")
@pytest.mark.parametrize("version", PACKAGES)
@pytest.mark.parametrize("name", ["v1", "chat_ui"])
def test_runs_and_threads(client_stack: Stack, name: str, version: str) -> None:
    """The JavaScript client streams, joins, resumes, cancels and lists runs of protocol v1, as Agent Chat UI does."""
    run(client_stack, name, version)


@pytest.mark.promise("@langchain/langgraph-sdk threads.stream", reference="not recorded", aegra="without the WebSocket")
@pytest.mark.parametrize("version", WHOLE)
@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_thread_streams(client_stack: Stack, transport: str, version: str) -> None:
    """`client.threads.stream` of JavaScript yields everything live and replayed, resumes when its connection breaks,
    and its commands are answered, over server-sent events and over a WebSocket."""
    run(client_stack, "v2", version, TRANSPORT=transport)


@pytest.mark.promise("@langchain/langgraph-sdk StreamController", reference="not recorded", aegra="not recorded")
@pytest.mark.parametrize("version", WHOLE)
def test_stream_controller(client_stack: Stack, version: str) -> None:
    """What the hooks are made of queues, replaces and forks runs, and answers a nested question from the thread's state
    alone."""
    run(client_stack, "controller", version)


@pytest.mark.promise("@langchain/langgraph-sdk store, crons", reference="not recorded", aegra="not recorded")
@pytest.mark.parametrize("version", WHOLE)
def test_store_and_crons(client_stack: Stack, version: str) -> None:
    """`client.store` and `client.crons` of JavaScript put, find, change and delete, and a cron runs."""
    run(client_stack, "kept", version)
