"""Slots, bookings, their history, the occupancy of calendars, and on which calendars users book."""

from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.expressions import ArraySubquery
from django.contrib.postgres.fields import DateTimeRangeField, RangeOperators
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import ExpressionWrapper, F, Func, Q, Value
from django.db.models.fields.json import KT
from django.db.models.functions import Cast, Least, Now, Upper
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from accounts.models import User, digits_of, validate_language, validate_phone
from bookings import triggers
from bookit import money
from bookit.database.constraints import CompositeForeignKey
from bookit.database.metadata import MetadataField, metadata_fits
from bookit.database.prepared import AnyOf
from catalog.models import MAX_CAPACITY, Calendar, OnCalendar, SameCalendarKey, Service


def blocked_period(
    start_time: datetime, end_time: datetime, *, before: timedelta, after: timedelta
) -> DateTimeTZRange:
    """Return the period of a booking or a slot, widened by its buffers."""
    return DateTimeTZRange(start_time - before, end_time + after)


class TsTzRange(Func):
    """PostgreSQL's `tstzrange(start, end)`, half-open."""

    function = "tstzrange"
    output_field = DateTimeRangeField()


# Whether a booking stores a name, email address or phone number of its own. Most bookings do not,
# so the index for the search leaves them out. The empty texts are a part of the SQL: if they were
# parameters, PostgreSQL could not use the index.
HAS_ATTENDEE = Func(
    F("attendee_name"),
    F("attendee_email"),
    F("attendee_phone"),
    template="(%(expressions)s) <> ('', '', '')",
    output_field=models.BooleanField(),
)


# Whether a booking takes longer than a day. There are few such bookings, if any. Every other
# booking that ends after an instant starts at most a day before this instant, so a search by the
# start finds it.
IS_LONG = Func(
    F("end_time"),
    F("start_time"),
    arg_joiner=" - ",
    template="(%(expressions)s) > interval '1 day'",
    output_field=models.BooleanField(),
)


class Slot(OnCalendar):
    """A published session of a service: a class, or a specialist's appointment.

    It occupies its calendar's time until it is cancelled, even without a booking.
    """

    class Status(models.TextChoices):
        """Whether the slot takes place."""

        SCHEDULED = "scheduled", _("Scheduled")
        CANCELLED = "cancelled", _("Cancelled")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # In the database, service and calendar form one foreign key, `slot_service_on_calendar`.
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
    blocked = DateTimeRangeField(help_text=_("The period, widened by the service's buffers."))
    capacity = models.PositiveIntegerField(
        validators=[MinValueValidator(1), MaxValueValidator(MAX_CAPACITY)]
    )
    status = models.CharField(max_length=9, choices=Status, default=Status.SCHEDULED)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

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
            # The foreign key `booking_in_slot` refers to these columns, so a booking always has the
            # time of its slot.
            models.UniqueConstraint(
                fields=["id", "service", "calendar", "start_time", "end_time", "blocked"],
                name="slot_time",
            ),
            # The foreign keys of waitlist entries refer to both columns.
            models.UniqueConstraint(fields=["calendar", "id"], name="slot_on_calendar"),
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
            # A slot is on the calendar of its service.
            CompositeForeignKey(
                name="slot_service_on_calendar",
                fields=["service", "calendar"],
                to="catalog.Service",
                to_fields=["id", "calendar"],
            ),
            triggers.SLOT_OCCUPIES,
            triggers.SLOT_UPDATED_AT,
        ]

    def __str__(self) -> str:
        return f"{self.start_time:%Y-%m-%d %H:%M} UTC, {self.get_status_display()}"


