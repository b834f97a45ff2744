"""The waitlist of a slot."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from bookings import triggers
from bookings.models import Booking, Slot
from bookit.database.constraints import CompositeForeignKey
from catalog.models import OnCalendar, SameCalendarKey, SameCalendarOneToOne


class WaitlistEntry(OnCalendar):
    """A user who waits, or has waited, for a seat of a full slot.

    A free seat is held for the first user who is waiting. Nobody else can take the seat before that
    user. A database trigger updates the status when the user gets a booking in the slot, and when
    that booking changes or is deleted.
    """

    class Status(models.TextChoices):
        """Whether the user is waiting or has been offered a seat, or how the wait ended.

        `passed` means that it ended without a booking, although the user did not leave.
        """

        WAITING = "waiting", _("Waiting")
        OFFERED = "offered", _("Offered")
        BOOKED = "booked", _("Booked")
        PASSED = "passed", _("Passed")
        LEFT = "left", _("Left")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # In the database, the slot and the booking each form one foreign key with the calendar:
    # `waitlist_slot_on_calendar` and `waitlist_booking_on_calendar`.
    slot = SameCalendarKey(
        Slot,
        on_delete=models.DO_NOTHING,
        related_name="waitlist",
        db_index=False,
        db_constraint=False,
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="waitlist_entries"
    )
    booking = SameCalendarOneToOne(
        Booking,
        on_delete=models.DO_NOTHING,
        null=True,
        blank=True,
        related_name="waitlist_entry",
        db_constraint=False,
        help_text="The hold that was offered to the user, or the booking that the user made.",
    )
    status = models.CharField(max_length=7, choices=Status, default=Status.WAITING)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["created_at", "id"]
        verbose_name = "waitlist entry"
        verbose_name_plural = "waitlist entries"
        indexes = [
            models.Index(fields=["slot", "created_at", "id"], name="waitlist_by_slot"),
            # Searches for free times count the waiting entries of each slot. This index contains
            # only waiting entries, so it stays small even if many users have waited in the past.
            models.Index(
                fields=["slot", "created_at", "id"],
                name="waitlist_waiting",
                condition=Q(status="waiting"),
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["slot", "user"],
                condition=Q(status__in=["waiting", "offered"]),
                name="waitlist_once",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["waiting", "offered", "booked", "passed", "left"]),
                name="waitlist_status_known",
            ),
            CompositeForeignKey(
                name="waitlist_slot_on_calendar",
                fields=["calendar", "slot"],
                to="bookings.Slot",
                to_fields=["calendar", "id"],
                on_delete="CASCADE",
            ),
            CompositeForeignKey(
                name="waitlist_booking_on_calendar",
                fields=["calendar", "booking"],
                to="bookings.Booking",
                to_fields=["calendar", "id"],
                on_delete="SET NULL ({booking})",
            ),
            triggers.WAITLIST_UPDATED_AT,
        ]

    def __str__(self) -> str:
        return f"{self.get_status_display()}, {self.created_at:%Y-%m-%d %H:%M} UTC"
