"""Runs that began while nobody watched their thread, and that may be over before their watcher comes.

A watcher is a stream of `lifecycle` and `input` alone. The stock Python SDK sends its own without a cursor
beside `run.start`, or, for a thread id that it made up, after `run.start` has answered. A short run may be over when it
arrives, and a stream that began live would wait for ever. So `run.start` notes a run that nobody watches, and the next
watcher of the thread begins there. It has to come soon, since the end of an old run is what a watcher must not show.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

FRESH_REMEMBERED_S: Final = 60.0
"""A thread that `run.start` made holds no older run, so the note does no harm for longer."""
USED_REMEMBERED_S: Final = 1.0
NOTES_MAX: Final = 10_000


class UnwatchedRuns:
    """Notes of such runs in bounded memory, and how many watchers each thread (by its key) has in this process."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._notes: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def join(self, thread: str) -> Callable[[], None]:
        """A watcher has arrived. Call what this returns once, when it has gone."""
        self._open[thread] += 1

        def leave() -> None:
            self._open[thread] -= 1
            if not self._open[thread]:
                del self._open[thread]

        return leave

    def note(self, thread: str, log_seq: int, *, is_fresh: bool) -> None:
        """`run.start` was accepted; the run's first record lies behind `log_seq`."""
        if self._open[thread]:
            return
        self._notes.pop(thread, None)
        self._notes[thread] = (time.monotonic() + (FRESH_REMEMBERED_S if is_fresh else USED_REMEMBERED_S), log_seq)
        if len(self._notes) > NOTES_MAX:
            self._notes.popitem(last=False)

    def take(self, thread: str) -> int | None:
        """Behind which stream_seq the unwatched run lies that the arriving watcher is for; None without one."""
        end, log_seq = self._notes.pop(thread, (0.0, 0))
        return log_seq if time.monotonic() < end else None
