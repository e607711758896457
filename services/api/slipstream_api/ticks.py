"""When a cron's schedule ticks.

Five fields, or six with the seconds last, as croniter has them, which the servers that applications come from use; and
the usual names. In a time zone, five fields follow Debian's cron through the change of clocks.
"""

from datetime import datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from slipstream_schemas.errors import InvalidArgument
from slipstream_schemas.limits import CRON_SCHEDULE_CHARS_MAX

NAMES = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
UTC = "UTC"


def next_tick(schedule: str, timezone: str | None, after_ms: int) -> int | None:
    """The first tick behind a moment, both in Unix milliseconds; None for a schedule that never ticks again.

    Raises: InvalidArgument.
    """
    start = datetime.fromtimestamp(after_ms / 1000, _zone(UTC if timezone is None else timezone))
    try:
        return round(next(CronSim(_expression(schedule), start)).timestamp() * 1000)
    except StopIteration:
        return None
    except CronSimError as error:
        raise InvalidArgument(f"Expected a cron schedule of 5 or 6 fields: {error}", ("body", "schedule")) from error


def _expression(schedule: str) -> str:
    if len(schedule) > CRON_SCHEDULE_CHARS_MAX:
        raise InvalidArgument(f"A schedule has at most {CRON_SCHEDULE_CHARS_MAX} characters", ("body", "schedule"))
    fields = NAMES.get(schedule.strip().lower(), schedule).split()
    return " ".join([fields[5], *fields[:5]] if len(fields) == 6 else fields)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidArgument("Expected an IANA time zone, as in Europe/Berlin", ("body", "timezone")) from error
