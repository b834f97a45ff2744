"""Recurrence rules follow RFC 5545, keep the wall-clock time, and are fast to evaluate."""

from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from itertools import takewhile
from time import process_time
from zoneinfo import ZoneInfo

import pytest
from dateutil import rrule
from hypothesis import assume, given
from hypothesis import strategies as st

from bookings.slots.recurrence import LONGEST_RULE, MAX_STARTS, WEEKDAYS, parse_rule

LISBON = ZoneInfo("Europe/Lisbon")
NEW_YORK = ZoneInfo("America/New_York")
# As in `bookings.slots.services.FURTHEST`, a little more than ten years.
DECADE = timedelta(days=3660)


def local(text, zone=LISBON, fold=0):
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def series(rule, first, zone=LISBON):
    """Return the starts of a rule as the clocks of the zone show them."""
    first = local(first, zone) if isinstance(first, str) else first
    starts = parse_rule(rule).starts(first.astimezone(UTC), zone, limit=first + DECADE)
    assert all(start.tzinfo is UTC for start in starts)
    return [f"{start.astimezone(zone):%Y-%m-%d %H:%M}" for start in starts]


def offsets(rule, first, zone):
    """Return the UTC offset of each start of a rule, in hours."""
    first = local(first, zone)
    starts = parse_rule(rule).starts(first.astimezone(UTC), zone, limit=first + DECADE)
    return [start.astimezone(zone).utcoffset() / timedelta(hours=1) for start in starts]


class TestWallClock:
    def test_a_series_keeps_its_time_when_summer_time_ends(self):
        rule, first = "FREQ=WEEKLY;COUNT=3", "2026-10-18T18:00"
        assert series(rule, first) == ["2026-10-18 18:00", "2026-10-25 18:00", "2026-11-01 18:00"]
        assert offsets(rule, first, LISBON) == [1, 0, 0]

    def test_a_series_keeps_its_time_when_summer_time_begins(self):
        rule, first = "FREQ=DAILY;COUNT=3", "2027-03-27T18:00"
        assert series(rule, first) == ["2027-03-27 18:00", "2027-03-28 18:00", "2027-03-29 18:00"]
        assert offsets(rule, first, LISBON) == [0, 1, 1]

    def test_a_series_keeps_its_time_when_the_clocks_change_by_half_an_hour(self):
        lord_howe = ZoneInfo("Australia/Lord_Howe")
        rule, first = "FREQ=WEEKLY;COUNT=3", "2026-09-27T10:00"
        assert offsets(rule, first, lord_howe) == [10.5, 11, 11]
        assert series(rule, first, lord_howe)[-1] == "2026-10-11 10:00"

    def test_a_time_that_the_clocks_skip_is_left_out_and_not_counted(self):
        assert series("FREQ=DAILY;COUNT=3", "2027-03-27T01:30") == [
            *("2027-03-27 01:30", "2027-03-29 01:30", "2027-03-30 01:30")
        ]

    def test_a_day_that_a_zone_skipped_is_left_out_and_not_counted(self):
        # Samoa went from 29 to 31 December 2011.
        assert series("FREQ=DAILY;COUNT=3", "2011-12-28T09:00", ZoneInfo("Pacific/Apia")) == [
            *("2011-12-28 09:00", "2011-12-29 09:00", "2011-12-31 09:00")
        ]

    def test_a_start_exactly_at_until_is_kept_although_the_clocks_skip_the_hour_before_it(self):
        rule = "FREQ=DAILY;BYHOUR=1,2;BYMINUTE=0,30;UNTIL=20270328T010000Z"
        assert series(rule, "2027-03-27T01:00")[-2:] == ["2027-03-27 02:30", "2027-03-28 02:00"]

    def test_a_time_that_the_clocks_show_twice_means_its_first_occurrence(self):
        assert offsets("FREQ=DAILY;COUNT=3", "2026-10-24T01:30", LISBON) == [1, 1, 0]

    def test_a_series_cannot_begin_at_the_second_occurrence_of_a_time(self):
        with pytest.raises(ValueError, match="start_time does not match this rule"):
            series("FREQ=DAILY;COUNT=3", local("2026-10-25T01:30", fold=1))

    def test_fractions_of_seconds_are_kept(self):
        first = datetime(2026, 12, 1, 10, 0, 0, 250_000, tzinfo=UTC)
        starts = parse_rule("FREQ=DAILY;COUNT=2").starts(first, LISBON, limit=first + DECADE)
        assert starts == [first, first + timedelta(days=1)]


