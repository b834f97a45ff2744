"""Shapes of bookings, of free times and of slots."""

from datetime import datetime
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import JSONObject
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from accounts.models import User
from accounts.serializers import MailAddressField
from bookings.availability import LONGEST
from bookings.events import TOLD
from bookings.models import Attempt, Booking, BookingEvent, Delivery, Slot, WaitlistEntry, Webhook
from bookings.recurrence import LONGEST_RULE, Rule, parse_rule
from bookings.slots import SEATS_LEFT
from bookings.waitlist import POSITION
from bookit.money import in_currency
from bookit.schema import SOMETIMES, example
from bookit.serializers import InputSerializer, ListField, RowSerializer
from bookit.times import DayOrInstantField, InstantField

FEED = "https://bookit.example.com/{}.ics?token=WyJvd24iXQ.Lq3cP0Zk9V8Jt1s4"
CALENDAR = "calendars/0199d3a0-6a31-7e8a-a0f5-3e6a4c1b8d07"
# Of what an event keeps of a booking, the instants.
EVENT_TIMES = frozenset({"start_time", "end_time", "hold_expires_at"})

CONFIRMED = {
    "id": "0199d3a4-02aa-7d0c-9b1f-6f0e5b8f2a11",
    "user_id": "0199d3a1-7c1e-7f61-b2ab-0a1c5d3f9e10",
    "service_id": "0199d3a0-6a3b-7c55-8f0d-1f6f2b7c9d42",
    "calendar_id": "0199d3a0-6a31-7e8a-a0f5-3e6a4c1b8d07",
    "slot_id": None,
    "seat": 1,
    "start_time": "2026-12-01T10:00:00Z",
    "end_time": "2026-12-01T10:30:00Z",
    "status": "confirmed",
    "attendee_name": "Ana Silva",
    "attendee_email": "",
    "notes": "Short at the sides, please.",
    "price": "25.00",
    "currency": "EUR",
    "hold_expires_at": None,
    "created_at": "2026-11-21T09:00:00Z",
    "updated_at": "2026-11-21T09:05:00Z",
}


