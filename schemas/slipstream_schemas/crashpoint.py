"""Named points of a run's life at which a test kills or freezes the process, to prove what happens next."""

import os
import signal
from typing import Final, Literal

Point = Literal[
    "created", "delivered", "leased", "started", "output", "executed", "ended", "terminal", "next_work",
    "acknowledged", "pending_cancelled", "state_committed", "webhook_claimed", "webhook_sent", "thread_deleted",
]  # fmt: skip
STOP: Final = "stop:"


class Crashpoint:
    """Kills the process at the chosen point, or freezes it once (`stop:<point>`); else it does nothing."""

    def __init__(self, chosen: str) -> None:
        self._chosen = chosen.removeprefix(STOP)
        self._stops = chosen.startswith(STOP)

    def reach(self, point: Point) -> None:
        """The run is at `point`."""
        if point != self._chosen:
            return
        if self._stops:
            self._chosen = ""
        os.kill(os.getpid(), signal.SIGSTOP if self._stops else signal.SIGKILL)
