"""History: what happened to bookings, written in the transaction of the change.

Mails, webhooks and offers to the waitlist all follow from these rows. The database enqueues a job
for each statement that writes events, see `bookings/triggers.py`.
"""

from datetime import datetime
from typing import Any

from django.db import connection

from accounts.models import User
from bookings.models import Booking, BookingEvent

# The columns of a booking that can change. Each event keeps them, so that state and history agree.
STATE_COLUMNS = ("status", "start_time", "end_time", "seat", "slot_id", "hold_expires_at")

# The reason of bookings that are cancelled with their slot. All other reasons are written by users.
SLOT_CANCELLED = "The slot was cancelled."

# The types that webhooks and `/events` report. All others concern only the attendee.
TOLD = [
    BookingEvent.Type.CREATED,
    BookingEvent.Type.CONFIRMED,
    BookingEvent.Type.RESCHEDULED,
    BookingEvent.Type.CANCELLED,
    BookingEvent.Type.COMPLETED,
    BookingEvent.Type.EXPIRED,
    BookingEvent.Type.NO_SHOW,
    BookingEvent.Type.REVIEWED,
]


def state_of(row: str) -> str:
    """Return the arguments of `jsonb_build_object` that make an event's data from a booking.

    Args:
        row: the name of the row in the statement.
    """
    return ", ".join(f"'{column}', {row}.{column}" for column in STATE_COLUMNS)


def state(booking: Booking) -> dict[str, Any]:
    """Return the data that an event keeps of a booking."""
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
        more: additional data, for example the old values as `was`. Empty values are left out.
    """
    return BookingEvent.objects.create(
        booking_id=booking.pk,
        type=kind,
        actor=actor,
        at=at,
        data={**state(booking), **{name: value for name, value in more.items() if value}},
    )


def suppress_follow_up() -> None:
    """Let no mails, webhooks or offers follow from the events of this transaction.

    This is for imports of events that happened long ago.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL bookit.follow_up = off")