# Shortened examples from RFC 5545, section 3.8.5.3. The times are in New York.
EXAMPLES = [
    ("FREQ=DAILY;COUNT=3", "1997-09-02T09:00", ["09-02", "09-03", "09-04"]),
    ("FREQ=DAILY;INTERVAL=10;COUNT=3", "1997-09-02T09:00", ["09-02", "09-12", "09-22"]),
    ("FREQ=WEEKLY;COUNT=3", "1997-09-02T09:00", ["09-02", "09-09", "09-16"]),
    (
        "FREQ=WEEKLY;UNTIL=19971007T000000Z;WKST=SU;BYDAY=TU,TH",
        "1997-09-02T09:00",
        [
            *("09-02", "09-04", "09-09", "09-11", "09-16", "09-18", "09-23", "09-25"),
            *("09-30", "10-02"),
        ],
    ),
    (
        "FREQ=WEEKLY;INTERVAL=2;UNTIL=19971001T000000Z;WKST=SU;BYDAY=MO,WE,FR",
        "1997-09-01T09:00",
        ["09-01", "09-03", "09-05", "09-15", "09-17", "09-19", "09-29"],
    ),
    (
        "FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=MO",
        "1997-08-05T09:00",
        ["08-05", "08-10", "08-19", "08-24"],
    ),
    (
        "FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=SU",
        "1997-08-05T09:00",
        ["08-05", "08-17", "08-19", "08-31"],
    ),
    ("FREQ=MONTHLY;COUNT=3;BYDAY=1FR", "1997-09-05T09:00", ["09-05", "10-03", "11-07"]),
    (
        "FREQ=MONTHLY;INTERVAL=2;COUNT=4;BYDAY=1SU,-1SU",
        "1997-09-07T09:00",
        ["09-07", "09-28", "11-02", "11-30"],
    ),
    ("FREQ=MONTHLY;COUNT=3;BYDAY=-2MO", "1997-09-22T09:00", ["09-22", "10-20", "11-17"]),
    ("FREQ=MONTHLY;COUNT=3;BYMONTHDAY=-3", "1997-09-28T09:00", ["09-28", "10-29", "11-28"]),
    (
        "FREQ=MONTHLY;COUNT=4;BYMONTHDAY=2,15",
        "1997-09-02T09:00",
        ["09-02", "09-15", "10-02", "10-15"],
    ),
    ("FREQ=MONTHLY;COUNT=2;BYDAY=FR;BYMONTHDAY=13", "1998-02-13T09:00", ["02-13", "03-13"]),
    (
        "FREQ=MONTHLY;COUNT=3;BYDAY=TU,WE,TH;BYSETPOS=3",
        "1997-09-04T09:00",
        ["09-04", "10-07", "11-06"],
    ),
    (
        "FREQ=MONTHLY;COUNT=3;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2",
        "1997-09-29T09:00",
        ["09-29", "10-30", "11-27"],
    ),
    ("FREQ=YEARLY;COUNT=3;BYMONTH=6,7", "1997-06-10T09:00", ["06-10", "07-10", "06-10"]),
    (
        "FREQ=YEARLY;INTERVAL=3;COUNT=4;BYYEARDAY=1,100",
        "1997-01-01T09:00",
        ["01-01", "04-10", "01-01", "04-09"],
    ),
    ("FREQ=YEARLY;COUNT=3;BYDAY=20MO", "1997-05-19T09:00", ["05-19", "05-18", "05-17"]),
    ("FREQ=YEARLY;COUNT=3;BYWEEKNO=20;BYDAY=MO", "1997-05-12T09:00", ["05-12", "05-11", "05-17"]),
    ("FREQ=YEARLY;COUNT=3;BYMONTH=3;BYDAY=TH", "1997-03-13T09:00", ["03-13", "03-20", "03-27"]),
    (
        "FREQ=YEARLY;INTERVAL=4;COUNT=2;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8",
        "1996-11-05T09:00",
        ["11-05", "11-07"],
    ),
    (
        "FREQ=MONTHLY;COUNT=4;BYMONTHDAY=15,30",
        "2007-01-15T09:00",
        ["01-15", "01-30", "02-15", "03-15"],
    ),
]


