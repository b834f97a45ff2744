"""Bookings that no longer fit their calendar after a change to it.

The bookings are not cancelled. The response to the change lists them.
"""

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

# For querysets of bookings or slots: whether the calendar has time off that overlaps the row.
IN_TIME_OFF = Exists(
    TimeOff.objects.filter(
        calendar=OuterRef("calendar"),
        start_time__lt=OuterRef("end_time"),
        end_time__gt=OuterRef("start_time"),
    )
)

# The maximum number of affected bookings that a response lists. The response counts all of them.
MAX_LISTED = 100


@AFFECTED.add("bookings")
def find_affected(*, calendar: Calendar, period: Period | None, at: datetime) -> Affected:
    """Return the bookings that a change to a calendar affects and that have not ended.

    With a period, these are the bookings that overlap it. Without a period, they are the bookings
    that are now outside the opening hours or in time off. Opening hours do not affect a booking in
    a slot; only time off does.

    Args:
        period: the period of time off that is added or changed; None to check all open times.
    """
    if period:
        start, end = period
        bookings = _not_ended(calendar, start, end, at=at)
        return _first_and_count(bookings.filter(start_time__lt=end, end_time__gt=start))
    bookings = _not_ended(calendar, at, None, at=at).annotate(off=IN_TIME_OFF)
    hours = calendar.hours.values_list("weekday", "opens", "closes")
    opening = Opening(zone(calendar.timezone), tuple(map(Span._make, hours)))
    if opening.is_endless:
        return _first_and_count(bookings.filter(off=True))
    # Bookings in different seats can have the same period. Each period is checked only once.
    is_open = cache(opening.contains)
    outside = [
        (pk, start)
        for pk, start, end, slot_id, off in bookings.values_list(
            "pk", "start_time", "end_time", "slot_id", "off"
        )
        if off or not (slot_id or is_open(start, end))
    ]
    return Affected(len(outside), tuple(outside[:MAX_LISTED]))


def _not_ended(
    calendar: Calendar, start: datetime, end: datetime | None, *, at: datetime
) -> QuerySet[Booking]:
    """Return the unfinished bookings that have not ended and block time between `start` and `end`.

    Expired holds are left out. The earliest booking comes first.
    """
    booked = Q(status__in=Booking.EXPECTED)
    held = Q(status=Status.HELD, hold_expires_at__gt=at)
    return Booking.objects.filter(
        booked | held,
        calendar=calendar,
        end_time__gt=at,
        # Both conditions are redundant, but PostgreSQL needs them to use the index of
        # booking_calendar_free. The statuses imply `active`, and every booking that `find_affected`
        # looks for blocks time between `start` and `end`.
        active=True,
        blocked__overlap=DateTimeTZRange(start, end),
    ).order_by("start_time", "id")


def _first_and_count(bookings: QuerySet[Booking]) -> Affected:
    rows: list[tuple[UUID, datetime, int]] = list(
        bookings.annotate(total=Window(Count("pk"))).values_list("pk", "start_time", "total")[
            :MAX_LISTED
        ]
    )
    return Affected(rows[0][2] if rows else 0, tuple(row[:2] for row in rows))
