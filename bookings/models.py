"""Time that is taken: published slots, bookings and their history."""

from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import ArrayField, DateTimeRangeField, RangeOperators
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import ExpressionWrapper, F, Func, Q
from django.db.models.fields.json import KT
from django.db.models.functions import Cast, Now
from uuid_utils.compat import uuid7

from accounts.models import User
from bookit import money
from catalog.models import Calendar, Service


class TsTzRange(Func):
    """PostgreSQL's `tstzrange(start, end)`, half-open."""

    function = "tstzrange"
    output_field = DateTimeRangeField()


class Slot(models.Model):
    """A published session of a service: a class, or a specialist's appointment.

    It keeps its calendar's time from the moment it is published, with no booking yet.
    """

    class Status(models.TextChoices):
        """Whether it takes place."""

        SCHEDULED = "scheduled"
        CANCELLED = "cancelled"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # The database knows both as one foreign key, `slot_service_on_calendar` in the migrations.
    service = models.ForeignKey(
        Service,
        on_delete=models.RESTRICT,
        related_name="slots",
        db_index=False,
        db_constraint=False,
    )
    calendar = models.ForeignKey(
        Calendar,
        on_delete=models.RESTRICT,
        related_name="slots",
        db_index=False,
        db_constraint=False,
    )
    start_time = models.DateTimeField()
    end_time = models.DateTimeField()
    blocked = DateTimeRangeField(help_text="The period, widened by the service's buffers.")
    capacity = models.PositiveIntegerField(
        validators=[MinValueValidator(1), MaxValueValidator(1000)]
    )
    status = models.CharField(max_length=9, choices=Status, default=Status.SCHEDULED)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["start_time", "id"]
        indexes = [
            models.Index(fields=["service", "start_time", "id"], name="slot_by_service"),
            models.Index(fields=["calendar", "start_time", "id"], name="slot_by_calendar"),
            models.Index(fields=["start_time", "id"], name="slot_by_start"),
        ]
        constraints = [
            ExclusionConstraint(
                name="slots_apart",
                expressions=[
                    ("calendar", RangeOperators.EQUAL),
                    ("blocked", RangeOperators.OVERLAPS),
                ],
                condition=Q(status="scheduled"),
            ),
            # What the foreign key of a booking in the slot points to: its time is the slot's.
            models.UniqueConstraint(
                fields=["id", "service", "calendar", "start_time", "end_time", "blocked"],
                name="slot_time",
            ),
            models.CheckConstraint(
                condition=Q(end_time__gt=F("start_time")), name="slot_period_not_empty"
            ),
            models.CheckConstraint(
                condition=Q(blocked__contains=TsTzRange(F("start_time"), F("end_time"))),
                name="slot_blocked_contains_period",
            ),
            models.CheckConstraint(condition=Q(capacity__gte=1), name="slot_capacity_positive"),
            models.CheckConstraint(
                condition=Q(status__in=["scheduled", "cancelled"]), name="slot_status_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.start_time:%Y-%m-%d %H:%M} UTC, {self.status}"


class BookingQuerySet(models.QuerySet["Booking"]):
    """Questions about bookings."""

    def on_calendars_of(self, user: User) -> "BookingQuerySet":
        """Return the bookings on the calendars that `user` provides and keeps."""
        return self.filter(user.on_own_calendars("calendar__provider"))

    def live_holds(self, at: datetime) -> "BookingQuerySet":
        """Return the holds that have not expired."""
        return self.filter(hold_expires_at__gt=at)


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
    # The database knows it with the slot's service, calendar and time, as `booking_in_slot`.
    slot = models.ForeignKey(
        Slot,
        on_delete=models.RESTRICT,
        null=True,
        blank=True,
        related_name="bookings",
        db_index=False,
        db_constraint=False,
        help_text="The published slot, if it is in one.",
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
    # What the clock has still to end. A column of its own for the same reason: no index knows the
    # status itself.
    unfinished = models.GeneratedField(
        expression=ExpressionWrapper(
            Q(status__in=["held", "pending", "confirmed"]), models.BooleanField()
        ),
        output_field=models.BooleanField(),
        db_persist=True,
    )
    attendee_name = models.CharField(max_length=200, blank=True, default="")
    attendee_email = models.EmailField(blank=True, default="")
    notes = models.TextField(max_length=2000, blank=True, default="")
    price = models.DecimalField(max_digits=money.DIGITS, decimal_places=money.DECIMALS)
    currency = models.CharField(max_length=3)
    hold_expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    objects: ClassVar[BookingQuerySet] = BookingQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        ordering = ["start_time", "id"]
        indexes = [
            models.Index(fields=["user", "start_time", "id"], name="booking_by_user"),
            models.Index(fields=["user", "created_at", "id"], name="booking_by_user_age"),
            models.Index(fields=["calendar", "start_time", "id"], name="booking_by_calendar"),
            models.Index(fields=["service", "start_time", "id"], name="booking_by_service"),
            models.Index(fields=["start_time", "id"], name="booking_by_start"),
            models.Index(fields=["created_at", "id"], name="booking_by_age"),
            models.Index(fields=["slot"], name="booking_by_slot", condition=Q(slot__isnull=False)),
            models.Index(
                fields=["user", "hold_expires_at"],
                name="booking_holds_by_user",
                condition=Q(hold_expires_at__isnull=False),
            ),
            models.Index(
                fields=["calendar", "hold_expires_at"],
                name="booking_holds_by_calendar",
                condition=Q(hold_expires_at__isnull=False),
            ),
            models.Index(
                fields=["hold_expires_at"],
                name="booking_holds_by_end",
                condition=Q(hold_expires_at__isnull=False),
            ),
            models.Index(
                fields=["start_time", "id"],
                name="booking_unfinished",
                condition=Q(unfinished=True),
            ),
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
            # Without an end a hold would keep its seat for good; nothing else has one.
            models.CheckConstraint(
                condition=Q(status="held", hold_expires_at__isnull=False)
                | (~Q(status="held") & Q(hold_expires_at__isnull=True)),
                name="booking_hold_expires",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.start_time:%Y-%m-%d %H:%M} UTC, {self.status}"


class Occupancy(models.Model):
    """A calendar's time and whoever has it: a published slot, or a service booked without one.

    Slots and bookings are two tables, and an exclusion constraint is about one. So both write
    down here what they take of a calendar: triggers in the migrations do, and let nobody else.
    """

    id = models.UUIDField(primary_key=True, help_text="The slot's or the booking's.")
    calendar = models.ForeignKey(
        Calendar, on_delete=models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False
    )
    occupant = models.UUIDField(help_text="The slot, or the service that is booked without one.")
    seat = models.PositiveIntegerField(null=True, help_text="A booking's; a slot has them all.")
    blocked = DateTimeRangeField()
    expires_at = models.DateTimeField(null=True, help_text="When a hold ends.")

    class Meta:
        indexes = [
            # Searches for free times read whole weeks of a calendar: from here three times as fast
            # as from the constraint's index, and in order, so that there is nothing to sort.
            models.Index(
                F("calendar"),
                F("blocked__endswith"),
                F("blocked__startswith"),
                name="occupancy_by_end",
            ),
        ]
        constraints = [
            # In this order, for its index is searched by calendar and time. Sorted by occupants
            # first, of which there are as many as slots, all of a calendar would be looked through.
            ExclusionConstraint(
                name="occupancy_one_at_a_time",
                expressions=[
                    ("calendar", RangeOperators.EQUAL),
                    ("blocked", RangeOperators.OVERLAPS),
                    ("occupant", RangeOperators.NOT_EQUAL),
                ],
            ),
        ]

    def __str__(self) -> str:
        return f"{self.occupant}, {self.blocked}"


class BookingEvent(models.Model):
    """Something that happened to a booking: append-only, and written with the change itself.

    It outlives its booking, so the reference is no foreign key to the database. It holds ids, times
    and states, and the reason that a provider gave; nothing of the attendee.
    """

    class Type(models.TextChoices):
        """What happened."""

        HELD = "booking.held"
        CREATED = "booking.created"
        CONFIRMED = "booking.confirmed"
        RESCHEDULED = "booking.rescheduled"
        CANCELLED = "booking.cancelled"
        COMPLETED = "booking.completed"
        EXPIRED = "booking.expired"
        NO_SHOW = "booking.no_show"
        DELETED = "booking.deleted"
        REMINDED = "booking.reminded"
        REVIEWED = "review.created"

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
    # Ids are given before a commit, so that one may come to be seen after a higher one. Who reads
    # events in the order of transactions, and only of those before the oldest that is still open,
    # misses none.
    transaction = models.BigIntegerField(
        db_default=Cast(
            Cast(Func(function="pg_current_xact_id"), models.TextField()), models.BigIntegerField()
        ),
        editable=False,
    )

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["transaction", "id"], name="event_by_transaction")]
        constraints = [
            # However many look at once, a start is reminded of once.
            models.UniqueConstraint(
                "booking",
                KT("data__start_time"),
                condition=Q(type="booking.reminded"),
                name="event_reminded_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.type} at {self.at:%Y-%m-%d %H:%M} UTC"


class WaitlistEntry(models.Model):
    """Somebody's place in the queue for a full slot.

    A seat that becomes free is held for the first who waits; until it is, it is nobody else's. Its
    status follows what becomes of their booking in the slot: a trigger in the migrations does it.
    """

    class Status(models.TextChoices):
        """Where one stands in the queue."""

        WAITING = "waiting"
        OFFERED = "offered"
        BOOKED = "booked"
        PASSED = "passed"
        LEFT = "left"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    slot = models.ForeignKey(
        Slot, on_delete=models.CASCADE, related_name="waitlist", db_index=False
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="waitlist_entries"
    )
    booking = models.OneToOneField(
        Booking,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="waitlist_entry",
        help_text="The hold that was offered, or the booking they made themselves.",
    )
    status = models.CharField(max_length=7, choices=Status, default=Status.WAITING)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["created_at", "id"]
        verbose_name = "waiting list entry"
        verbose_name_plural = "waiting list entries"
        indexes = [
            models.Index(fields=["slot", "created_at", "id"], name="waitlist_by_slot"),
            # Every search for free times looks here: few wait, however many once did.
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
        ]

    def __str__(self) -> str:
        return f"{self.status} since {self.created_at:%Y-%m-%d %H:%M} UTC"


class MailCount(models.Model):
    """How many mails a day a reader of a booking, or an address, was sent, and how many not."""

    subject = models.CharField(
        max_length=100, help_text="A booking and one of its readers, or the hash of an address."
    )
    day = models.DateField(help_text="In UTC.")
    sent = models.PositiveIntegerField(default=0)
    most = models.PositiveIntegerField(help_text="The limit when the last one was counted.")
    withheld = models.PositiveIntegerField(
        default=0, help_text="Not sent because this limit was reached."
    )

    class Meta:
        ordering = ["-day", "-withheld", "id"]
        indexes = [models.Index(fields=["day", "id"], name="mail_count_by_day")]
        constraints = [
            models.UniqueConstraint(fields=["subject", "day"], name="mail_count_once"),
        ]

    def __str__(self) -> str:
        return f"{self.subject}, {self.day}"


class Feed(models.Model):
    """How often the address of a calendar feed was renewed: the ones before are no longer valid."""

    id = models.UUIDField(primary_key=True, help_text="The user's or the calendar's.")
    version = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.id}, version {self.version}"


class WebhookQuerySet(models.QuerySet["Webhook"]):
    """Questions about webhooks."""

    def delivering(self) -> "WebhookQuerySet":
        """Return those that are sent events: switched on, and owned by somebody who is an admin."""
        return self.filter(is_active=True, owner__in=User.objects.all().active_admins())


class Webhook(models.Model):
    """An address that is sent what happens, for as long as its owner is an admin."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    url = models.URLField(max_length=2000)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        db_index=False,
        related_name="+",
        help_text="The admin who made it, or who last switched it on or renewed its secret.",
    )
    events = ArrayField(models.CharField(max_length=30), help_text="The types that it is told of.")
    # Ids, not times: they come from one sequence, whatever the clocks of several hosts say.
    since = models.JSONField(
        default=dict, help_text="By type, the last event before it asked for that type."
    )
    is_active = models.BooleanField(default=True)
    secret = models.CharField(
        max_length=100, help_text="Signs what is sent, see Standard Webhooks."
    )
    previous_secret = models.CharField(max_length=100, blank=True, default="")
    previous_secret_expires_at = models.DateTimeField(null=True, blank=True)
    failing_since = models.DateTimeField(
        null=True, blank=True, help_text="Since when no attempt has succeeded."
    )
    paused_until = models.DateTimeField(
        null=True, blank=True, help_text="When a message is retried for which the others wait."
    )
    disabled_reason = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    objects = models.Manager.from_queryset(WebhookQuerySet)()

    # Why nothing is sent, and what to do, where no other reason is known.
    NO_ADMIN = "Its owner is no longer an admin. Whoever switches it on becomes its owner."

    class Meta:
        ordering = ["created_at", "id"]

    def __str__(self) -> str:
        return self.url

    @property
    def has_admin(self) -> bool:
        """Whether its owner is an admin; `WebhookQuerySet.delivering` asks the same of many."""
        return self.owner is not None and self.owner.is_admin


class Delivery(models.Model):
    """A message to a webhook: an event, or a test."""

    class Status(models.TextChoices):
        """Whether it has arrived."""

        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    webhook = models.ForeignKey(
        Webhook, on_delete=models.CASCADE, related_name="deliveries", db_index=False
    )
    event = models.ForeignKey(
        BookingEvent,
        on_delete=models.RESTRICT,
        null=True,
        blank=True,
        related_name="deliveries",
        help_text="None for a test.",
    )
    type = models.CharField(max_length=30)
    status = models.CharField(max_length=9, choices=Status, default=Status.PENDING)
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        verbose_name_plural = "deliveries"
        indexes = [
            models.Index(fields=["webhook", "created_at", "id"], name="delivery_by_webhook"),
            models.Index(fields=["created_at"], name="delivery_by_age"),
            # The queue of a webhook: tests first, then by event.
            models.Index(
                "webhook",
                F("event").asc(nulls_first=True),
                "id",
                name="delivery_pending",
                condition=Q(status="pending"),
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["webhook", "event"], name="delivery_once"),
            models.CheckConstraint(
                condition=Q(status__in=["pending", "delivered", "failed"]),
                name="delivery_status_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.type}, {self.status}"


class Attempt(models.Model):
    """One try of a delivery, and what came of it."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="attempts")
    at = models.DateTimeField()
    duration_ms = models.PositiveIntegerField()
    status_code = models.PositiveSmallIntegerField(null=True, blank=True)
    error = models.CharField(max_length=300, blank=True, default="")
    response = models.TextField(blank=True, default="", help_text="At most 2 KiB of the answer.")

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.error or f"{self.status_code}"
