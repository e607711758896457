"""The API's process with a short patience for clients that do not read: `python -m testkit.hasty_api`."""

from slipstream_schemas import limits

HEARTBEAT_S = 0.5
SEND_DEADLINE_S = 3.0
# Before anything takes the values: to an operator they are no settings.
for name, value in (("SSE_HEARTBEAT_S", HEARTBEAT_S), ("SSE_SEND_DEADLINE_S", SEND_DEADLINE_S)):
    setattr(limits, name, value)

if __name__ == "__main__":
    from slipstream_api.main import main

    main()
