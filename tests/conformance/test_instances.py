"""The stock Python SDK behind a load balancer that sends each request to any of two APIs.

`just balanced-tests` runs all conformance tests that way; these run always.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from testkit.sdk import DEADLINE_S, HELLO, all_of
from testkit.stack import Stack

Transport = Literal["sse", "websocket"]
REPETITIONS: Final = int(os.environ.get("CONFORMANCE_REPETITIONS", "10"))
GRAPHS: Final = Path(__file__).parents[1] / "testkit" / "graphs" / "langgraph.json"
SUMMARY: Final = "The refund is due because the parcel never arrived."


@pytest.fixture
async def sdk(stack: Stack) -> AsyncIterator[LangGraphClient]:
    """A client of two APIs."""
    stack.config = GRAPHS
    await asyncio.to_thread(lambda: stack.start(apis=2).balance())
    async with get_client(url=stack.url) as client:
        yield client


@pytest.mark.promise("run.start", reference="not recorded", aegra="not recorded")
@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_every_instance_knows_which_run_a_watcher_is_for(sdk: LangGraphClient, transport: Transport) -> None:
    """`output` is that of the run that was started, also when the watcher, the command and the content come to
    different instances and the run takes milliseconds: on used threads, on new ones, and around a question."""
    used = str((await sdk.threads.create())["thread_id"])
    for number in range(2 * REPETITIONS):
        # A used thread counts on from where it is; a new one must stay below LangGraph's limit of steps.
        for thread_id, steps in ((used, number + 1), (None, number % 20 + 1)):
            async with (
                asyncio.timeout(DEADLINE_S),
                sdk.threads.stream(thread_id, assistant_id="counter", transport=transport) as thread,
            ):
                await thread.run.start(input={"steps": steps, "delay_s": 0.0})
                counted: Any = await thread.output
                assert counted["count"] == steps
    for _ in range(REPETITIONS // 2):
        async with (
            asyncio.timeout(DEADLINE_S),
            sdk.threads.stream(assistant_id="briefing", transport=transport) as thread,
        ):
            await thread.run.start(input=HELLO)
            # One iterator alone: of several that start at once the SDK may close one before it is answered.
            values: list[Any] = await all_of(thread.values)
            assert values[-1]["messages"][-1]["content"] == SUMMARY, "what came before the question is not cut off"
            await thread.run.respond("Ada")
            signed: Any = await thread.output
            assert [each["content"] for each in signed["messages"]] == ["hello", SUMMARY, "Signed by Ada", SUMMARY]
