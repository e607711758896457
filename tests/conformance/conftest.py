"""What the JavaScript clients talk to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.node import require_node
from testkit.servers import NatsServer
from testkit.stack import Stack, fresh_stack

GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"


@pytest.fixture(scope="session")
def node() -> None:
    """Skips on a machine without Node, before servers are started for nothing."""
    require_node()


@pytest.fixture(scope="session")
def client_session_stack(
    node: None, nats_server: NatsServer, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A running stack on graphs for clients."""
    with fresh_stack(nats_server.url, postgres_dsn, tmp_path_factory.mktemp("client-stack"), GRAPHS) as opened:
        yield opened.start_shared()


@pytest.fixture
def client_stack(client_session_stack: Stack) -> Iterator[Stack]:
    """The stack for clients. Who kills its API starts another on the same port. Its logs are shown of failed tests."""
    offsets = client_session_stack.log_offsets()
    yield client_session_stack
    print(client_session_stack.logs(offsets))
