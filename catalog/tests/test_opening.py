"""The times at which a calendar is open agree with a plain model that checks every minute."""

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import groupby, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bookit.tests.clocks import DAY, MINUTE, ODD_DAYS, faces
from bookit.times import wall_clock
from catalog.opening import ALWAYS, Opening, Span

# The model covers this many days before and after an odd day (see `ODD_DAYS`). No open period
# around the odd day is that long, unless the calendar is always open.
DAYS = 22
LISBON = ZoneInfo("Europe/Lisbon")
WEEK = range(7)


def daily(opens, closes):
    """Return the same span on every day."""
    return tuple(Span(weekday, opens, closes) for weekday in WEEK)


@cache
def minutes_of_the_week(odd):
    """Return an instant, and the minutes of the week that the clock shows from then on."""
    start, shown = faces(*ODD_DAYS[odd], DAYS)
    return start, [face.weekday() * 1440 + face.hour * 60 + face.minute for face in shown]


class Model:
    """The minutes around an odd day, and whether the calendar is open in each minute."""

    def __init__(self, odd, hours, time_off=()):
        self.start, shown = minutes_of_the_week(odd)
        week = [
            not hours
            or any(span.opens <= minute < span.closes for span in hours if span.weekday == weekday)
            for weekday in WEEK
            for minute in range(1440)
        ]
        self.open_by_hours = [week[minute] for minute in shown]
        self.open = list(self.open_by_hours)
        for off_start, off_end in time_off:
            for number in range(self.number(off_start), self.number(off_end)):
                self.open[number] = False

    def number(self, instant):
        return (instant - self.start) // MINUTE

    def contains(self, start, end):
        return all(self.open[self.number(start) : self.number(end)])

    def periods(self, start, end):
        """Return the open periods that overlap a period, in full length. Ignore time off."""
        found, number = [], 0
        for is_open, minutes in groupby(self.open_by_hours):
            first, number = number, number + len(list(minutes))
            if is_open and first < self.number(end) and number > self.number(start):
                found.append((self.start + first * MINUTE, self.start + number * MINUTE))
        return found


def opening(odd, hours, time_off=()):
    return Opening(ZoneInfo(ODD_DAYS[odd][0]), tuple(hours), tuple(time_off))


# --- random hours on odd days -----------------------------------------------------------------

# Minutes after midnight: times around midnight, around changes of clocks, and in working hours.
TIMES = [0, 1, 30, 60, 61, 90, 105, 119, 120, 135, 150, 180, 181, 540, 720, 1080, 1380, 1410, 1439]


@st.composite
def some_hours(draw):
    """Draw spans of a week that do not overlap, but may touch."""
    hours = []
    for weekday in WEEK:
        cuts = draw(st.lists(st.sampled_from([*TIMES, 1440]), unique=True, max_size=6))
        kept = draw(st.integers(0, 2**5 - 1))  # one bit for each span between two cuts
        for number, (opens, closes) in enumerate(pairwise(sorted(cuts))):
            if kept & 2**number:
                hours.append(Span(weekday, opens, closes))
    return draw(st.permutations(hours))


# Breaks that a change of clocks can skip, in minutes after midnight: half an hour, an hour, a day.
BREAKS = [(0, 30), (0, 60), (60, 120), (75, 105), (120, 150), (120, 180), (1410, 1440), (0, 1440)]


@st.composite
def nearly_always(draw, weekday):
    """Draw the opening hours of a week whose only break is on `weekday`."""
    closes, opens = draw(st.sampled_from(BREAKS))
    return [
        *(Span(day, 0, 1440) for day in WEEK if day != weekday),
        *([Span(weekday, 0, closes)] if closes else []),
        *([Span(weekday, opens, 1440)] if opens < 1440 else []),
    ]


