"""Conditions with deadlines, in place of sleeps."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, overload

DEADLINE_S: Final = 20.0
POLL_S: Final = 0.01
T = TypeVar("T")


@overload
async def until(condition: Callable[[], Awaitable[T]], deadline_s: float = DEADLINE_S, what: str = "") -> T: ...
@overload
async def until(condition: Callable[[], T], deadline_s: float = DEADLINE_S, what: str = "") -> T: ...
async def until(condition: Callable[[], Any], deadline_s: float = DEADLINE_S, what: str = "") -> Any:
    """The first truthy value of `condition`, which may be async. Raises: AssertionError past the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        value: Any = condition()
        found: Any = await value if inspect.isawaitable(value) else value
        if found:
            return found
        assert time.monotonic() < end, f"not within {deadline_s} s: {what or condition}"
        await asyncio.sleep(POLL_S)


def until_now(condition: Callable[[], T], deadline_s: float = DEADLINE_S, what: str = "") -> T:
    """As `until`, for code without an event loop."""
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {deadline_s} s: {what or condition}"
        time.sleep(POLL_S)
    return found