class TestRules:
    @pytest.mark.parametrize(("rule", "first", "days"), EXAMPLES)
    def test_the_examples_in_the_rfc_give_the_starts_in_the_rfc(self, rule, first, days):
        assert [start[5:10] for start in series(rule, first, NEW_YORK)] == days

    def test_a_rule_can_be_in_lower_case_and_have_the_prefix_rrule(self):
        for rule in ("FREQ=DAILY;COUNT=2", "rrule:freq=daily;count=2", "RRULE:COUNT=2;FREQ=DAILY"):
            assert series(rule, "2026-12-01T18:00") == ["2026-12-01 18:00", "2026-12-02 18:00"]

    @pytest.mark.parametrize(
        ("short", "long"),
        [
            ("FREQ=DAILY;COUNT=3;BYHOUR=9;BYMINUTE=5", "FREQ=DAILY;COUNT=3;BYHOUR=09;BYMINUTE=05"),
            ("FREQ=YEARLY;COUNT=3;BYMONTH=2", "FREQ=YEARLY;COUNT=3;BYMONTH=02"),
            ("FREQ=YEARLY;COUNT=3;BYYEARDAY=40", "FREQ=YEARLY;COUNT=3;BYYEARDAY=040"),
            ("FREQ=MONTHLY;COUNT=3;BYMONTHDAY=9", "FREQ=MONTHLY;COUNT=3;BYMONTHDAY=09"),
            ("FREQ=MONTHLY;COUNT=3;BYDAY=2MO", "FREQ=MONTHLY;COUNT=3;BYDAY=+02MO"),
        ],
    )
    def test_numbers_can_have_leading_zeros(self, short, long):
        first = "2026-02-09T09:05"
        assert series(short, first) == series(long, first)

    def test_a_day_can_have_several_starts(self):
        assert series("FREQ=DAILY;COUNT=3;BYHOUR=9,14;BYMINUTE=30", "2026-12-01T09:30") == [
            *("2026-12-01 09:30", "2026-12-01 14:30", "2026-12-02 09:30")
        ]

    def test_days_that_a_month_does_not_have_are_left_out(self):
        assert series("FREQ=MONTHLY;COUNT=3", "2026-12-31T09:00") == [
            *("2026-12-31 09:00", "2027-01-31 09:00", "2027-03-31 09:00")
        ]

    @pytest.mark.parametrize(
        ("rule", "first", "days"),
        [
            ("BYDAY=MO,WE,FR;BYSETPOS=2", "2026-12-02T18:00", ["12-02", "12-09", "12-16"]),
            # If weeks begin on Sunday, the days of the first week are SU 26, TU 28 and FR 31. The
            # first position is before the first start, and the third is the first start.
            (
                "INTERVAL=2;BYDAY=SU,TU,FR;BYSETPOS=1,3;WKST=SU",
                "2027-12-31T18:00",
                ["12-31", "01-09", "01-14"],
            ),
        ],
    )
    def test_positions_count_from_the_beginning_of_the_week(self, rule, first, days):
        starts = series(f"FREQ=WEEKLY;COUNT=3;{rule}", first)
        assert [start[5:10] for start in starts] == days