@example("A confirmed booking", CONFIRMED)
class BookingSerializer(RowSerializer):
    """A booking: a seat of a service for a period."""

    user_id = serializers.UUIDField(read_only=True)
    service_id = serializers.UUIDField(read_only=True)
    calendar_id = serializers.UUIDField(read_only=True)
    # Not an EmailField: it is empty where none was given.
    attendee_email = serializers.CharField(read_only=True)
    slot_id = serializers.UUIDField(
        read_only=True, allow_null=True, help_text="The published slot, if it is in one."
    )

    class Meta:
        model = Booking
        fields = [
            "id",
            "user_id",
            "service_id",
            "calendar_id",
            "slot_id",
            "seat",
            "start_time",
            "end_time",
            "status",
            "attendee_name",
            "attendee_email",
            "notes",
            "price",
            "currency",
            "hold_expires_at",
            "created_at",
            "updated_at",
        ]
        read_only_fields = fields

    @classmethod
    def represent(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Write the price with the decimals of its currency."""
        row["price"] = in_currency(row["price"], row["currency"])
        return row


@example(
    "Ten o'clock",
    {
        "service_id": "0199d3a0-6a3b-7c55-8f0d-1f6f2b7c9d42",
        "start_time": "2026-12-01T10:00:00Z",
        "notes": "Short at the sides, please.",
    },
)
class BookingCreateSerializer(InputSerializer):
    """What to book, and for whom."""

    ignored = frozenset(BookingSerializer.Meta.fields)

    service_id = serializers.UUIDField(required=False)
    service_ids = ListField(
        child=serializers.UUIDField(),
        required=False,
        min_length=1,
        max_length=20,
        help_text="In place of service_id: any of these, whichever is free; the fairest first.",
    )
    slot_id = serializers.UUIDField(
        required=False, allow_null=True, help_text="A published slot, which says when."
    )
    start_time = InstantField(required=False, help_text="Needed unless slot_id says when.")
    end_time = InstantField(
        required=False, help_text="Follows from the duration; one that is sent must agree."
    )
    user_id = serializers.UUIDField(required=False, help_text="Admins alone.")
    attendee_name = serializers.CharField(required=False, allow_blank=True, max_length=200)
    attendee_email = MailAddressField(required=False, allow_blank=True)
    notes = serializers.CharField(required=False, allow_blank=True, max_length=2000)
    hold = serializers.BooleanField(
        required=False, help_text="Only keep the seat, until hold_expires_at."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a body that does not say what to book, or when."""
        if "service_id" in attrs and "service_ids" in attrs:
            raise ValidationError({"service_ids": ["Name one service, or several, not both."]})
        if attrs.get("slot_id") is None:
            missing = [] if "service_ids" in attrs else ["service_id"]
            missing = [name for name in [*missing, "start_time"] if name not in attrs]
            if missing:
                raise ValidationError(
                    {name: ["This field is required."] for name in missing}, code="required"
                )
        return attrs


@example("An hour later", {"start_time": "2026-12-01T11:00:00Z"})
class BookingChangeSerializer(InputSerializer):
    """Another start or slot, or another status."""

    ignored = frozenset(BookingSerializer.Meta.fields)

    start_time = InstantField(required=False)
    slot_id = serializers.UUIDField(required=False, allow_null=True)
    status = serializers.ChoiceField(Booking.Status.choices, required=False)


@example("It took place", {"status": "completed"})
class StatusChangeSerializer(InputSerializer):
    """Another status, and why."""

    status = serializers.ChoiceField(Booking.Status.choices)
    reason = serializers.CharField(required=False, allow_blank=True, max_length=500)


@example(
    "It was confirmed",
    {
        "type": "booking.confirmed",
        "actor_id": "0199d3a1-7c1e-7f61-b2ab-0a1c5d3f9e10",
        "at": "2026-11-21T09:05:00Z",
        "data": {
            "status": "confirmed",
            "start_time": "2026-12-01T10:00:00Z",
            "end_time": "2026-12-01T10:30:00Z",
            "seat": 1,
            "slot_id": None,
            "hold_expires_at": None,
            "was": {"status": "pending"},
        },
    },
)
class HistoryEventSerializer(RowSerializer):
    """Something that happened to a booking."""

    # Not a choice: there will be more of them.
    type = serializers.CharField(read_only=True)
    actor_id = serializers.UUIDField(
        read_only=True, allow_null=True, help_text="Who did it; null when the clock did."
    )
    data = serializers.DictField(  # type: ignore[assignment]
        read_only=True,
        help_text="All of the booking that changes, as it was then, and what it `was` before.",
    )

    class Meta:
        model = BookingEvent
        fields = ["type", "actor_id", "at", "data"]
        read_only_fields = fields

    @classmethod
    def represent(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Return what the client sees: the times in the event in the zone of the answer, too."""
        data = _with_instants(row["data"])
        if "was" in data:
            data["was"] = _with_instants(data["was"])
        return {**row, "data": data}


def _with_instants(state: dict[str, Any]) -> dict[str, Any]:
    return {
        name: datetime.fromisoformat(value) if value and name in EVENT_TIMES else value
        for name, value in state.items()
    }


@example("One's own", {"address": FEED.format("me/calendar")})
class FeedSerializer(InputSerializer):
    """Where calendar programs find one's bookings."""

    address = serializers.CharField(read_only=True, help_text="For nobody else: it is a key.")


@example(
    "Two addresses",
    {"address": FEED.format(CALENDAR), "address_with_names": FEED.format(CALENDAR)},
)
class CalendarFeedSerializer(InputSerializer):
    """Where calendar programs find what a calendar's time is taken by."""

    address = serializers.CharField(read_only=True, help_text="Shows when it is busy, to anyone.")
    address_with_names = serializers.CharField(
        read_only=True, help_text="Shows also who comes: for nobody else."
    )


class SearchSerializer(InputSerializer):
    """When to look for free times, in a query."""

    ignored = frozenset({"tz"})  # The view reads it.

    # `from` is a word of Python's own.
    vars()["from"] = DayOrInstantField(
        required=False, help_text="Times that start from then on; now, unless given."
    )
    to = DayOrInstantField(
        required=False,
        help_text="Times that start before it, a date meaning its end; a week later, unless given. "
        f"At most {LONGEST.days} days.",
    )


class ServiceSearchSerializer(SearchSerializer):
    """When to look for free times of a service, and whether to say why others are not."""

    explain = serializers.BooleanField(
        required=False,
        help_text="Also list what is not free, and why; its provider and admins.",
    )


class ServicesSearchSerializer(SearchSerializer):
    """When to look for free times of which services."""

    service_id = ListField(
        child=serializers.UUIDField(), min_length=1, max_length=50, help_text="Up to 50 services."
    )


class FreeTimeSerializer(InputSerializer):
    """A time that can be booked."""

    start_time = InstantField()
    end_time = InstantField()
    seats_left = serializers.IntegerField(min_value=1)
    slot_id = serializers.UUIDField(allow_null=True)


class RefusalSerializer(InputSerializer):
    """A time that cannot be booked, and the code of the answer to who tried."""

    start_time = InstantField()
    end_time = InstantField()
    slot_id = serializers.UUIDField(allow_null=True)
    code = serializers.CharField()


MORNING = {
    "service_id": "0199d3a0-6a3b-7c55-8f0d-1f6f2b7c9d42",
    "timezone": "Europe/Lisbon",
    "times": [
        {
            "start_time": "2026-12-01T09:00:00+00:00",
            "end_time": "2026-12-01T09:30:00+00:00",
            "seats_left": 1,
            "slot_id": None,
        }
    ],
}


@extend_schema_serializer(extensions={SOMETIMES: ["refused"]})
@example("A morning", MORNING)
class AvailabilitySerializer(InputSerializer):
    """The free times of a service, in order."""

    service_id = serializers.UUIDField()
    timezone = serializers.CharField(help_text="The zone that the times are written in.")
    times = FreeTimeSerializer(many=True, read_only=True)
    refused = RefusalSerializer(many=True, read_only=True, help_text="With `explain`.")


@example("A morning", {"results": [MORNING]})
class AvailabilitiesSerializer(InputSerializer):
    """The free times of several services, in the order in which they were asked for."""

    results = AvailabilitySerializer(many=True, read_only=True)


CLASS = {
    "id": "0199d3a5-11c8-7b3e-8d52-4a9e0c6f1b73",
    "service_id": "0199d3a0-6a3b-7c55-8f0d-1f6f2b7c9d42",
    "calendar_id": "0199d3a0-6a31-7e8a-a0f5-3e6a4c1b8d07",
    "start_time": "2026-12-01T18:00:00Z",
    "end_time": "2026-12-01T19:00:00Z",
    "capacity": 12,
    "seats_left": 12,
    "status": "scheduled",
    "created_at": "2026-11-21T09:00:00Z",
}


@example("A class", CLASS)
class SlotSerializer(RowSerializer):
    """A slot: a published session of a service."""

    service_id = serializers.UUIDField(read_only=True)
    calendar_id = serializers.UUIDField(read_only=True)
    seats_left = serializers.IntegerField(
        read_only=True,
        min_value=0,
        help_text="Those that can be booked: not those that others wait for; none when cancelled.",
    )

    annotations = {"seats_left": SEATS_LEFT}

    class Meta:
        model = Slot
        fields = [
            "id",
            "service_id",
            "calendar_id",
            "start_time",
            "end_time",
            "capacity",
            "seats_left",
            "status",
            "created_at",
        ]
        read_only_fields = fields

    @classmethod
    def represent_instance(cls, instance: Slot) -> dict[str, Any]:  # type: ignore[override]
        """Return what the client sees of an instance."""
        return cls.represent_many([instance])[0]

    @classmethod
    def represent_many(cls, slots: list[Slot]) -> list[dict[str, Any]]:
        """Return what the client sees of instances, by their starts."""
        stored = Slot.objects.filter(pk__in=[slot.pk for slot in slots])
        return [cls.represent(row) for row in cls.rows(stored.order_by("start_time", "id"))]


@example(
    "Every Tuesday at this time, ten times",
    {
        "service_id": CLASS["service_id"],
        "start_time": CLASS["start_time"],
        "capacity": CLASS["capacity"],
        "rrule": "FREQ=WEEKLY;COUNT=10",
    },
)
class SlotPublishSerializer(InputSerializer):
    """Of what, when, and how often."""

    ignored = frozenset(SlotSerializer.Meta.fields)

    service_id = serializers.UUIDField()
    start_time = InstantField(help_text="Of a series the first.")
    capacity = serializers.IntegerField(
        required=False, min_value=1, max_value=1000, help_text="By default the service's."
    )
    rrule = serializers.CharField(
        required=False,
        max_length=LONGEST_RULE,
        help_text="RFC 5545: makes a series, at the same wall-clock time in the calendar's zone. "
        "`DAILY`, `WEEKLY`, `MONTHLY` or `YEARLY`, with `COUNT` or `UNTIL`, 366 slots at most.",
    )

    def validate_rrule(self, text: str) -> Rule:
        """Return the rule."""
        try:
            return parse_rule(text)
        except ValueError as error:
            raise serializers.ValidationError(str(error), code="invalid") from None


@example("Room for three more", {"capacity": 15})
class SlotChangeSerializer(InputSerializer):
    """Another capacity, or that it does not take place."""

    ignored = frozenset(SlotSerializer.Meta.fields)

    capacity = serializers.IntegerField(
        required=False,
        min_value=1,
        max_value=1000,
        help_text="Not below the seats that are taken.",
    )
    status = serializers.ChoiceField(
        Slot.Status.choices,
        required=False,
        help_text="`cancelled` cancels its bookings, too.",
    )


@example(
    "The second in line",
    {
        "id": "0199d3a6-4e07-7c92-b1a8-2c5d9e7f3b60",
        "slot_id": CLASS["id"],
        "user_id": "0199d3a1-7c1e-7f61-b2ab-0a1c5d3f9e10",
        "status": "waiting",
        "position": 2,
        "booking_id": None,
        "created_at": "2026-11-21T09:00:00Z",
    },
)
class WaitlistEntrySerializer(RowSerializer):
    """A place in the queue for a full slot."""

    slot_id = serializers.UUIDField(read_only=True)
    user_id = serializers.UUIDField(read_only=True)
    position = serializers.IntegerField(
        read_only=True,
        allow_null=True,
        min_value=1,
        help_text="From 1; null when one waits no longer.",
    )
    booking_id = serializers.UUIDField(
        read_only=True,
        allow_null=True,
        help_text="The hold that is offered, which `PATCH /bookings/{id}` with the status "
        "`pending` makes a booking; then that booking.",
    )

    annotations = {"position": POSITION}

    class Meta:
        model = WaitlistEntry
        fields = ["id", "slot_id", "user_id", "status", "position", "booking_id", "created_at"]
        read_only_fields = fields

    @classmethod
    def represent_instance(cls, instance: WaitlistEntry) -> dict[str, Any]:  # type: ignore[override]
        """Return what the client sees of an instance."""
        return cls.represent(cls.rows(WaitlistEntry.objects.filter(pk=instance.pk)).get())


class WaitlistJoinSerializer(InputSerializer):
    """Nothing: who asks is who waits, and the path says for what."""

    ignored = frozenset(WaitlistEntrySerializer.Meta.fields)


EVENT_CHOICES = [(kind.value, kind.label) for kind in TOLD]


@example(
    "A booking was confirmed",
    {
        "id": "1042",
        "type": "booking.confirmed",
        "timestamp": CONFIRMED["updated_at"],
        "data": CONFIRMED,
    },
)
class EventSerializer(InputSerializer):
    """Something that happened."""

    id = serializers.CharField()
    type = serializers.ChoiceField(EVENT_CHOICES)
    timestamp = InstantField(help_text="When it happened.")
    data = serializers.DictField(  # type: ignore[assignment]
        help_text="The booking, or the review, as the API shows it, in the state of that moment."
    )


HOOK = {
    "url": "https://hooks.example.com/bookit",
    "events": ["booking.created", "booking.cancelled"],
}
HOOKED = {
    "id": "0199d3a6-40d1-7e52-9c3a-5b8f7d2e1a64",
    "owner_id": "0199d3a1-7c1e-7f61-b2ab-0a1c5d3f9e10",
    "is_active": True,
    "failing_since": None,
    "disabled_reason": "",
    "created_at": "2026-11-21T09:00:00Z",
    "updated_at": "2026-11-21T09:00:00Z",
}
SECRET = {"secret": "whsec_Tk90IGEgc2VjcmV0LCBidXQgYW4gZXhhbXBsZSE="}


@example("Bookings that come and go", HOOK, answer=HOOKED)
class WebhookSerializer(RowSerializer):
    """An address that is told what happens. Its secret is shown once, when it is made."""

    url = serializers.CharField(max_length=2000, help_text="HTTPS or HTTP, to a public address.")
    events = ListField(
        child=serializers.ChoiceField(EVENT_CHOICES),
        min_length=1,
        max_length=100,
        help_text="The types that it is told of.",
    )
    is_active = serializers.BooleanField(required=False)

    owner_id = serializers.UUIDField(
        read_only=True,
        allow_null=True,
        help_text=(
            "The admin who made it, or who last switched it on or renewed its secret. It is sent "
            "nothing when they are no longer an admin."
        ),
    )

    ignored = frozenset({"secret"})
    annotations = {
        "has_admin": Exists(User.objects.all().active_admins().filter(pk=OuterRef("owner")))
    }

    class Meta:
        model = Webhook
        fields = [
            "id",
            "owner_id",
            "url",
            "events",
            "is_active",
            "failing_since",
            "disabled_reason",
            "created_at",
            "updated_at",
        ]
        read_only_fields = ["failing_since", "disabled_reason"]

    @classmethod
    def rows(cls, queryset: QuerySet[Any]) -> QuerySet[Any, dict[str, Any]]:
        """Return the queryset's rows as dictionaries of the columns that are shown."""
        return queryset.annotate(**cls.annotations).values(*cls.Meta.fields, *cls.annotations)

    @classmethod
    def represent(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Return what the client sees of a row of `rows`."""
        if row.pop("has_admin"):
            return row
        reason = row["disabled_reason"] or Webhook.NO_ADMIN
        return {**row, "is_active": False, "disabled_reason": reason}

    @classmethod
    def represent_instance(cls, instance: Webhook) -> dict[str, Any]:  # type: ignore[override]
        """Return what the client sees of an instance."""
        names = [*cls.Meta.fields, *cls.annotations]
        return cls.represent({name: getattr(instance, name) for name in names})


@example("With its secret", {**HOOK, **HOOKED, **SECRET}, response_only=True)
class WebhookSecretSerializer(WebhookSerializer):
    """A webhook with its secret."""

    class Meta(WebhookSerializer.Meta):
        fields = [*WebhookSerializer.Meta.fields, "secret"]
        read_only_fields = [*WebhookSerializer.Meta.read_only_fields, "secret"]


class NothingSerializer(InputSerializer):
    """A body that has nothing to say."""


class AttemptSerializer(InputSerializer):
    """One try of a delivery, and what came of it."""

    at = InstantField()
    duration_ms = serializers.IntegerField(min_value=0)
    status_code = serializers.IntegerField(allow_null=True)
    error = serializers.CharField(help_text="Why there was no answer; empty if there was.")
    response = serializers.CharField(help_text="How the answer begins: at most 2 KiB.")


@example(
    "Arrived at the second attempt",
    {
        "id": "0199d3a7-52e3-7a18-8f4d-6c9a0b3e2d75",
        "webhook_id": HOOKED["id"],
        "event_id": "1042",
        "type": "booking.confirmed",
        "status": "delivered",
        "next_attempt_at": None,
        "created_at": "2026-11-21T09:05:00Z",
        "attempts": [
            {
                "at": "2026-11-21T09:05:00Z",
                "duration_ms": 10000,
                "status_code": None,
                "error": "No answer within 10 seconds.",
                "response": "",
            },
            {
                "at": "2026-11-21T09:05:15Z",
                "duration_ms": 84,
                "status_code": 204,
                "error": "",
                "response": "",
            },
        ],
    },
    status_codes=[200, 202],
)
class DeliverySerializer(RowSerializer):
    """A message to a webhook: an event, or a test. Its id is the `webhook-id` of each attempt."""

    webhook_id = serializers.UUIDField(read_only=True)
    event_id = serializers.CharField(
        read_only=True, allow_null=True, help_text="As at `/events`; null for a test."
    )
    attempts = AttemptSerializer(many=True, read_only=True)

    annotations = {
        # Another name than that of the field, which the model has for its rows.
        "tried": ArraySubquery(
            Attempt.objects.filter(delivery=OuterRef("pk"))
            .order_by("id")
            .values(
                attempt=JSONObject(
                    at="at",
                    duration_ms="duration_ms",
                    status_code="status_code",
                    error="error",
                    response="response",
                )
            )
        )
    }

    class Meta:
        model = Delivery
        fields = [
            "id",
            "webhook_id",
            "event_id",
            "type",
            "status",
            "next_attempt_at",
            "created_at",
            "attempts",
        ]
        read_only_fields = fields

    @classmethod
    def rows(cls, queryset: QuerySet[Any]) -> QuerySet[Any, dict[str, Any]]:
        """Return the queryset's rows as dictionaries of the columns that are shown."""
        columns = [name for name in cls.Meta.fields if name != "attempts"]
        return queryset.annotate(**cls.annotations).values(*columns, *cls.annotations)

    @classmethod
    def represent(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Return what the client sees of a row of `rows`."""
        attempts = row.pop("tried")
        return {
            **row,
            "event_id": None if row["event_id"] is None else str(row["event_id"]),
            "attempts": [
                {**attempt, "at": datetime.fromisoformat(attempt["at"])} for attempt in attempts
            ],
        }

    @classmethod
    def represent_instance(cls, instance: Delivery) -> dict[str, Any]:  # type: ignore[override]
        """Return what the client sees of an instance."""
        return cls.represent(cls.rows(Delivery.objects.filter(pk=instance.pk)).get())
