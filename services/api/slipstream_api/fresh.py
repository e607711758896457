"""Threads that `run.start` has just created, and whose first lifecycle stream has not been opened yet.

The stock Python SDK opens its lifecycle stream, without a cursor, after `run.start` has answered. A short run may be
over by then, and a stream that began live would wait for ever. So the first such stream of such a thread begins at the
thread's beginning; any later one begins at the active run, or live, since a replay would show it the end of an old run.
"""

import time
from collections import OrderedDict
from typing import Final

REMEMBERED_S: Final = 60.0
REMEMBERED_MAX: Final = 10_000


class FreshThreads:
    """Remembers such threads for a while, in bounded memory."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, float] = OrderedDict()

    def note(self, thread_id: str) -> None:
        """`run.start` created the thread."""
        self._made[thread_id] = time.monotonic()
        if len(self._made) > REMEMBERED_MAX:
            self._made.popitem(last=False)

    def take(self, thread_id: str) -> bool:
        """Whether this is the first lifecycle stream of a fresh thread; it is no longer fresh then."""
        made = self._made.pop(thread_id, None)
        return made is not None and time.monotonic() - made < REMEMBERED_S
