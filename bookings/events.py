"""The history of bookings: events, each written in the same transaction as the change it records.

Emails, webhooks and waitlist offers all follow from these events. The database enqueues a job for
each statement that writes events; see `bookings/triggers.py`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection
from django.utils.translation import gettext_noop

from accounts.models import User
from bookings.models import Booking, BookingEvent

# The columns of a booking that each event stores, so that state and history agree.
STATE_COLUMNS = ("status", "start_time", "end_time", "seat", "slot_id", "hold_expires_at")

# The reason that is recorded when a slot is cancelled with its bookings. Only this reason is
# translated, because people write all others.
SLOT_CANCELLED = gettext_noop("The slot was cancelled.")

# The event types that webhooks and `/events` report. The API shows the other types only in the
# history of a booking, and `booking.deleted` nowhere, because it does not show the history of a
# deleted booking.
REPORTED_TYPES = [
    BookingEvent.Type.CREATED,
    BookingEvent.Type.CONFIRMED,
    BookingEvent.Type.RESCHEDULED,
    BookingEvent.Type.CANCELLED,
    BookingEvent.Type.COMPLETED,
    BookingEvent.Type.EXPIRED,
    BookingEvent.Type.NO_SHOW,
    BookingEvent.Type.REVIEWED,
]

# Removes the reasons from the history of bookings. The trigger `booking_event_append_only` allows
# no other change.
#
# Parameters: calendar_id uuid, booking_ids uuid[].
# Columns: none.
FORGET_REASONS = """
UPDATE bookings_bookingevent SET data = data - 'reason'
WHERE calendar_id = %(calendar_id)s::uuid AND booking_id = ANY(%(booking_ids)s::uuid[])
  AND data ? 'reason'
"""


def state_of(row: str) -> str:
    """Return the SQL arguments for `jsonb_build_object` that turn a booking into an event's data.

    Args:
        row: the name of the booking's row in the statement.
    """
    return ", ".join(f"'{column}', {row}.{column}" for column in STATE_COLUMNS)


def state(booking: Booking) -> dict[str, Any]:
    """Return the state of a booking as an event stores it."""
    return {
        "status": str(booking.status),
        "start_time": booking.start_time.isoformat(),
        "end_time": booking.end_time.isoformat(),
        "seat": booking.seat,
        "slot_id": str(booking.slot_id) if booking.slot_id else None,
        "hold_expires_at": (
            booking.hold_expires_at.isoformat() if booking.hold_expires_at else None
        ),
    }


def record(
    booking: Booking, kind: BookingEvent.Type, *, actor: User | None, at: datetime, **more: Any
) -> BookingEvent:
    """Write an event with the new state of the booking.

    Args:
        more: additional data, for example `was` with the old values. Empty values are left out.
    """
    return BookingEvent.objects.create(
        calendar_id=booking.calendar_id,
        booking_id=booking.pk,
        type=kind,
        actor=actor,
        api_key_id=actor.api_key_id if actor else None,
        at=at,
        data={**state(booking), **{name: value for name, value in more.items() if value}},
    )


def forget_reasons(*, calendar_id: UUID, booking_ids: Sequence[UUID]) -> None:
    """Remove the reasons from the history of bookings of one calendar.

    Somebody other than the user gave these reasons, which can be personal data of the user. They
    are removed before a booking is deleted, because afterwards nobody knows whose history it was.
    """
    named: dict[str, Any] = {"calendar_id": calendar_id, "booking_ids": booking_ids}
    with connection.cursor() as cursor:
        cursor.execute(FORGET_REASONS, named)


def suppress_follow_up() -> None:
    """Send no emails, webhooks or waitlist offers for events that this transaction writes later.

    Imports and tools that store made-up data call this function, so that nobody is notified.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL bookit.follow_up = off")
