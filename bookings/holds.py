"""Conditions that distinguish holds from bookings, and the ends of holds from other events.

Conditions that are also needed in SQL statements are written twice: for the ORM and in SQL.
"""

from typing import Any

from django.db.models import Exists, OuterRef, Q

from bookings.models import BookingEvent


def unexpired(at: Any) -> Q:
    """Return the condition that a booking is not a hold, or is a hold that expires after `at`."""
    return Q(hold_expires_at=None) | Q(hold_expires_at__gt=at)


def unexpired_sql(column: str) -> str:
    """Return the condition of `unexpired` in SQL.

    Args:
        column: the column with the time at which a hold expires. It is compared with the parameter
            `at`.
    """
    return f"({column} IS NULL OR {column} > %(at)s)"


# True for every event except the cancellation or the expiry of a hold. Webhooks and `/events` do
# not report the start of a hold (`bookings.events.REPORTED_TYPES` lacks `booking.held`), so they do
# not report its end either. Emails follow the same rule, except for a seat that was offered; see
# `bookings.mails.occasions.Occasion.news`.
ANNOUNCED = (
    ~Q(type__in=["booking.cancelled", "booking.expired"])
    | Q(data__was__status__isnull=True)
    | ~Q(data__was__status="held")
)


def is_ended_hold() -> Q:
    """Return the condition that a booking is a hold that was released or has expired.

    PostgreSQL searches the events only if the status is `cancelled` or `expired`.
    """
    ends_of_holds = BookingEvent.objects.filter(
        ~ANNOUNCED, calendar=OuterRef("calendar"), booking_id=OuterRef("pk")
    )
    return Q(status__in=["cancelled", "expired"]) & Q(Exists(ends_of_holds))


def announced_sql(event: str) -> str:
    """Return the condition `ANNOUNCED` in SQL.

    Args:
        event: the name of the event's row in the statement.
    """
    return (
        f"({event}.type NOT IN ('booking.cancelled', 'booking.expired')"
        f" OR {event}.data->'was'->>'status' IS DISTINCT FROM 'held')"
    )