@st.composite
def questions(draw):
    """Draw an odd day, opening hours, time off and a period."""
    odd = draw(st.sampled_from(sorted(ODD_DAYS)))
    day = ODD_DAYS[odd][1]
    noon = datetime.combine(day, time(12), tzinfo=UTC)
    always = st.sampled_from([(), daily(0, 1440)])
    hours = draw(st.one_of(some_hours(), nearly_always(day.weekday()), always))

    def period(longest):
        start = noon + draw(st.integers(-3 * 1440, 3 * 1440)) * MINUTE
        return start, start + draw(st.integers(1, longest)) * MINUTE

    time_off = [period(600) for _ in range(draw(st.integers(0, 2)))]
    return odd, hours, time_off, period(draw(st.sampled_from([5, 60, 1440, 3 * 1440])))


@settings(max_examples=200)
@given(questions())
def test_a_calendar_is_open_in_the_same_minutes_as_the_model(question):
    odd, hours, time_off, (start, end) = question
    expected = Model(odd, hours, time_off).contains(start, end)
    assert opening(odd, hours, time_off).contains(start, end) == expected


@settings(max_examples=200)
@given(questions())
def test_periods_are_complete_ordered_and_separate(question):
    odd, hours, _, (start, end) = question
    found = opening(odd, hours).periods(start, end)
    assert all(opens < closes for opens, closes in found)
    assert all(first[1] < second[0] for first, second in pairwise(found))
    if found == (ALWAYS,):
        assert Model(odd, hours).contains(start, end)
        return
    around = [(opens, closes) for opens, closes in found if opens < end and closes > start]
    assert around == Model(odd, hours).periods(start, end)


def test_a_span_until_midnight_ends_at_a_change_of_clocks_that_skips_midnight():
    # On 30 March 1919 at 23:30 (04:30 UTC on 31 March), the clocks in Toronto went to 00:30.
    break_at_night = [*(Span(day, 0, 1440) for day in WEEK if day), Span(0, 60, 1440)]
    when = opening("Toronto skips the time around midnight", break_at_night)
    jump = datetime(1919, 3, 31, 4, 30, tzinfo=UTC)
    assert [closes for _, closes in when.periods(jump, jump + MINUTE) if closes <= jump][-1] == jump
    assert not when.contains(jump, jump + MINUTE)
    assert when.contains(jump + 30 * MINUTE, jump + 31 * MINUTE)


@settings(max_examples=200)
@given(questions())
def test_opening_hours_are_endless_only_if_the_week_has_no_break(question):
    odd, hours, _, _ = question
    week = {
        span.weekday * 1440 + minute for span in hours for minute in range(span.opens, span.closes)
    }
    assert opening(odd, hours).is_endless == (not hours or len(week) == 7 * 1440)


@settings(max_examples=100)
@given(questions())
def test_periods_are_exact_to_the_minute(question):
    """The calendar is open during a period, and not in the minute before or after it."""
    odd, hours, _, (start, end) = question
    when = opening(odd, hours)
    for opens, closes in when.periods(start, end):
        if (opens, closes) == ALWAYS or not (opens < end and closes > start):
            continue
        assert when.contains(opens, closes)
        assert not when.contains(opens - MINUTE, opens + MINUTE)
        assert not when.contains(closes - MINUTE, closes + MINUTE)


# --- examples ---------------------------------------------------------------------------------


def at(day, minutes, tz=LISBON):
    return wall_clock(day, minutes, tz)


def test_a_calendar_without_hours_is_open_except_in_its_time_off():
    start = datetime(2026, 8, 1, tzinfo=UTC)
    when = Opening(LISBON, time_off=((start, start + DAY),))
    assert when.contains(start - 300 * DAY, start)
    assert when.contains(start + DAY, start + 300 * DAY)
    assert not when.contains(start - MINUTE, start + MINUTE)
    assert not when.contains(start + DAY - MINUTE, start + DAY + MINUTE)
    assert not when.contains(start - DAY, start + 2 * DAY)
    assert when.periods(start, start + DAY) == (ALWAYS,)


