"""The API's process where the kernel gives few open files: `python -m testkit.poor_api`.

SIGUSR1 opens all that are left, as user code may do; SIGUSR2 gives them back.
"""

import os
import resource
import signal
from typing import Final

FILES: Final = 256
taken: list[int] = []


def take(*_: object) -> None:
    """Leave none."""
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass


def give_back(*_: object) -> None:
    """Leave them again."""
    while taken:
        os.close(taken.pop())


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES // 2, FILES))
    signal.signal(signal.SIGUSR1, take)
    signal.signal(signal.SIGUSR2, give_back)

    from slipstream_api.main import main

    main()
