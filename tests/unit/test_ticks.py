"""When schedules tick."""

from datetime import datetime

import pytest

from slipstream_api.ticks import next_tick
from slipstream_schemas.errors import InvalidArgument
from slipstream_schemas.limits import CRON_SCHEDULE_CHARS_MAX

CASES = [
    # Strictly behind the moment, to the second
    ("* * * * *", None, "2026-03-01T10:00:00+00:00", "2026-03-01T10:01:00+00:00"),
    ("* * * * *", None, "2026-03-01T09:59:59.999+00:00", "2026-03-01T10:00:00+00:00"),
    ("27 15 * * *", None, "2026-03-01T15:27:00+00:00", "2026-03-02T15:27:00+00:00"),
    # Six fields: seconds last
    ("* * * * * */10", None, "2026-03-01T10:00:01+00:00", "2026-03-01T10:00:10+00:00"),
    ("30 9 * * * 15", None, "2026-03-01T10:00:00+00:00", "2026-03-02T09:30:15+00:00"),
    # Names, of days, months and schedules
    ("0 9 * * MON", None, "2026-03-01T10:00:00+00:00", "2026-03-02T09:00:00+00:00"),
    ("0 0 1 jan *", None, "2026-03-01T10:00:00+00:00", "2027-01-01T00:00:00+00:00"),
    ("@daily", None, "2026-03-01T10:00:00+00:00", "2026-03-02T00:00:00+00:00"),
    # Time zones, and the nights on which clocks change
    ("0 9 * * *", "America/New_York", "2026-01-15T00:00:00+00:00", "2026-01-15T14:00:00+00:00"),
    ("0 9 * * *", "America/New_York", "2026-07-15T00:00:00+00:00", "2026-07-15T13:00:00+00:00"),
    ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00+00:00", "2026-03-29T01:00:00+00:00"),
    ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00+00:00", "2026-10-25T00:30:00+00:00"),
    ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00+00:00", "2026-10-26T01:30:00+00:00"),
    ("0 0 29 2 *", None, "2026-03-01T00:00:00+00:00", "2028-02-29T00:00:00+00:00"),
]
REFUSED = [
    "", "x", "* * * *", "* * * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * * * 60", "*/0 * * * *",
    "0 0 30 2 *", "@sometimes", "* " * CRON_SCHEDULE_CHARS_MAX,
]  # fmt: skip
ZONES = ["Mars/Olympus", "", " ", "../../etc/passwd", "/etc/passwd", "a" * 5000, "Europe", "\x00"]


def ms(text: str) -> int:
    """Unix milliseconds of an ISO time."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(("schedule", "timezone", "after", "expected"), CASES)
def test_the_next_tick(schedule: str, timezone: str | None, after: str, expected: str) -> None:
    assert next_tick(schedule, timezone, ms(after)) == ms(expected)


@pytest.mark.parametrize("schedule", REFUSED)
def test_a_bad_schedule(schedule: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        next_tick(schedule, None, ms("2026-03-01T10:00:00+00:00"))
    assert raised.value.loc == ("body", "schedule")


@pytest.mark.parametrize("zone", ZONES)
def test_a_bad_time_zone(zone: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        next_tick("* * * * *", zone, 0)
    assert raised.value.loc == ("body", "timezone")
