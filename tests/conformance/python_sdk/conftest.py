"""The unmodified Python SDK, against a running stack or against the address in `CONFORMANCE_URL`.

The address is how `test_old_sdk.py` runs these same flows in a process of its own with an older SDK.
"""

import os
from collections.abc import AsyncIterator, Iterator
from typing import Final, Literal

import langgraph_sdk
import pytest
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.client import LangGraphClient, SyncLangGraphClient

URL_VARIABLE: Final = "CONFORMANCE_URL"
SDK_VARIABLE: Final = "CONFORMANCE_SDK"


@pytest.fixture(params=["sse", "websocket"])
def transport(request: pytest.FixtureRequest) -> Literal["sse", "websocket"]:
    """How the SDK receives events."""
    return "websocket" if request.param == "websocket" else "sse"


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """The server under test."""
    assert os.environ.get(SDK_VARIABLE, langgraph_sdk.__version__) == langgraph_sdk.__version__
    given = os.environ.get(URL_VARIABLE)
    return given or str(request.getfixturevalue("live").url)


@pytest.fixture
async def sdk(url: str) -> AsyncIterator[LangGraphClient]:
    """The asynchronous client."""
    async with get_client(url=url) as client:
        yield client


@pytest.fixture
def sync_sdk(url: str) -> Iterator[SyncLangGraphClient]:
    """The blocking client."""
    with get_sync_client(url=url) as client:
        yield client
