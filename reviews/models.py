"""Reviews of completed bookings."""

from django.conf import settings
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now, Upper
from django.utils.translation import gettext as _
from uuid_utils.compat import uuid7

from bookings.models import Booking
from bookit.database.constraints import CompositeForeignKey
from bookit.database.versions import updated_at_trigger
from catalog.models import OnCalendar, SameCalendarOneToOne, Service


class Review(OnCalendar):
    """A rating of a completed booking, with an optional comment."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # In the database, the foreign keys are `review_booking_on_calendar` and
    # `review_service_on_calendar`, which also contain the calendar. If the booking is deleted, the
    # review remains, and its rating still counts for the service.
    booking = SameCalendarOneToOne(
        Booking,
        on_delete=models.DO_NOTHING,
        null=True,
        related_name="review",
        db_constraint=False,
    )
    service = models.ForeignKey(
        Service,
        on_delete=models.RESTRICT,
        related_name="reviews",
        db_index=False,
        db_constraint=False,
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.RESTRICT, related_name="reviews"
    )
    rating = models.PositiveSmallIntegerField(
        choices=[(stars, str(stars)) for stars in range(1, 6)]
    )
    comment = models.TextField(max_length=5000, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["service", "created_at", "id"], name="review_by_service"),
            models.Index(fields=["created_at", "id"], name="review_by_age"),
            # For the search of the admin site.
            GinIndex(
                OpClass(Upper("comment"), name="gin_trgm_ops"),
                name="review_by_comment",
                fastupdate=False,
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(rating__gte=1, rating__lte=5), name="review_rating_1_to_5"
            ),
            CompositeForeignKey(
                name="review_booking_on_calendar",
                fields=["calendar", "booking"],
                to="bookings.Booking",
                to_fields=["calendar", "id"],
                on_delete="SET NULL ({booking})",
            ),
            CompositeForeignKey(
                name="review_service_on_calendar",
                fields=["service", "calendar"],
                to="catalog.Service",
                to_fields=["id", "calendar"],
            ),
            updated_at_trigger("review"),
        ]

    def __str__(self) -> str:
        return _("%(rating)d of 5") % {"rating": self.rating}

    @property
    def author_name(self) -> str:
        """The name that is shown beside the review."""
        return self.user.name
