"""The stock Python SDK behind a load balancer that sends each request to any of two APIs.

`just balanced-tests` runs all conformance tests that way; these run always.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, Literal

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from testkit.sdk import DEADLINE_S
from testkit.stack import Stack
from testkit.wait import until

Transport = Literal["sse", "websocket"]
RUNS: Final = 20
QUESTIONS: Final = 5


@pytest.fixture
async def sdk(stack: Stack) -> AsyncIterator[LangGraphClient]:
    """A client of two APIs."""
    await asyncio.to_thread(lambda: stack.start(apis=2).balance())
    async with get_client(url=stack.url) as client:
        yield client


@pytest.mark.promise("run.start", reference="not recorded", aegra="not recorded")
@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_every_instance_knows_which_run_a_watcher_is_for(sdk: LangGraphClient, transport: Transport) -> None:
    """`output` is that of the run that was started, also when the watcher, the command and the content come to
    different instances and the run takes milliseconds: on used threads, on new ones, and around a question."""
    used = str((await sdk.threads.create())["thread_id"])
    for steps in range(1, RUNS + 1):
        for thread_id in (used, None):
            async with (
                asyncio.timeout(DEADLINE_S),
                sdk.threads.stream(thread_id, assistant_id="counter", transport=transport) as thread,
            ):
                await thread.run.start(input={"steps": steps, "delay_s": 0.0})
                counted: Any = await thread.output
                assert counted["count"] == steps
    for amount in range(QUESTIONS):
        async with (
            asyncio.timeout(DEADLINE_S),
            sdk.threads.stream(assistant_id="approval", transport=transport) as thread,
        ):
            await thread.run.start(input={"amount": amount})
            await until(lambda: thread.interrupted)
            await thread.run.respond("yes")
            answered: Any = await thread.output
            assert answered["result"] == "refunded"
