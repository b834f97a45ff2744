"""How long calendars are open in a period."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from operator import itemgetter
from typing import Any
from uuid import UUID

from bookings.reports.periods import Period
from bookit.times import zone
from catalog.models import OpeningHours, TimeOff
from catalog.opening import Opening, Span
from catalog.opening import Period as OpenPeriod


def open_times(calendars: Iterable[tuple[UUID, str]], period: Period) -> dict[UUID, timedelta]:
    """Return for each calendar how long it is open in the period: its hours minus its time off.

    Args:
        calendars: the id and the time zone of each calendar.
    """
    hours = _by_calendar(
        OpeningHours.objects.order_by("calendar", "weekday", "opens").values_list(
            "calendar_id", "weekday", "opens", "closes"
        )
    )
    time_off = _by_calendar(
        TimeOff.objects.filter(start_time__lt=period.end, end_time__gt=period.start)
        .order_by()
        .values_list("calendar_id", "start_time", "end_time")
    )
    # Most calendars share their weekly hours with others, so the periods are computed once for
    # each combination of zone and hours.
    weekly: dict[tuple[str, Any], tuple[Sequence[OpenPeriod], timedelta]] = {}
    found = {}
    for calendar_id, zone_name in calendars:
        spans = tuple(map(Span._make, hours.get(calendar_id, ())))
        opening = Opening(zone(zone_name), spans, tuple(time_off.get(calendar_id, ())))
        if (zone_name, spans) not in weekly:
            usual = opening.periods(period.start, period.end)
            weekly[zone_name, spans] = usual, overlap(usual, period.start, period.end)
        periods, total = weekly[zone_name, spans]
        closed = (
            overlap(periods, max(start, period.start), min(end, period.end))
            for start, end in opening.closed
        )
        found[calendar_id] = total - sum(closed, timedelta())
    return found


def overlap(periods: Sequence[OpenPeriod], start: datetime, end: datetime) -> timedelta:
    """Return how much of the time from `start` to `end` is in one of the ordered periods."""
    total = timedelta()
    # The first period that ends after `start`.
    first = bisect_right(periods, start, key=itemgetter(1))
    for opens, closes in islice(periods, first, None):
        if opens >= end:
            break
        total += min(closes, end) - max(opens, start)
    return total


def _by_calendar(rows: Iterable[tuple[Any, ...]]) -> dict[UUID, list[Any]]:
    found: dict[UUID, list[Any]] = {}
    for calendar_id, *values in rows:
        found.setdefault(calendar_id, []).append(tuple(values))
    return found
