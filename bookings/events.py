"""History: what happened to bookings, written in the transaction in which it happened.

Whatever follows from it (mails, webhooks, an offer to those who wait) hangs on these rows: the
database enqueues a job for each statement that writes some, see the migrations.
"""

from datetime import datetime
from typing import Any

from django.db import connection

from accounts.models import User
from bookings.models import Booking, BookingEvent

# All of a booking that changes, as each event keeps it: state and history tell the same.
STATE_COLUMNS = ("status", "start_time", "end_time", "seat", "slot_id", "hold_expires_at")

# The reason of bookings that are cancelled with their slot; the only one that nobody wrote.
SLOT_CANCELLED = "The slot was cancelled."

# What webhooks and `/events` tell of; the rest is between a booking and its attendee.
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
    """Return the SQL that makes an event's data of a row of bookings, or of its columns."""
    return ", ".join(f"'{column}', {row}.{column}" for column in STATE_COLUMNS)


def state(booking: Booking) -> dict[str, Any]:
    """Return what an event keeps of a booking."""
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
    """Write down what happened, with the state that came of it.

    Args:
        more: what else is to be known, such as what it `was`; empty values are left out.
    """
    return BookingEvent.objects.create(
        booking_id=booking.pk,
        type=kind,
        actor=actor,
        at=at,
        data={**state(booking), **{name: value for name, value in more.items() if value}},
    )


def follow_nothing_up() -> None:
    """For the rest of this transaction let nothing follow from events: they were told long ago."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL bookit.follow_up = off")