class TestEnds:
    @pytest.mark.parametrize(
        ("until", "last"),
        [
            ("20261203", "2026-12-03 18:00"),
            ("20261203T180000", "2026-12-03 18:00"),
            ("20261203T175959", "2026-12-02 18:00"),
            ("20261203T180000Z", "2026-12-03 18:00"),
            ("20261203T175959Z", "2026-12-02 18:00"),
            ("20261201", "2026-12-01 18:00"),
        ],
    )
    def test_until_is_inclusive(self, until, last):
        assert series(f"FREQ=DAILY;UNTIL={until}", "2026-12-01T18:00")[-1] == last

    def test_until_with_z_is_in_utc_and_otherwise_in_wall_clock_time(self):
        first = local("2026-06-01T18:00")  # 17:00 in UTC
        assert len(series("FREQ=DAILY;UNTIL=20260602T170000Z", first)) == 2
        assert len(series("FREQ=DAILY;UNTIL=20260602T170000", first)) == 1
        # The first hour of a summer day in Lisbon belongs to the previous day in UTC.
        early = local("2026-06-01T00:30")
        assert len(series("FREQ=DAILY;UNTIL=20260602", early)) == 2

    def test_a_series_can_have_366_starts(self):
        assert len(series(f"FREQ=DAILY;COUNT={MAX_STARTS}", "2026-12-01T18:00")) == 366
        assert len(series("FREQ=DAILY;UNTIL=20271201", "2026-12-01T18:00")) == 366

    @pytest.mark.parametrize("rule", ["FREQ=DAILY;COUNT=367", "FREQ=DAILY;UNTIL=20271202"])
    def test_a_series_of_more_than_366_starts_is_refused(self, rule):
        with pytest.raises(ValueError, match="more than 366"):
            series(rule, "2026-12-01T18:00")

    @pytest.mark.parametrize(
        "rule",
        [
            "FREQ=YEARLY;COUNT=12",
            "FREQ=YEARLY;UNTIL=20500101",
            "FREQ=YEARLY;INTERVAL=30;COUNT=2",
            "FREQ=DAILY;INTERVAL=999999999;COUNT=2",
        ],
    )
    def test_a_series_that_continues_too_far_ahead_is_refused(self, rule):
        with pytest.raises(ValueError, match="too far ahead"):
            series(rule, "2026-12-01T18:00")

    def test_a_series_whose_second_start_is_after_until_has_one_start(self):
        assert series("FREQ=YEARLY;INTERVAL=30;UNTIL=20280101", "2026-12-01T18:00") == [
            "2026-12-01 18:00"
        ]


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=WEEKLY;COUNT=3;BYDAY=WE",
        "FREQ=DAILY;COUNT=3;BYMONTH=11",
        "FREQ=DAILY;COUNT=3;BYHOUR=17",
        "FREQ=MONTHLY;COUNT=3;BYDAY=1TU;BYSETPOS=2",
        "FREQ=WEEKLY;COUNT=3;BYDAY=MO,TU,WE;BYSETPOS=1",
        "FREQ=DAILY;UNTIL=20261130",
        "FREQ=DAILY;UNTIL=19700101T000000Z",
        "FREQ=DAILY;COUNT=3;BYMONTH=2;BYMONTHDAY=30",
    ],
)
def test_the_first_start_must_match_the_rule(rule):
    with pytest.raises(ValueError, match="start_time does not match this rule"):
        series(rule, "2026-12-01T18:00")


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("", "is not a part of a recurrence rule"),
        ("RRULE:", "is not a part of a recurrence rule"),
        ("FREQ=DAILY", "either COUNT or UNTIL"),
        ("COUNT=3", "FREQ is missing"),
        ("FREQ=DAILY;COUNT=3;UNTIL=20270101", "either COUNT or UNTIL"),
        ("FREQ=HOURLY;COUNT=3", "The value of FREQ is invalid"),
        ("FREQ=MINUTELY;COUNT=3", "The value of FREQ is invalid"),
        ("FREQ=SECONDLY;COUNT=3", "The value of FREQ is invalid"),
        ("FREQ=DAILY;COUNT=3;FREQ=DAILY", "FREQ appears twice"),
        ("FREQ=DAILY;COUNT=3;", "is not a part of a recurrence rule"),
        ("FREQ=DAILY;COUNT=3 ;BYDAY=MO", "The value of COUNT is invalid"),
        ("FREQ=DAILY;COUNT=0", "The value of COUNT is invalid"),
        ("FREQ=DAILY;COUNT=-1", "The value of COUNT is invalid"),
        ("FREQ=DAILY;COUNT=+1", "The value of COUNT is invalid"),
        ("FREQ=DAILY;COUNT=1.0", "The value of COUNT is invalid"),
        ("FREQ=DAILY;COUNT=\uff13", "The value of COUNT is invalid"),
        ("FREQ=DAILY;COUNT=3\x00", "The value of COUNT is invalid"),
        ("FREQ=DAILY;COUNT=1_0", "The value of COUNT is invalid"),
        ("FREQ=DAILY;COUNT=3;INTERVAL=0", "The value of INTERVAL is invalid"),
        ("FREQ=DAILY;UNTIL=2027-01-01", "The value of UNTIL is invalid"),
        ("FREQ=DAILY;UNTIL=20270230", "The date or time in UNTIL does not exist"),
        ("FREQ=DAILY;UNTIL=00000101", "The date or time in UNTIL does not exist"),
        ("FREQ=DAILY;UNTIL=20270101T250000Z", "The date or time in UNTIL does not exist"),
        ("FREQ=DAILY;UNTIL=20270101T000000+0100", "The value of UNTIL is invalid"),
        ("FREQ=DAILY;UNTIL=\uff12\uff10270101", "The value of UNTIL is invalid"),
        ("FREQ=DAILY;COUNT=3;WKST=XX", "The value of WKST is invalid"),
        ("FREQ=DAILY;COUNT=3;BYDAY=", "The value of BYDAY is invalid"),
        ("FREQ=DAILY;COUNT=3;BYDAY=MO,,TU", "The value of BYDAY is invalid"),
        ("FREQ=DAILY;COUNT=3;BYDAY=MON", "The value of BYDAY is invalid"),
        ("FREQ=MONTHLY;COUNT=3;BYDAY=0MO", "The value of BYDAY is invalid"),
        ("FREQ=MONTHLY;COUNT=3;BYDAY=MO(+1)", "The value of BYDAY is invalid"),
        ("FREQ=YEARLY;COUNT=3;BYDAY=54MO", "The value of BYDAY is invalid"),
        ("FREQ=WEEKLY;COUNT=3;BYDAY=1MO", "BYDAY can contain numbers only if FREQ is"),
        ("FREQ=YEARLY;COUNT=3;BYMONTH=13", "The value of BYMONTH is invalid"),
        ("FREQ=YEARLY;COUNT=3;BYMONTH=-1", "The value of BYMONTH is invalid"),
        ("FREQ=MONTHLY;COUNT=3;BYMONTHDAY=0", "The value of BYMONTHDAY is invalid"),
        ("FREQ=MONTHLY;COUNT=3;BYMONTHDAY=32", "The value of BYMONTHDAY is invalid"),
        ("FREQ=MONTHLY;COUNT=3;BYMONTHDAY=-32", "The value of BYMONTHDAY is invalid"),
        ("FREQ=YEARLY;COUNT=3;BYWEEKNO=54", "The value of BYWEEKNO is invalid"),
        ("FREQ=DAILY;COUNT=3;BYHOUR=24", "The value of BYHOUR is invalid"),
        ("FREQ=DAILY;COUNT=3;BYMINUTE=60", "The value of BYMINUTE is invalid"),
        ("FREQ=DAILY;COUNT=3;BYSECOND=60", "The value of BYSECOND is invalid"),
        ("FREQ=DAILY;COUNT=3;BYSECOND=-1", "The value of BYSECOND is invalid"),
        ("FREQ=MONTHLY;COUNT=3;BYDAY=MO;BYSETPOS=0", "The value of BYSETPOS is invalid"),
        (f"FREQ=MONTHLY;COUNT=3;BYDAY=MO;BYSETPOS=1{',1' * 12}", "BYSETPOS can have at most 12"),
        ("FREQ=DAILY;COUNT=3;BYHOUR=9,12;BYSETPOS=1", "BYSETPOS can be used only if FREQ is"),
        ("FREQ=MONTHLY;COUNT=3;BYDAY=53MO", "A number in BYDAY is too high"),
        ("FREQ=MONTHLY;COUNT=3;BYDAY=1TU,6MO", "A number in BYDAY is too high"),
        ("FREQ=YEARLY;COUNT=3;BYMONTH=12;BYDAY=-6MO", "A number in BYDAY is too high"),
        ("FREQ=DAILY;COUNT=3;BYEASTER=0", "'BYEASTER' is not a part"),
        ("FREQ=DAILY;COUNT=3;X-COLOUR=RED", "'X-COLOUR' is not a part"),
        ("DTSTART:20261201T180000Z\nRRULE:FREQ=DAILY;COUNT=3", "without DTSTART"),
        ("DTSTART;TZID=Europe/Lisbon:20261201T180000", "without DTSTART"),
        ("RRULE:FREQ=DAILY;COUNT=3\nEXDATE:20261202T180000Z", "The value of COUNT is invalid"),
        ("RRULE:RRULE:FREQ=DAILY;COUNT=3", "is not a part of a recurrence rule"),
        ("FREQ", "The value of FREQ is invalid"),
        ("\ud800", "is not a part of a recurrence rule"),
    ],
)
def test_an_invalid_rule_is_refused_with_the_reason(rule, why):
    with pytest.raises(ValueError, match=why):
        parse_rule(rule)


