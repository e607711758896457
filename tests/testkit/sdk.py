"""Reading the stock Python SDK's streams to their end, within a deadline."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import pytest

DEADLINE_S: Final = 60.0
HELLO: Final[dict[str, Any]] = {"messages": [{"role": "user", "content": "hello"}]}
T = TypeVar("T")
one_instance = pytest.mark.skipif(
    os.environ.get("BALANCED_APIS", "1") != "1",
    reason="of iterators that start at once the SDK closes one whose answer is overtaken by another instance's",
)


def within(flow: Callable[[], T], deadline_s: float = DEADLINE_S) -> T:
    """What a blocking flow returns; see `all_within`."""
    return all_within(flow, deadline_s=deadline_s)[0]


def all_within(*flows: Callable[[], T], deadline_s: float = DEADLINE_S) -> list[T]:
    """What blocking flows return that run at once. One that hangs fails the test and is left behind in its thread.

    Raises: AssertionError past the deadline, and what the flows raise.
    """
    answers: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            answers[number] = flows[number]()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(flows))]
    end = time.monotonic() + deadline_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
        assert not thread.is_alive(), f"a flow hangs: not over within {deadline_s} s"
    if errors:
        raise errors[0]
    return [answers[number] for number in range(len(flows))]


async def text_of(message: Any) -> str:
    """A message's whole text, token by token; it must be what the message says of itself at its end."""
    tokens = [str(token) async for token in message.text]
    whole = str(await message.text)
    assert "".join(tokens) == whole
    return whole


async def texts_of(messages: Any) -> list[str]:
    """The texts of all messages of a projection, each read while the others still come."""
    reading: list[asyncio.Task[str]] = []
    async for message in messages:
        reading.append(asyncio.create_task(text_of(message)))
    return list(await asyncio.gather(*reading))


async def all_of(stream: Any) -> list[Any]:
    """Everything an asynchronous iterator yields."""
    return [item async for item in stream]


async def command(sdk: Any, thread_id: str, method: str, **params: Any) -> dict[str, Any]:
    """A command that the SDK has no method for; its whole answer."""
    body = {"id": 7, "method": method, "params": params}
    return dict(await sdk.http.post(f"/threads/{thread_id}/commands", json=body))
