"""Named points of a run's life at which a test kills the process, to prove what happens next."""

import os
import signal
from typing import Literal

Point = Literal[
    "created", "delivered", "leased", "started", "output", "ended", "terminal", "next_work", "acknowledged",
    "pending_cancelled", "state_committed", "webhook_claimed", "webhook_sent", "thread_deleted",
]  # fmt: skip


class Crashpoint:
    """Kills the process at the chosen point; without a choice it does nothing."""

    def __init__(self, chosen: str) -> None:
        self._chosen = chosen

    def reach(self, point: Point) -> None:
        """The run is at `point`."""
        if point == self._chosen:
            os.kill(os.getpid(), signal.SIGKILL)
