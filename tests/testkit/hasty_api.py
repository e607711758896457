"""The API's process with a short patience for clients that do not read: `python -m testkit.hasty_api`."""

from typing import Final

HEARTBEAT_S: Final = 0.5
SEND_DEADLINE_S: Final = 3.0
PING_S: Final = 0.5

if __name__ == "__main__":
    from slipstream_schemas import limits

    # Before anything takes the values: to an operator they are no settings.
    for name, value in (
        ("SSE_HEARTBEAT_S", HEARTBEAT_S), ("SSE_SEND_DEADLINE_S", SEND_DEADLINE_S), ("SOCKET_PING_S", PING_S),
    ):  # fmt: skip
        setattr(limits, name, value)

    from slipstream_api.main import main

    main()
