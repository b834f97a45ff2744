"""A wall-clock time in a zone maps to the right instant. Times are parsed and shown."""

from bisect import bisect_left
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookit.tests.clocks import DAY, MINUTE, ODD_DAYS, faces
from bookit.times import day_end, day_start, parse_day_or_instant, time_of_day, wall_clock


@pytest.mark.parametrize(
    ("zone", "day", "minutes", "instant"),
    [
        ("UTC", date(2026, 12, 31), 570, "2026-12-31T09:30Z"),
        ("UTC", date(2026, 12, 31), 1440, "2027-01-01T00:00Z"),
        ("Asia/Kathmandu", date(2026, 5, 1), 0, "2026-04-30T18:15Z"),
        ("Europe/Lisbon", date(2026, 7, 1), 540, "2026-07-01T08:00Z"),
        ("Europe/Lisbon", date(2026, 12, 1), 540, "2026-12-01T09:00Z"),
        # The times from 01:00 to 02:00 do not exist. All of them map to the instant of the jump.
        ("Europe/Lisbon", date(2026, 3, 29), 59, "2026-03-29T00:59Z"),
        ("Europe/Lisbon", date(2026, 3, 29), 60, "2026-03-29T01:00Z"),
        ("Europe/Lisbon", date(2026, 3, 29), 90, "2026-03-29T01:00Z"),
        ("Europe/Lisbon", date(2026, 3, 29), 119, "2026-03-29T01:00Z"),
        ("Europe/Lisbon", date(2026, 3, 29), 120, "2026-03-29T01:00Z"),
        ("Europe/Lisbon", date(2026, 3, 29), 121, "2026-03-29T01:01Z"),
        # The times from 01:00 to 02:00 come twice. The first occurrence counts.
        ("Europe/Lisbon", date(2026, 10, 25), 60, "2026-10-25T00:00Z"),
        ("Europe/Lisbon", date(2026, 10, 25), 119, "2026-10-25T00:59Z"),
        ("Europe/Lisbon", date(2026, 10, 25), 120, "2026-10-25T02:00Z"),
        # The clock jumps by half an hour at 02:00.
        ("Australia/Lord_Howe", date(2026, 10, 4), 135, "2026-10-03T15:30Z"),
        ("Australia/Lord_Howe", date(2026, 10, 4), 150, "2026-10-03T15:30Z"),
        ("Australia/Lord_Howe", date(2026, 4, 5), 105, "2026-04-04T14:45Z"),
        # A day that starts at 01:00, and a day whose midnight comes twice.
        ("America/Sao_Paulo", date(2017, 10, 15), 0, "2017-10-15T03:00Z"),
        ("America/Sao_Paulo", date(2017, 10, 15), 60, "2017-10-15T03:00Z"),
        ("America/Sao_Paulo", date(2017, 10, 14), 1440, "2017-10-15T03:00Z"),
        ("America/Havana", date(2026, 11, 1), 0, "2026-11-01T04:00Z"),
        ("America/Havana", date(2026, 11, 1), 60, "2026-11-01T06:00Z"),
        # An evening hour that comes twice, before a midnight that comes once.
        ("America/Sao_Paulo", date(2018, 2, 17), 1380, "2018-02-18T01:00Z"),
        ("America/Sao_Paulo", date(2018, 2, 17), 1440, "2018-02-18T03:00Z"),
        # A whole day that does not exist.
        ("Pacific/Apia", date(2011, 12, 29), 1440, "2011-12-30T10:00Z"),
        ("Pacific/Apia", date(2011, 12, 30), 0, "2011-12-30T10:00Z"),
        ("Pacific/Apia", date(2011, 12, 30), 600, "2011-12-30T10:00Z"),
        ("Pacific/Apia", date(2011, 12, 30), 1440, "2011-12-30T10:00Z"),
        ("Pacific/Apia", date(2011, 12, 31), 1, "2011-12-30T10:01Z"),
    ],
)
def test_a_wall_clock_time_maps_to_its_instant(zone, day, minutes, instant):
    found = wall_clock(day, minutes, ZoneInfo(zone))
    assert found == datetime.fromisoformat(instant)
    assert found.tzinfo is UTC


@pytest.mark.parametrize("odd", ODD_DAYS)
def test_every_minute_agrees_with_a_clock_model(odd):
    """A time maps to the first minute at which the model shows this time or a later time.

    The test compares every minute of five days.
    """
    name, day = ODD_DAYS[odd]
    start, shown = faces(name, day, 6)  # longer than the five days, on both sides
    for number in range(5 * 1440):
        wanted = datetime.combine(day, time.min) - 2 * DAY + number * MINUTE
        expected = start + bisect_left(shown, wanted) * MINUTE
        on = wanted.date()
        assert wall_clock(on, wanted.hour * 60 + wanted.minute, ZoneInfo(name)) == expected, wanted
        if wanted.hour == wanted.minute == 0:
            assert wall_clock(on - DAY, 1440, ZoneInfo(name)) == expected, wanted


@given(
    odd=st.sampled_from(sorted(ODD_DAYS)),
    days=st.integers(-400, 400),
    minutes=st.tuples(st.integers(0, 1440), st.integers(0, 1440)),
)
def test_a_later_wall_clock_time_is_never_an_earlier_instant(odd, days, minutes):
    name, day = ODD_DAYS[odd]
    tz = ZoneInfo(name)
    first, last = sorted(minutes)
    on = day + timedelta(days=days)
    assert wall_clock(on, first, tz) <= wall_clock(on, last, tz) <= wall_clock(on + DAY, 0, tz)
    assert wall_clock(on, 1440, tz) == wall_clock(on + DAY, 0, tz)


@pytest.mark.parametrize("odd", ODD_DAYS)
def test_a_day_ends_when_the_next_day_starts(odd):
    name, day = ODD_DAYS[odd]
    tz = ZoneInfo(name)
    for number in range(-3, 4):
        on = day + number * DAY
        assert day_start(on, tz) == wall_clock(on, 0, tz), on
        assert day_end(on, tz) == day_start(on + DAY, tz), on


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2026-1-5", "Must be a date, for example 2026-12-01, or a date and time with an offset"),
        ("tomorrow", "Must be a date, for example 2026-12-01, or a date and time with an offset"),
        ("2026-12-01T10:00:00", "Must be a date and time with an offset"),
        ("2026-12-01T10:00:00 01:00", r"in a query, write \+ as %2B"),
        ("2026-02-30", "This date does not exist."),
    ],
)
def test_the_error_for_a_mistyped_date_or_time_says_what_to_type(text, message):
    with pytest.raises(ValueError, match=message):
        parse_day_or_instant(text)


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        ("2026-10-25T00:30Z", "02:30 CEST"),
        ("2026-10-25T01:30Z", "02:30 CET"),
        ("2026-10-25T02:30Z", "03:30"),
    ],
)
def test_a_time_that_occurs_twice_has_the_abbreviation_of_its_zone(instant, text):
    local = datetime.fromisoformat(instant).astimezone(ZoneInfo("Europe/Berlin"))
    assert time_of_day(local) == text