def numbers(*bounds):
    return ",".join(map(str, range(*bounds)))


# All starts of this rule are in the hour that the clocks of Lisbon skip.
SKIPPED = f"FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU;BYHOUR=1;BYMINUTE={numbers(60)};BYSECOND={numbers(60)}"


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30;COUNT=3",
        "FREQ=WEEKLY;INTERVAL=7919;UNTIL=99991231",
        "FREQ=DAILY;INTERVAL=999999999;COUNT=3",
        "FREQ=DAILY;INTERVAL=7;BYDAY=TU;BYMONTH=2;BYMONTHDAY=29;COUNT=3",
        "FREQ=MONTHLY;BYDAY=5TU;BYMONTHDAY=1;COUNT=3",
        "FREQ=YEARLY;BYWEEKNO=53;BYDAY=TU;BYMONTH=6;COUNT=3",
        f"FREQ=DAILY;COUNT=366;BYMONTH=12;BYSETPOS={numbers(1, 130)}",
        f"FREQ=DAILY;COUNT=1;BYSETPOS={numbers(355, 367)}",
        f"{SKIPPED};COUNT=1",
        f"{SKIPPED};UNTIL=20270101",
        f"FREQ=WEEKLY;COUNT=366;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYSETPOS={numbers(-110, -1)}",
        f"FREQ=YEARLY;COUNT=9;BYYEARDAY={numbers(1, 100)};BYHOUR={numbers(24)};BYSETPOS=-1",
        f"FREQ=DAILY;COUNT=3;BYHOUR={numbers(24)};BYMINUTE={numbers(60)};BYSECOND=0,1,2,3,4,5,6",
        "FREQ=DAILY;COUNT=".ljust(LONGEST_RULE, "9"),
        "FREQ=DAILY;COUNT=3;INTERVAL=".ljust(LONGEST_RULE, "9"),
        "FREQ=YEARLY;COUNT=3;BYDAY=" + ",".join(["TU"] * 150),
        ";" * LONGEST_RULE,
        "=" * LONGEST_RULE,
        "RRULE:" * 80,
    ],
)
def test_no_rule_takes_more_than_half_a_second(rule):
    assert len(rule) <= LONGEST_RULE
    started = process_time()
    with suppress(ValueError):
        series(rule, "2026-12-01T18:00")
    assert process_time() - started < 0.5