def test_a_span_that_ends_at_midnight_continues_on_the_next_day():
    monday = date(2026, 12, 7)
    when = Opening(LISBON, (Span(0, 1200, 1440), Span(1, 0, 120), Span(1, 180, 200)))
    assert when.contains(at(monday, 1200), at(monday + DAY, 120))
    assert (at(monday, 1200), at(monday + DAY, 120)) in when.periods(
        at(monday, 1200), at(monday, 1201)
    )
    assert not when.contains(at(monday + DAY, 60), at(monday + DAY, 200))


def test_a_span_continues_from_sunday_to_monday():
    sunday = date(2026, 12, 6)
    when = Opening(LISBON, (Span(0, 0, 60), Span(6, 1380, 1440)))
    assert when.contains(at(sunday, 1380), at(sunday + DAY, 60))


def test_only_spans_that_touch_are_merged():
    monday = date(2026, 12, 7)
    when = Opening(LISBON, (Span(0, 720, 1020), Span(0, 540, 720), Span(0, 1021, 1080)))
    assert when.contains(at(monday, 540), at(monday, 1020))
    assert not when.contains(at(monday, 540), at(monday, 1080))


def test_a_week_of_whole_days_is_endless():
    when = Opening(LISBON, daily(0, 1440))
    assert when.is_endless
    assert when.contains(datetime(1900, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC))


def test_a_span_begins_at_the_same_wall_clock_time_in_summer_and_winter():
    when = Opening(LISBON, daily(540, 1020))
    for day, hour in ((date(2026, 3, 28), 9), (date(2026, 3, 29), 8)):
        opens = datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
        assert when.contains(opens, opens + 8 * 60 * MINUTE)
        assert not when.contains(opens - MINUTE, opens + MINUTE)


def test_a_night_is_an_hour_shorter_in_spring_and_longer_in_autumn():
    when = Opening(LISBON, daily(0, 360))
    for day, hours in ((date(2026, 3, 29), 5), (date(2026, 10, 25), 7), (date(2026, 12, 1), 6)):
        [(opens, closes)] = [
            period for period in when.periods(at(day, 60), at(day, 61)) if period[0] == at(day, 0)
        ]
        assert closes - opens == timedelta(hours=hours)


def test_a_span_that_a_change_of_clocks_skips_does_not_exist():
    spring = date(2026, 3, 29)
    when = Opening(LISBON, daily(70, 110))
    periods = when.periods(at(spring, 0), at(spring, 1440))
    assert not [opens for opens, _ in periods if opens.date() == spring]
    assert [opens for opens, _ in periods if opens.date() == spring - DAY]


def test_a_span_in_a_repeated_hour_is_open_the_first_time():
    autumn = datetime(2026, 10, 25, tzinfo=UTC)
    when = Opening(LISBON, daily(60, 120))
    # Two hours pass between the first 01:00 and 02:00.
    assert when.contains(autumn, autumn + 120 * MINUTE)
    first_half = Opening(LISBON, daily(60, 90))
    assert first_half.contains(autumn, autumn + 30 * MINUTE)
    assert not first_half.contains(autumn + 60 * MINUTE, autumn + 90 * MINUTE)


def test_a_calendar_is_not_open_on_a_skipped_day():
    apia = ZoneInfo("Pacific/Apia")
    friday = date(2011, 12, 30)
    when = Opening(apia, (Span(3, 540, 1020), Span(4, 540, 1020), Span(5, 540, 1020)))
    periods = when.periods(at(friday - DAY, 0, apia), at(friday + DAY, 1440, apia))
    around = [opens for opens, _ in periods if abs(opens - at(friday, 0, apia)) < DAY]
    assert around == [at(friday - DAY, 540, apia), at(friday + DAY, 540, apia)]


@pytest.mark.parametrize("odd", ODD_DAYS)
def test_the_clock_of_the_model_shows_every_day_in_order(odd):
    """Control for the tests above: the clock skips no day but the odd day, and never goes back."""
    name, day = ODD_DAYS[odd]
    _, shown = faces(name, day, DAYS)
    assert sorted(shown) == shown
    days = {face.date() for face in shown}
    expected = {day + number * DAY for number in range(-DAYS, DAYS)}
    assert expected - days in (set(), {day})
