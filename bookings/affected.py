"""Bookings that no longer fit their calendar. They stay; the response to the change names them."""

from datetime import datetime
from functools import cache
from uuid import UUID

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Window

from bookings.models import Booking
from bookit.times import zone
from catalog.extensions import AFFECTED, Affected
from catalog.models import Calendar, TimeOff
from catalog.opening import Opening, Period, Span

Status = Booking.Status

# In a query of bookings or slots: whether the calendar has time off during the period.
IN_TIME_OFF = Exists(
    TimeOff.objects.filter(
        calendar=OuterRef("calendar"),
        start_time__lt=OuterRef("end_time"),
        end_time__gt=OuterRef("start_time"),
    )
)

# How many bookings are named; the others are only counted.
MOST = 100


@AFFECTED.add("bookings")
def closed_out(*, calendar: Calendar, period: Period | None, at: datetime) -> Affected:
    """Return the upcoming bookings that overlap `period`, or all that no longer fit the calendar.

    Opening hours do not affect a booking in a slot; only time off does.

    Args:
        period: a new time off; None if something else about the calendar has changed.
    """
    if period:
        start, end = period
        upcoming = _upcoming(calendar, start, end, at=at)
        return _first_and_count(upcoming.filter(start_time__lt=end, end_time__gt=start))
    upcoming = _upcoming(calendar, at, None, at=at).annotate(off=IN_TIME_OFF)
    hours = calendar.hours.values_list("weekday", "opens", "closes")
    opening = Opening(zone(calendar.timezone), tuple(Span(*row) for row in hours))
    if opening.is_endless:
        return _first_and_count(upcoming.filter(off=True))
    # The bookings of a class share one period, so it is checked once.
    is_open = cache(opening.contains)
    outside = [
        (pk, start)
        for pk, start, end, slot_id, off in upcoming.values_list(
            "pk", "start_time", "end_time", "slot_id", "off"
        )
        if off or not (slot_id or is_open(start, end))
    ]
    return Affected(len(outside), tuple(outside[:MOST]))


def _upcoming(
    calendar: Calendar, start: datetime, end: datetime | None, *, at: datetime
) -> QuerySet[Booking]:
    """Return the upcoming bookings that block time between `start` and `end`, in order."""
    booked = Q(status__in=[Status.PENDING, Status.CONFIRMED])
    held = Q(status=Status.HELD, hold_expires_at__gt=at)
    return Booking.objects.filter(
        booked | held,
        calendar=calendar,
        end_time__gt=at,
        # Implied by the statuses and the periods, but needed for the index.
        active=True,
        blocked__overlap=DateTimeTZRange(start, end),
    ).order_by("start_time", "id")


def _first_and_count(bookings: QuerySet[Booking]) -> Affected:
    rows: list[tuple[UUID, datetime, int]] = list(
        bookings.annotate(total=Window(Count("pk"))).values_list("pk", "start_time", "total")[:MOST]
    )
    return Affected(rows[0][2] if rows else 0, tuple(row[:2] for row in rows))
