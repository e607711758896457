"""Who may tell a client that its run waits or failed: the stream that carries its content, or else not before it.

The stock SDKs open a narrow stream (`lifecycle`, `input`) beside the wide one with the content. A question or a failure
on the narrow one ends all their iterators, even if the wide one has not delivered what was said before it. So a
watcher's question waits until the wide streams of the same client in this process have been sent as far, and a moment
more for what is on the way or comes from another instance.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from slipstream_schemas.limits import WATCHER_PAUSE_S, WATCHER_WAIT_S

WATCHER: Final = frozenset({"lifecycle", "input"})
"""The channels of the stream by which the stock SDKs watch a run's life."""
Key = tuple[str, str, str]


class Reader:
    """A stream that somebody follows. Everything up to the cursor `sent` has been sent to it."""

    def __init__(self, readers: "Readers", key: Key, *, is_watcher: bool) -> None:
        self._readers, self._key, self.is_watcher = readers, key, is_watcher
        self.sent = 0

    def has_sent(self, seq: int) -> None:
        """It got this far."""
        self.sent = seq
        self._readers.moved(self._key)

    async def may_ask(self, seq: int) -> None:
        """Wait until the client's other streams have what lies before `seq`, or no longer."""
        await self._readers.passed(self._key, seq)


class Readers:
    """The open streams of a process, by thread and client."""

    def __init__(self) -> None:
        self._wide: dict[Key, set[Reader]] = {}
        self._moved: dict[Key, asyncio.Event] = {}

    @contextmanager
    def joined(self, thread: str, client: tuple[str, str], *, is_watcher: bool) -> Iterator[Reader]:
        """A stream of a client, for as long as it is open. `thread` is the thread's key."""
        key = (thread, *client)
        reader = Reader(self, key, is_watcher=is_watcher)
        if reader.is_watcher:
            yield reader
            return
        self._wide.setdefault(key, set()).add(reader)
        try:
            yield reader
        finally:
            self._wide[key].discard(reader)
            if not self._wide[key]:
                del self._wide[key]
            self.moved(key)

    def moved(self, key: Key) -> None:
        """A wide stream was sent something, or is gone."""
        if (event := self._moved.pop(key, None)) is not None:
            event.set()

    async def passed(self, key: Key, seq: int) -> None:
        """Wait until every wide stream of the client is beyond `seq`, for at most `WATCHER_WAIT_S`, and a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WATCHER_WAIT_S):
                while any(reader.sent < seq for reader in self._wide.get(key, ())):
                    await self._moved.setdefault(key, asyncio.Event()).wait()
        await asyncio.sleep(WATCHER_PAUSE_S)
