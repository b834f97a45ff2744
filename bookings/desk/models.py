"""The notes that staff write about bookings."""

from django.conf import settings
from django.db import models
from uuid_utils.compat import uuid7

from bookings.models import Booking
from bookit.database.constraints import CompositeForeignKey
from catalog.models import OnCalendar, SameCalendarKey


class StaffNote(OnCalendar):
    """What a member of staff wrote about a booking. Notes are added, but never changed.

    A note can contain personal data about the user of the booking. It is therefore part of that
    user's data export (`GET /me/export`), and is erased with that user's account. No other endpoint
    of the API shows notes.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # In the database, calendar and booking form one foreign key, `staff_note_on_calendar`.
    booking = SameCalendarKey(
        Booking,
        on_delete=models.DO_NOTHING,
        related_name="staff_notes",
        db_index=False,
        db_constraint=False,
    )
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.RESTRICT, related_name="+", db_index=False
    )
    text = models.TextField(max_length=2000)
    at = models.DateTimeField()

    class Meta:
        ordering = ["id"]
        # The permissions for bookings decide who may read and write notes.
        default_permissions = ()
        indexes = [models.Index(fields=["booking", "id"], name="staff_note_by_booking")]
        constraints = [
            CompositeForeignKey(
                name="staff_note_on_calendar",
                fields=["calendar", "booking"],
                to="bookings.Booking",
                to_fields=["calendar", "id"],
                on_delete="CASCADE",
            )
        ]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} UTC"
