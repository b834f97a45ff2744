"""The rules for the notes of staff."""

from datetime import datetime
from uuid import UUID

from accounts.models import User
from bookings import services
from bookings.desk.models import StaffNote
from bookings.models import Booking
from bookit.database.citus.lookups import by_id
from bookit.database.retries import retried


@retried
def add_note(*, booking_id: UUID, actor: User, text: str, at: datetime) -> StaffNote:
    """Add a staff note to a booking, as its provider, an admin or staff.

    Raises:
        Booking.DoesNotExist: there is no booking with this id.
        Forbidden: `actor` may not change the booking as its provider can.
    """
    booking = by_id(Booking.objects.select_related("calendar"), booking_id).get()
    services.check_manages(booking, actor)
    return StaffNote.objects.create(
        calendar_id=booking.calendar_id, booking=booking, author=actor, text=text, at=at
    )
