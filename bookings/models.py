"""Time that is taken: bookings and their history."""

from django.conf import settings
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import DateTimeRangeField, RangeOperators
from django.db import models
from django.db.models import ExpressionWrapper, F, Func, Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from catalog.models import Calendar, Service


class TsTzRange(Func):
    """PostgreSQL's `tstzrange(start, end)`, half-open."""

    function = "tstzrange"
    output_field = DateTimeRangeField()


class Booking(models.Model):
    """A seat of a service for a period.

    Price, currency and buffers are copied from the service at the moment of booking: what was
    agreed does not change when the service does.
    """

    class Status(models.TextChoices):
        """Where a booking stands; `bookings.services.TRANSITIONS` says what may follow."""

        HELD = "held"
        PENDING = "pending"
        CONFIRMED = "confirmed"
        CANCELLED = "cancelled"
        COMPLETED = "completed"
        EXPIRED = "expired"
        NO_SHOW = "no_show"

    # Those that take time: no two of them share a seat.
    ACTIVE = [Status.HELD, Status.PENDING, Status.CONFIRMED, Status.COMPLETED, Status.NO_SHOW]

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.RESTRICT, related_name="bookings", db_index=False
    )
    # The database knows both as one foreign key, `booking_service_on_calendar` in the migrations: a
    # booking's calendar is its service's.
    service = models.ForeignKey(
        Service,
        on_delete=models.RESTRICT,
        related_name="bookings",
        db_index=False,
        db_constraint=False,
    )
    calendar = models.ForeignKey(
        Calendar,
        on_delete=models.RESTRICT,
        related_name="bookings",
        db_index=False,
        db_constraint=False,
    )
    seat = models.PositiveIntegerField()
    start_time = models.DateTimeField()
    end_time = models.DateTimeField()
    blocked = DateTimeRangeField(help_text="The period, widened by the service's buffers.")
    status = models.CharField(max_length=9, choices=Status)
    # A column of its own, so that a change of status that keeps the seat touches no index: nothing
    # is checked again, and nobody waits.
    active = models.GeneratedField(
        expression=ExpressionWrapper(
            Q(status__in=["held", "pending", "confirmed", "completed", "no_show"]),
            models.BooleanField(),
        ),
        output_field=models.BooleanField(),
        db_persist=True,
    )
    attendee_name = models.CharField(max_length=200, blank=True, default="")
    attendee_email = models.EmailField(blank=True, default="")
    notes = models.TextField(max_length=2000, blank=True, default="")
    price = models.DecimalField(max_digits=10, decimal_places=2)
    currency = models.CharField(max_length=3)
    hold_expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    # Published slots are not there yet: no booking is in one.
    slot_id = None

    class Meta:
        ordering = ["start_time", "id"]
        indexes = [
            models.Index(fields=["user", "start_time", "id"], name="booking_by_user"),
            models.Index(fields=["user", "created_at", "id"], name="booking_by_user_age"),
            models.Index(fields=["calendar", "start_time", "id"], name="booking_by_calendar"),
            models.Index(fields=["service", "start_time", "id"], name="booking_by_service"),
            models.Index(fields=["start_time", "id"], name="booking_by_start"),
            models.Index(fields=["created_at", "id"], name="booking_by_age"),
        ]
        constraints = [
            ExclusionConstraint(
                name="booking_seat_free",
                expressions=[
                    ("service", RangeOperators.EQUAL),
                    ("seat", RangeOperators.EQUAL),
                    ("blocked", RangeOperators.OVERLAPS),
                ],
                condition=Q(active=True),
            ),
            ExclusionConstraint(
                name="booking_calendar_free",
                expressions=[
                    ("calendar", RangeOperators.EQUAL),
                    ("service", RangeOperators.NOT_EQUAL),
                    ("blocked", RangeOperators.OVERLAPS),
                ],
                condition=Q(active=True),
            ),
            # An empty period is a range that overlaps nothing, which no exclusion would see.
            models.CheckConstraint(
                condition=Q(end_time__gt=F("start_time")), name="booking_period_not_empty"
            ),
            models.CheckConstraint(
                condition=Q(blocked__contains=TsTzRange(F("start_time"), F("end_time"))),
                name="booking_blocked_contains_period",
            ),
            models.CheckConstraint(condition=Q(seat__gte=1), name="booking_seat_positive"),
            models.CheckConstraint(condition=Q(price__gte=0), name="booking_price_not_negative"),
            models.CheckConstraint(
                condition=Q(
                    status__in=[
                        "held",
                        "pending",
                        "confirmed",
                        "cancelled",
                        "completed",
                        "expired",
                        "no_show",
                    ]
                ),
                name="booking_status_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.start_time:%Y-%m-%d %H:%M} UTC, {self.status}"


class BookingEvent(models.Model):
    """Something that happened to a booking: append-only, and written with the change itself.

    It outlives its booking, so the reference is no foreign key to the database. It holds ids, times
    and states, and the reason that a provider gave; nothing of the attendee.
    """

    class Type(models.TextChoices):
        """What happened."""

        CREATED = "booking.created"
        CONFIRMED = "booking.confirmed"
        RESCHEDULED = "booking.rescheduled"
        CANCELLED = "booking.cancelled"
        COMPLETED = "booking.completed"
        EXPIRED = "booking.expired"
        NO_SHOW = "booking.no_show"
        DELETED = "booking.deleted"

    booking = models.ForeignKey(
        Booking,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        related_name="events",
    )
    type = models.CharField(max_length=30, choices=Type)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.RESTRICT,
        null=True,
        blank=True,
        db_index=False,
        related_name="+",
        help_text="Who did it; empty when the clock did.",
    )
    at = models.DateTimeField()
    data = models.JSONField(default=dict)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.type} at {self.at:%Y-%m-%d %H:%M} UTC"
