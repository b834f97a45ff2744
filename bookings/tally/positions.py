"""Lowers the transaction ids of events and of the tally after a restore; see `bookit.restores`."""

from django.db import connection
from django.db.models import F, Max
from django.db.models.functions import Least

from bookings.models import BookingEvent
from bookings.tally.models import BookingTally
from bookit.restores.extensions import POSITIONS, Positions

# Subtracts a number from the transaction ids of all events.
#
# Parameters: shift bigint.
# Columns: none.
_SHIFT = "UPDATE bookings_bookingevent SET transaction = transaction - %(shift)s"


def last() -> int | None:
    """Return the highest transaction id of an event, or None if there are no events."""
    found: int | None = BookingEvent.objects.aggregate(last=Max("transaction"))["last"]
    return found


def move(boundary: int, shift: int) -> None:
    """Subtract `shift` from the transaction ids of all events and of the tally (`BookingTally`).

    If the transaction id of the tally is above `boundary`, it first becomes `boundary`, even if
    `shift` is 0. Otherwise, the tally would never count events that the new server writes with a
    lower transaction id.
    """
    BookingTally.objects.update(transaction=Least(F("transaction"), boundary) - shift)
    if not shift:
        return
    with connection.cursor() as cursor:
        # The trigger refuses changes to the transaction id of an event. Only the owner of the table
        # can disable the trigger. ALTER TABLE locks the table until the commit, so no other session
        # can change events while the trigger is disabled.
        cursor.execute(
            "ALTER TABLE bookings_bookingevent DISABLE TRIGGER booking_event_append_only"
        )
        cursor.execute(_SHIFT, {"shift": shift})
        cursor.execute("ALTER TABLE bookings_bookingevent ENABLE TRIGGER booking_event_append_only")


POSITIONS.add("bookings")(Positions(last, move))
