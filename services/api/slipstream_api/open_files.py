"""How many clients an API has files for.

A process that may open no more files hangs up on whoever comes, and could not reach NATS or Postgres again if it lost
them. So it stops before: it keeps some files for itself, and answers clients beyond the rest with 503.
"""

import logging
import resource
import sys
import time
from contextlib import suppress
from typing import Final

from slipstream_schemas.limits import OPEN_FILES_KEPT, OPEN_FILES_MAX

log = logging.getLogger("slipstream.api")

ROOM_FEW: Final = 4000
"""Connections. Below it an operator is told when the process starts."""
SAY_EVERY_S: Final = 10.0


class Room:
    """How many connections the process may have, and whether its operator knows that there were more."""

    def __init__(self, connections_max: int = sys.maxsize) -> None:
        self.connections_max = connections_max
        self._refused = 0
        self._say_at_s = 0.0

    def is_over(self, connections: int) -> bool:
        """Whether the newest of so many connections is one too many."""
        if connections <= self.connections_max:
            return False
        self._refused += 1
        if (now_s := time.monotonic()) >= self._say_at_s:
            self._say_at_s = now_s + SAY_EVERY_S
            log.warning(
                "%d connections are as many as the limit of open files lets in; %d more were refused so far. "
                "Raise the limit (ulimit -n, LimitNOFILE) or start another API", self.connections_max, self._refused,
            )  # fmt: skip
        return True


def room_of_process() -> Room:
    """Raise the process's soft limit of open files to what it may have, and say how many connections that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # macOS has another bound behind an unlimited one.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    files = OPEN_FILES_MAX if soft == resource.RLIM_INFINITY else soft
    room = Room(max(files - OPEN_FILES_KEPT, files // 2))
    if room.connections_max < ROOM_FEW:
        log.warning(
            "the limit of %d open files leaves room for %d connections: raise it (ulimit -Hn, LimitNOFILE)",
            files, room.connections_max,
        )  # fmt: skip
    return room
