"""The times at which a calendar is open: its weekly hours in its own zone, minus its time off."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import NamedTuple

from django.utils.translation import gettext_lazy as _

from bookit.times import wall_clock

DAY = timedelta(days=1)
NO_OFFSET = timedelta(0)
MINUTES_A_DAY = 24 * 60
# This period begins before and ends after every time that clients can send.
ALWAYS = (datetime(1, 1, 3, tzinfo=UTC), datetime(9999, 12, 29, tzinfo=UTC))

CLOSES_TOO_EARLY = _(
    "The closing time must be after the opening time. For hours that continue after midnight, close"
    " at 24:00 and open at 0:00 on the next day."
)

Period = tuple[datetime, datetime]


class Span(NamedTuple):
    """Opening hours of a weekday (0 is Monday), in wall-clock minutes after midnight."""

    weekday: int
    opens: int
    closes: int


@dataclass(frozen=True)
class Opening:
    """The opening hours and the time off of a calendar.

    Args:
        tz: the time zone of the opening hours.
        hours: the weekly opening hours; if empty, the calendar is always open.
        time_off: periods in which the calendar is closed, whatever its opening hours.
    """

    tz: tzinfo
    hours: tuple[Span, ...] = ()
    time_off: tuple[Period, ...] = ()

    def contains(self, start: datetime, end: datetime) -> bool:
        """Return whether the calendar is open from `start` to `end` without a break."""
        if self.is_off(start, end):
            return False
        # `_joined` cuts periods off, but at least a day before `start` and a day after `end`, which
        # does not change the result.
        around = self._joined(start, end, more=DAY)
        return any(opens <= start and end <= closes for opens, closes in around)

    def is_off(self, start: datetime, end: datetime) -> bool:
        """Return whether time off overlaps the period from `start` to `end`."""
        if not self.time_off:
            return False
        # The first closed period that ends after `start`. All periods after it begin even later.
        index = bisect_right(self.closed, start, key=itemgetter(1))
        return index < len(self.closed) and self.closed[index][0] < end

    @cached_property
    def closed(self) -> list[Period]:
        """The periods of time off, in order. Periods that overlap or touch are merged."""
        return _merged(sorted(self.time_off))

    def periods(self, start: datetime, end: datetime) -> tuple[Period, ...]:
        """Return the open periods from `start` to `end`, in order, by the weekly hours alone.

        Periods that touch are merged: a span that ends at 24:00 continues with a span that begins
        at 0:00 on the next day. Periods are not cut off at `start` and `end`, and some periods may
        be before `start` or after `end`. Time off is not subtracted.
        """
        # If spans continue over midnight, the calendar may have opened up to a week before `start`.
        # It may have opened two weeks before, if a change of clocks skips the only break of a week.
        joining = any(span.opens == 0 for span in self.hours)
        return self._joined(start, end, more=15 * DAY if joining else DAY)

    def _joined(self, start: datetime, end: datetime, *, more: timedelta) -> tuple[Period, ...]:
        """Return the open periods, limited to the days from `start - more` to `end + more`."""
        if self.is_endless:
            return (ALWAYS,)
        first, last = (start - more).astimezone(self.tz), (end + more).astimezone(self.tz)
        return _periods(self.tz, self.hours, first.date(), last.date())

    @cached_property
    def is_endless(self) -> bool:
        """Whether the weekly hours have no gap."""
        return is_endless(self.hours)


@lru_cache(maxsize=256)
def is_endless(hours: tuple[Span, ...]) -> bool:
    """Return whether weekly hours have no gap. Without hours, a calendar is always open."""
    if not hours:
        return True
    open_until = 0
    for span in sorted(hours):
        if span.weekday * MINUTES_A_DAY + span.opens > open_until:
            return False
        open_until = max(open_until, span.weekday * MINUTES_A_DAY + span.closes)
    return open_until == 7 * MINUTES_A_DAY


# The cache serves clients that request the same weeks of a calendar again and again.
@lru_cache(maxsize=64)
def _periods(tz: tzinfo, hours: tuple[Span, ...], first: date, last: date) -> tuple[Period, ...]:
    """Return the open periods from `first` to `last`. Periods that touch are merged."""
    return tuple(_merged(_spans(tz, hours, first, last)))


def _merged(periods: Iterable[Period]) -> list[Period]:
    """Return periods that are given in order, with those that overlap or touch as one."""
    merged: list[Period] = []
    for start, end in periods:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _spans(tz: tzinfo, hours: tuple[Span, ...], day: date, last: date) -> Iterator[Period]:
    """Yield the start and end of each span from `day` to `last`, in order."""
    by_weekday: dict[int, list[Span]] = {}
    for span in sorted(hours):
        by_weekday.setdefault(span.weekday, []).append(span)
    midnight = datetime.combine(day, time.min)
    offset = tz.utcoffset(midnight) or NO_OFFSET
    while day <= last:
        # On most days the clocks do not change. On these days, adding minutes is faster than
        # converting each time by its zone.
        next_midnight = midnight + DAY
        next_offset = tz.utcoffset(next_midnight) or NO_OFFSET
        # The offsets of both folds differ if a change of clocks skips or repeats midnight.
        plain = offset == next_offset == tz.utcoffset(next_midnight.replace(fold=1))
        begins = midnight.replace(tzinfo=UTC) - offset
        for span in by_weekday.get(day.weekday(), ()):
            if plain:
                opens = begins + timedelta(minutes=span.opens)
                closes = begins + timedelta(minutes=span.closes)
            else:
                opens = wall_clock(day, span.opens, tz)
                closes = wall_clock(day, span.closes, tz)
            if opens < closes:  # A change of clocks can skip the whole span.
                yield opens, closes
        day, midnight, offset = day + DAY, next_midnight, next_offset