class BookingQuerySet(models.QuerySet["Booking"]):
    """Queries for bookings."""

    def on_calendars_of(self, user: User) -> "BookingQuerySet":
        """Return the bookings on the calendars of `user`; none for a former provider."""
        return self.filter(user.on_own_calendars("calendar__provider"))

    def served_by(self, user: User) -> "BookingQuerySet":
        """Return the bookings that `user` may see as their provider, an admin or staff."""
        return self.all() if user.may("bookings.view_booking") else self.on_calendars_of(user)

    def on_calendars(self, calendars: "models.QuerySet[Calendar]") -> "BookingQuerySet":
        """Return the bookings on some calendars.

        The condition is written twice, so that PostgreSQL expects very few bookings and uses the
        index by calendar. Otherwise, it could read the bookings of all calendars in the order of
        the list until a page is full. That takes seconds if only a few of many calendars are
        wanted.
        """
        ids = ArraySubquery(calendars.order_by().values("pk"))
        return self.filter(AnyOf(F("calendar"), ids)).filter(AnyOf(F("calendar"), ids.copy()))

    def with_status(self, *statuses: str) -> "BookingQuerySet":
        """Return the bookings with one of the statuses.

        If the only status is `held`, the query also contains the condition of the partial indexes
        of holds. Otherwise, if all statuses are unfinished, it contains the condition of the index
        `booking_unfinished`. PostgreSQL can then use these indexes.
        """
        found = self.filter(status__in=statuses)
        if {*statuses} == {Booking.Status.HELD}:
            return found.filter(hold_expires_at__isnull=False)
        return found.filter(unfinished=True) if {*statuses} <= {*Booking.UNFINISHED} else found

    def ending_after(self, at: Any) -> "BookingQuerySet":
        """Return the bookings that end after an instant.

        Only long bookings (`IS_LONG`) have an index by the end, so the query searches by the start.
        A booking that ends after the instant starts at most a day before it, unless the booking is
        long. The search begins a day before the instant, or at the start of the first long booking
        that ends after the instant, whichever is earlier.
        """
        at = Cast(at, models.DateTimeField())
        # PostgreSQL does not know that there are few long bookings. If the order were `start_time`
        # itself, PostgreSQL would look for a long booking in `booking_by_start`, the index of all
        # bookings.
        start = F("start_time") + Value(timedelta(0))
        long = Booking.objects.filter(IS_LONG, end_time__gt=at).order_by(start)
        first_long = models.Subquery(long.values("start_time")[:1])
        earliest = Least(at - Value(timedelta(days=1)), first_long)
        return self.filter(end_time__gt=at, start_time__gte=earliest)

    def held_by(self, actor: User) -> "BookingQuerySet":
        """Return the bookings that began as a hold by `actor`, whoever the booking is for."""
        made = BookingEvent.objects.filter(
            calendar=models.OuterRef("calendar"),
            booking=models.OuterRef("pk"),
            type=BookingEvent.Type.HELD,
            actor=actor,
        )
        return self.filter(models.Exists(made))


