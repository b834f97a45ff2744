"""Times in the words of the admin site."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from bookit.adminsite import words

LISBON = ZoneInfo("Europe/Lisbon")
# The clocks show the hour from 01:00 twice. This is the first 01:30.
FIRST = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_a_time_that_occurs_twice_has_the_abbreviation_of_its_zone():
    assert words.moment(FIRST, LISBON) == "Sun 25 Oct, 01:30 WEST"
    assert words.moment(FIRST + HOUR, LISBON) == "Sun 25 Oct, 01:30 WET"
    period = words.period(FIRST, FIRST + HOUR, LISBON)
    assert period == "Sun 25 Oct 2026, 01:30 WEST\N{EN DASH}01:30 WET"
    assert words.hours(FIRST - HOUR, FIRST, LISBON) == "00:30\N{EN DASH}01:30 WEST"
