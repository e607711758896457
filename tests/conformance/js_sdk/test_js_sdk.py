"""The unmodified JavaScript SDK against a running stack: the newest that speaks v2, and one from before 1.13."""

from pathlib import Path

import pytest

from testkit.node import run_tests
from testkit.stack import Stack

FOLDER = Path(__file__).parent
PACKAGES = {"1.15.0": "@langchain/langgraph-sdk", "1.9.31": "langgraph-sdk-1.9"}
"""The name that each version has in `package.json`."""


@pytest.mark.parametrize("version", PACKAGES)
@pytest.mark.parametrize("name", ["v1", "chat_ui", "v2", "controller"])
def test_javascript_sdk(client_stack: Stack, name: str, version: str) -> None:
    run_tests(FOLDER, name, SLIPSTREAM_URL=client_stack.url, SDK=PACKAGES[version], SDK_VERSION=version)