# --- Comparison with simpler models -------------------------------------------------------------

ZONES = ["UTC", "Europe/Lisbon", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]


def instants(moment, tz):
    """Return all instants at which the clocks show `moment`.

    Try the UTC offsets that the zone has in the 30 hours before and after `moment`.
    """
    around = [moment.replace(tzinfo=UTC) + timedelta(hours=hours) for hours in range(-30, 31)]
    found = {moment.replace(tzinfo=UTC) - each.astimezone(tz).utcoffset() for each in around}
    return sorted(each for each in found if each.astimezone(tz).replace(tzinfo=None) == moment)


def day_by_day(weekly, interval, weekdays, count, first, tz):
    """Return the starts of a daily or weekly rule by checking each day."""
    begin, day, found = first.date(), first.date(), []
    monday = begin - timedelta(days=begin.weekday())
    while len(found) < count:
        apart = (day - monday).days // 7 if weekly else (day - begin).days
        if apart % interval == 0 and day.weekday() in weekdays:
            found += instants(datetime.combine(day, first.time()), tz)[:1]
        day += timedelta(days=1)
    return found


moments = st.builds(
    datetime.combine,
    st.dates(date(2026, 1, 1), date(2028, 12, 31)),
    st.sampled_from([time(hour, minute) for hour in range(24) for minute in (0, 15, 30, 45)]),
)


