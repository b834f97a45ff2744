"""The rules for the notes of staff."""

from datetime import datetime
from uuid import UUID

from django.utils.translation import gettext as _

from accounts.models import User
from bookings import services
from bookings.desk.models import StaffNote
from bookings.models import Booking
from bookit.database.citus.lookups import by_id
from bookit.database.retries import retried
from bookit.errors import Invalid


@retried
def add_note(*, booking_id: UUID, actor: User, text: str, at: datetime) -> StaffNote:
    """Add a staff note to a booking, as its provider, an admin or staff.

    Raises:
        Booking.DoesNotExist: there is no booking with this id.
        Forbidden: `actor` may not change the booking as its provider can.
        Invalid: the text is empty.
    """
    booking = by_id(Booking.objects.select_related("calendar"), booking_id).get()
    services.check_manages(booking, actor)
    if not text.strip():
        raise Invalid.of("text", _("Write something first."))
    return StaffNote.objects.create(
        calendar_id=booking.calendar_id, booking=booking, author=actor, text=text.strip(), at=at
    )
