"""The one timer of all open streams and sockets, and the word that ends them.

A thousand idle streams with timers of their own cost the API several times what this does. They are not woken at once:
five thousand keepalives in one go would hold the loop, and with it everybody's events, for a tenth of a second.
"""

import asyncio
from typing import Final

from slipstream_schemas.limits import SSE_HEARTBEAT_S

STEPS: Final = 50
"""Of a beat: a group of streams has its turn at each."""


class Pulse:
    """What one stream hears of the heart. `wake` is set at each of its beats, and by whoever else has news for it."""

    __slots__ = ("beats", "group", "wake")

    def __init__(self) -> None:
        self.beats = 0
        self.wake = asyncio.Event()
        self.group = 0


class Heart:
    """Beats for each stream every `SSE_HEARTBEAT_S`."""

    def __init__(self) -> None:
        self.is_closing = False
        self._groups: list[set[Pulse]] = [set() for _ in range(STEPS)]

    def join(self, pulse: Pulse) -> None:
        """Beat for a stream from now on."""
        pulse.group = min(range(STEPS), key=lambda group: len(self._groups[group]))
        self._groups[pulse.group].add(pulse)
        if self.is_closing:
            # A request that came in while the process begins to stop would wait for a beat, and the process for it.
            pulse.wake.set()

    def leave(self, pulse: Pulse) -> None:
        """The stream is over."""
        self._groups[pulse.group].discard(pulse)

    def close(self) -> None:
        """End every stream."""
        self.is_closing = True
        for group in self._groups:
            for pulse in group:
                pulse.wake.set()

    async def run(self) -> None:
        """Beat for ever."""
        now_s = asyncio.get_running_loop().time
        due_s = now_s()
        while True:
            for group in range(STEPS):
                # What a blocked loop has missed is not made up for: nobody could have read it meanwhile.
                due_s = max(due_s + SSE_HEARTBEAT_S / STEPS, now_s())
                await asyncio.sleep(due_s - now_s())
                self._beat(group)

    def beat(self) -> None:
        """One beat of every stream."""
        for group in range(STEPS):
            self._beat(group)

    def _beat(self, group: int) -> None:
        for pulse in self._groups[group]:
            pulse.beats += 1
            pulse.wake.set()