@given(
    zone=st.sampled_from(ZONES),
    first=moments,
    weekly=st.booleans(),
    interval=st.integers(1, 5),
    weekdays=st.sets(st.integers(0, 6)),
    count=st.integers(1, 60),
)
def test_daily_and_weekly_rules_give_the_same_starts_as_a_check_of_each_day(
    zone, first, weekly, interval, weekdays, count
):
    tz = ZoneInfo(zone)
    assume(instants(first, tz))
    weekdays |= {first.weekday()}
    rule = f"FREQ={'WEEKLY' if weekly else 'DAILY'};INTERVAL={interval};COUNT={count};BYDAY="
    rule += ",".join(WEEKDAYS[each] for each in sorted(weekdays))
    start = instants(first, tz)[0]
    expected = day_by_day(weekly, interval, weekdays, count, first, tz)
    assert parse_rule(rule).starts(start, tz, limit=start + DECADE) == expected


@given(
    first=moments,
    frequency=st.sampled_from(["DAILY", "WEEKLY", "MONTHLY", "YEARLY"]),
    interval=st.integers(1, 4),
    count=st.integers(1, 20),
    data=st.data(),
)
def test_rules_give_the_same_starts_as_dateutil(first, frequency, interval, count, data):
    """All parts of the rule match the first start, because BookIt refuses other rules."""
    parts = {"FREQ": frequency, "INTERVAL": interval, "COUNT": count}
    if data.draw(st.booleans(), "months"):
        parts["BYMONTH"] = data.draw(st.sets(st.integers(1, 12))) | {first.month}
    if frequency != "WEEKLY" and data.draw(st.booleans(), "days of the month"):
        parts["BYMONTHDAY"] = data.draw(st.sets(st.integers(1, 31))) | {first.day}
    elif frequency == "YEARLY" and data.draw(st.booleans(), "days of the year"):
        parts["BYYEARDAY"] = {first.timetuple().tm_yday, data.draw(st.integers(-366, -1))}
    elif data.draw(st.booleans(), "weekdays"):
        days = data.draw(st.sets(st.sampled_from(WEEKDAYS))) | {WEEKDAYS[first.weekday()]}
        parts["BYDAY"] = sorted(days)
    if data.draw(st.booleans(), "times"):
        parts["BYHOUR"] = data.draw(st.sets(st.integers(0, 23), max_size=2)) | {first.hour}
    rule = ";".join(
        f"{name}={','.join(map(str, value)) if isinstance(value, set | list) else value}"
        for name, value in parts.items()
    )
    latest = first + DECADE
    expected = list(takewhile(lambda each: each <= latest, rrule.rrulestr(rule, dtstart=first)))
    start = first.replace(tzinfo=UTC)
    if len(expected) < count:
        with pytest.raises(ValueError, match="too far ahead"):
            parse_rule(rule).starts(start, UTC, limit=start + DECADE)
    else:
        found = parse_rule(rule).starts(start, UTC, limit=start + DECADE)
        assert [each.replace(tzinfo=None) for each in found] == expected