class Booking(OnCalendar):
    """A seat of a service for a period.

    The service's price, currency, length and buffers are copied when the booking is made, so a
    later change to the service does not affect them. A booking in a slot gets the slot's length and
    buffers.
    """

    class Status(models.TextChoices):
        """The status of a booking. `bookings.transitions.TRANSITIONS` lists the allowed changes."""

        HELD = "held", _("Held")
        PENDING = "pending", _("Pending")
        CONFIRMED = "confirmed", _("Confirmed")
        CANCELLED = "cancelled", _("Cancelled")
        COMPLETED = "completed", _("Completed")
        EXPIRED = "expired", _("Expired")
        NO_SHOW = "no_show", _("No Show")

    # The statuses of bookings that are expected to take place. Only these bookings can be moved.
    # Holds are left out, because nobody has booked yet.
    EXPECTED = [Status.PENDING, Status.CONFIRMED]
    # The statuses of bookings that are expected to take place, took place, or should have done so.
    BOOKED = [*EXPECTED, Status.COMPLETED, Status.NO_SHOW]
    # The statuses of bookings that occupy their seat.
    ACTIVE = [Status.HELD, *BOOKED]
    # The statuses that will still change as time passes.
    UNFINISHED = [Status.HELD, *EXPECTED]

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.RESTRICT, related_name="bookings", db_index=False
    )
    # In the database, service and calendar form one foreign key, `booking_service_on_calendar`, so
    # a booking is always on the calendar of its service.
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
    # In the database, the slot and its service, calendar and time form one foreign key,
    # `booking_in_slot`.
    slot = SameCalendarKey(
        Slot,
        on_delete=models.RESTRICT,
        null=True,
        blank=True,
        related_name="bookings",
        db_index=False,
        db_constraint=False,
        help_text=_("The published slot, if the booking is in one."),
    )
    seat = models.PositiveIntegerField()
    start_time = models.DateTimeField()
    end_time = models.DateTimeField()
    blocked = DateTimeRangeField(help_text=_("The period, widened by the service's buffers."))
    status = models.CharField(max_length=9, choices=Status)
    # The exclusion constraints use this column instead of the status. Therefore, the change from
    # pending to confirmed updates no index if the page of the row has free space (`fillfactor`).
    # PostgreSQL then checks no exclusion constraint again, so the change does not wait for other
    # transactions.
    active = models.GeneratedField(
        expression=ExpressionWrapper(
            Q(status__in=["held", "pending", "confirmed", "completed", "no_show"]),
            models.BooleanField(),
        ),
        output_field=models.BooleanField(),
        db_persist=True,
    )
    # Whether the status will still change as time passes. The index `booking_unfinished` uses this
    # column instead of the status, for the same reason as above.
    unfinished = models.GeneratedField(
        expression=ExpressionWrapper(
            Q(status__in=["held", "pending", "confirmed"]), models.BooleanField()
        ),
        output_field=models.BooleanField(),
        db_persist=True,
    )
    attendee_name = models.CharField(max_length=200, blank=True, default="")
    attendee_email = models.EmailField(blank=True, default="")
    attendee_phone = models.CharField(
        max_length=32, blank=True, default="", db_default="", validators=[validate_phone]
    )
    language = models.CharField(
        max_length=35,
        blank=True,
        default="",
        db_default="",
        validators=[validate_language],
        help_text=_("The language of emails to the customer."),
    )
    notes = models.TextField(max_length=2000, blank=True, default="")
    cancellation_reason = models.CharField(max_length=500, blank=True, default="", db_default="")
    price = models.DecimalField(max_digits=money.DIGITS, decimal_places=money.DECIMALS)
    currency = models.CharField(max_length=3)
    hold_expires_at = models.DateTimeField(null=True, blank=True)
    metadata = MetadataField()
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
            # The end is in the index, so a search for the bookings that end after an instant does
            # not read the rows of bookings that end earlier.
            models.Index(fields=["start_time", "id", "end_time"], name="booking_by_start"),
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
            # For the search of the admin site.
            GinIndex(
                OpClass(Upper("attendee_name"), name="gin_trgm_ops"),
                OpClass(Upper("attendee_email"), name="gin_trgm_ops"),
                OpClass(digits_of("attendee_phone"), name="gin_trgm_ops"),
                condition=Q(HAS_ATTENDEE),
                name="booking_by_attendee",
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
            models.Index(
                fields=["end_time", "start_time"], name="booking_long", condition=Q(IS_LONG)
            ),
        ]
        constraints = [
            # The foreign keys of reviews, waitlist entries and staff notes refer to both columns.
            models.UniqueConstraint(fields=["calendar", "id"], name="booking_on_calendar"),
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
            # Without buffers, an empty period would overlap nothing, so no exclusion constraint
            # would refuse it.
            models.CheckConstraint(
                condition=Q(end_time__gt=F("start_time")), name="booking_period_not_empty"
            ),
            models.CheckConstraint(
                condition=Q(language__regex="^([a-z]{2,3}(-[A-Za-z0-9]{2,8})*)?$"),
                name="booking_language_tag",
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
            # A hold without an expiry time would keep its seat forever. No other booking has an
            # expiry time.
            models.CheckConstraint(
                condition=Q(status="held", hold_expires_at__isnull=False)
                | (~Q(status="held") & Q(hold_expires_at__isnull=True)),
                name="booking_hold_expires",
            ),
            # A booking is on the calendar of its service. If it were on another calendar, it would
            # evade the constraint that a calendar hosts one service at a time.
            CompositeForeignKey(
                name="booking_service_on_calendar",
                fields=["service", "calendar"],
                to="catalog.Service",
                to_fields=["id", "calendar"],
            ),
            # A booking in a slot has the service, the calendar and the time of the slot.
            CompositeForeignKey(
                name="booking_in_slot",
                fields=["slot", "service", "calendar", "start_time", "end_time", "blocked"],
                to="bookings.Slot",
                to_fields=["id", "service", "calendar", "start_time", "end_time", "blocked"],
            ),
            metadata_fits("booking_metadata_fits"),
            triggers.BOOKING_TRANSITION,
            triggers.BOOKING_UPDATED_AT,
            triggers.BOOKING_OCCUPIES,
            triggers.WAITLIST_FOLLOWS,
        ]

    def __str__(self) -> str:
        return f"{self.start_time:%Y-%m-%d %H:%M} UTC, {self.get_status_display()}"

    # The values of the account are not copied into the booking, so that a later change of the
    # account also changes the attendee.
    def attendee(self) -> dict[str, str]:
        """Return the attendee's name, email address, phone number and language, by column name.

        A value that was not given is taken from the user of the booking.
        """
        return {
            "attendee_name": self.attendee_name or self.user.name,
            "attendee_email": self.attendee_email or self.user.mailbox,
            "attendee_phone": self.attendee_phone or self.user.phone,
            "language": self.language or self.user.language,
        }

    def customer(self) -> str:
        """Return the attendee's name, or else `in_words()` of the user of the booking."""
        return self.attendee()["attendee_name"] or self.user.in_words()


class Occupancy(OnCalendar):
    """A period of a calendar that a slot, or a booking without a slot, occupies.

    Slots and bookings are two tables, but an exclusion constraint covers only one table. Therefore,
    triggers copy the periods that slots and bookings occupy into this table. Only triggers can
    write to it.
    """

    id = models.UUIDField(primary_key=True, help_text=_("The id of the slot or the booking."))
    occupant = models.UUIDField(
        help_text=_("The slot, or the service if it is booked without a slot.")
    )
    seat = models.PositiveIntegerField(
        null=True, help_text=_("The seat of a booking; empty for a slot, which occupies all seats.")
    )
    blocked = DateTimeRangeField()
    expires_at = models.DateTimeField(null=True, help_text=_("When the hold expires."))

    class Meta:
        indexes = [
            # Searches for free times read whole weeks of a calendar. For these searches, this index
            # is three times as fast as the index of the constraint below, and it returns the rows
            # in order.
            models.Index(
                F("calendar"),
                F("blocked__endswith"),
                F("blocked__startswith"),
                name="occupancy_by_end",
            ),
        ]
        constraints = [
            # The order of the columns matters, because the constraint's index is searched by
            # calendar and time. If the occupant came before the time, a search would read every row
            # of a calendar, because each slot is a separate occupant.
            ExclusionConstraint(
                name="occupancy_one_at_a_time",
                expressions=[
                    ("calendar", RangeOperators.EQUAL),
                    ("blocked", RangeOperators.OVERLAPS),
                    ("occupant", RangeOperators.NOT_EQUAL),
                ],
            ),
            triggers.OCCUPANCY_IS_DERIVED,
        ]

    def __str__(self) -> str:
        return f"{self.occupant}, {self.blocked}"


class BookingEvent(OnCalendar):
    """An event in the history of a booking, written in the same transaction as the change.

    Later, only its reason may be removed. An event outlives its booking, so the reference to the
    booking is not a foreign key in the database. An event contains ids, times, states, numbers,
    codes, flags, the names of changed details, and a reason, unless the booking's user gave it. It
    contains no contact data, and nothing that this user wrote.

    The order of ids, and of times, is the order in which things happened to a booking. See
    `bookings.triggers.EVENT_JOINS_HISTORY`.
    """

    class Type(models.TextChoices):
        """What happened to the booking."""

        HELD = "booking.held", _("Held")
        CREATED = "booking.created", _("Created")
        CONFIRMED = "booking.confirmed", _("Confirmed")
        RESCHEDULED = "booking.rescheduled", _("Rescheduled")
        CHANGED = "booking.changed", _("Changed")
        CANCELLED = "booking.cancelled", _("Cancelled")
        COMPLETED = "booking.completed", _("Completed")
        EXPIRED = "booking.expired", _("Expired")
        NO_SHOW = "booking.no_show", _("No Show")
        DELETED = "booking.deleted", _("Deleted")
        REMINDED = "booking.reminded", _("Reminded")
        REVIEWED = "review.created", _("Reviewed")

    # PostgreSQL makes the id from its own clock, because the clocks of web hosts differ.
    id = models.UUIDField(
        primary_key=True,
        db_default=Func(function="uuid7", output_field=models.UUIDField()),
        editable=False,
    )
    booking = SameCalendarKey(
        Booking,
        on_delete=models.DO_NOTHING,
        db_index=False,
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
        help_text=_("The user who caused the event; empty if it happened automatically."),
    )
    # Not a foreign key, because events outlive keys.
    api_key_id = models.UUIDField(
        _("API key"),
        null=True,
        blank=True,
        help_text=_("The API key with which the actor caused the event, if any."),
    )
    at = models.DateTimeField()
    data = models.JSONField(default=dict)
    # The server that assigned the id of the transaction; 0 unless the database is distributed.
    server = models.SmallIntegerField(db_default=0, editable=False)
    # Ids are assigned before the commit, so an event may become visible after an event with a
    # higher id. To miss no event, a reader sorts events by transaction, and reads only the events
    # of transactions that are older than the oldest open transaction.
    transaction = models.BigIntegerField(
        db_default=Cast(
            Cast(Func(function="pg_current_xact_id"), models.TextField()), models.BigIntegerField()
        ),
        editable=False,
    )

    class Meta:
        ordering = ["id"]
        indexes = [
            models.Index(fields=["transaction", "id"], name="event_by_transaction"),
            models.Index(fields=["booking", "id"], name="event_by_booking"),
            models.Index(fields=["type", "id"], name="event_by_type"),
            # Finds the events that a leaked key has caused. Most events have no key.
            models.Index(
                fields=["api_key_id", "id"],
                name="event_by_api_key",
                condition=Q(api_key_id__isnull=False),
            ),
            # Distinguishes released holds from cancelled bookings, which have the same status.
            models.Index(
                fields=["booking"],
                name="event_hold_released",
                condition=Q(type="booking.cancelled") & Q(data__was__status="held"),
            ),
        ]
        constraints = [
            # A booking has at most one reminder for each start time and each number of hours before
            # it, even if several workers write reminders at the same time.
            models.UniqueConstraint(
                "booking",
                KT("data__start_time"),
                KT("data__hours"),
                condition=Q(type="booking.reminded"),
                nulls_distinct=False,
                name="event_reminded_once",
            ),
            triggers.EVENT_JOINS_HISTORY,
            triggers.EVENT_IS_FINAL,
            triggers.EVENTS_ARE_FOLLOWED_UP,
        ]

    def __str__(self) -> str:
        return f"{self.type}, {self.at:%Y-%m-%d %H:%M} UTC"


class BookedCalendar(models.Model):
    """A calendar on which a user has a booking, had one, or was refused one.

    Only a distributed database has such rows; see `bookings.booked`.
    """

    id = models.BigAutoField(primary_key=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, db_index=False, related_name="+"
    )
    # Not a foreign key, so that deleting a calendar need not read this table.
    calendar_id = models.UUIDField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "calendar_id"], name="booked_calendar_once"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} on {self.calendar_id}"
