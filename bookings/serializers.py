"""Serializers for bookings and their history."""

from datetime import datetime
from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from accounts.emails import mailbox
from accounts.models import User, validate_phone
from accounts.serializers import EmailAddressField, LanguageField, ShownEmailField
from bookings.extensions import EXPANSIONS
from bookings.models import Booking, BookingEvent
from bookit.api.metadata import MetadataField
from bookit.api.schema import example
from bookit.api.serializers import ListField, RowSerializer, StrictSerializer
from bookit.money import in_currency
from bookit.times import InstantField

# The fields of an event's data that contain times.
EVENT_TIMES = frozenset({"start_time", "end_time", "hold_expires_at"})

# The columns of the user who booked, or for whom staff booked. The API shows their values if those
# of the booking are empty.
USER_COLUMNS = ("user__name", "user__email", "user__phone", "user__language")

CONFIRMED_BOOKING = {
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
    "attendee_email": "ana@example.com",
    "attendee_phone": "+351 912 345 678",
    "language": "pt",
    "notes": "Short at the sides, please.",
    "cancellation_reason": "",
    "price": "25.00",
    "currency": "EUR",
    "hold_expires_at": None,
    "metadata": {"invoice": "2026-118"},
    "created_at": "2026-11-21T09:00:00Z",
    "updated_at": "2026-11-21T09:05:00Z",
}


@example("A confirmed booking", CONFIRMED_BOOKING)
class BookingSerializer(RowSerializer):
    """A booking: one seat of a service for a period."""

    user_id = serializers.UUIDField(read_only=True)
    service_id = serializers.UUIDField(read_only=True)
    calendar_id = serializers.UUIDField(read_only=True)
    attendee_name = serializers.CharField(
        read_only=True, help_text="By default, the name of the user."
    )
    # A CharField instead of an EmailField, because the value is empty if neither the booking nor
    # the user has an address.
    attendee_email = serializers.CharField(
        read_only=True, help_text="By default, the email address of the user, if any."
    )
    attendee_phone = serializers.CharField(
        read_only=True, help_text="By default, the phone number of the user, if any."
    )
    language = serializers.CharField(read_only=True)
    cancellation_reason = serializers.CharField(
        read_only=True, help_text="The reason given for the cancellation, if any."
    )
    slot_id = serializers.UUIDField(
        read_only=True, allow_null=True, help_text="The published slot, if the booking is in one."
    )
    metadata = MetadataField(read_only=True)

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
            "attendee_phone",
            "language",
            "notes",
            "cancellation_reason",
            "price",
            "currency",
            "hold_expires_at",
            "metadata",
            "created_at",
            "updated_at",
        ]
        read_only_fields = fields

    @classmethod
    def rows(cls, queryset: QuerySet[Any]) -> QuerySet[Any, dict[str, Any]]:
        """Return the rows, each with `USER_COLUMNS`, which replace empty values of the booking."""
        return queryset.values(*cls.Meta.fields, *USER_COLUMNS)

    @classmethod
    def represent(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row with its attendee, and its price with the decimals of the currency."""
        name, email = row.pop("user__name"), row.pop("user__email")
        phone, language = row.pop("user__phone"), row.pop("user__language")
        row["attendee_name"] = row["attendee_name"] or name
        row["attendee_email"] = row["attendee_email"] or mailbox(email)
        row["attendee_phone"] = row["attendee_phone"] or phone
        row["language"] = row["language"] or language
        row["price"] = in_currency(row["price"], row["currency"])
        return row

    @classmethod
    def represent_instance(cls, instance: Booking) -> dict[str, Any]:  # type: ignore[override]
        """Return the representation of a booking whose user has been loaded."""
        row = {name: getattr(instance, name) for name in cls.Meta.fields}
        return {
            **row,
            **instance.attendee(),
            "price": in_currency(instance.price, instance.currency),
        }


class BookerSerializer(RowSerializer):
    """The user who booked, or for whom staff booked."""

    email = ShownEmailField()

    class Meta:
        model = User
        fields = ["id", "name", "email", "phone"]
        read_only_fields = fields


class DetailsSerializer(StrictSerializer):
    """The details of a booking, which its user can change until it starts."""

    attendee_name = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=200,
        help_text="By default, the name of the user.",
    )
    attendee_email = EmailAddressField(required=False, allow_blank=True)
    attendee_phone = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=32,
        validators=[validate_phone],
        help_text="Best with the country code, as in `+351 912 345 678`.",
    )
    language = LanguageField(
        required=False,
        allow_blank=True,
        help_text="For emails. Default: the user's.",
    )
    notes = serializers.CharField(required=False, allow_blank=True, max_length=2000)
    metadata = MetadataField()


@example(
    "Ten o'clock",
    {
        "service_id": "0199d3a0-6a3b-7c55-8f0d-1f6f2b7c9d42",
        "start_time": "2026-12-01T10:00:00Z",
        "notes": "Short at the sides, please.",
    },
)
class BookingCreateSerializer(DetailsSerializer):
    """What to book, and for whom."""

    # A client may send back a booking that it has read. Its other fields are ignored.
    ignored = frozenset(BookingSerializer.Meta.fields)
    expanded = EXPANSIONS

    service_id = serializers.UUIDField(required=False)
    service_ids = ListField(
        child=serializers.UUIDField(),
        required=False,
        min_length=1,
        max_length=20,
        help_text=(
            "Use instead of service_id to book one of these services. "
            "Those on the calendars with the fewest bookings that day are tried first."
        ),
    )
    slot_id = serializers.UUIDField(
        required=False,
        allow_null=True,
        help_text="A published slot. It determines the service and the start.",
    )
    start_time = InstantField(required=False, help_text="Required unless slot_id is sent.")
    end_time = InstantField(
        required=False,
        help_text="Follows from the slot or the duration. If it is sent, it must match.",
    )
    user_id = serializers.UUIDField(required=False, help_text="For whom admins or staff book.")
    hold = serializers.BooleanField(
        default=False, help_text="Only hold the seat, until hold_expires_at."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a body that does not say exactly what to book, and when."""
        if "service_id" in attrs and "service_ids" in attrs:
            raise ValidationError(
                {"service_ids": [_("Send either service_id or service_ids, not both.")]}
            )
        if attrs.get("slot_id") is None:
            missing = [] if "service_ids" in attrs else ["service_id"]
            missing = [name for name in [*missing, "start_time"] if name not in attrs]
            if missing:
                raise ValidationError(
                    {name: [_("This field is required.")] for name in missing}, code="required"
                )
        return attrs


@example("One hour later", {"start_time": "2026-12-01T11:00:00Z"})
class BookingChangeSerializer(DetailsSerializer):
    """A new start or slot, a new status, or new details."""

    ignored = frozenset(BookingSerializer.Meta.fields)
    expanded = EXPANSIONS

    start_time = InstantField(required=False)
    slot_id = serializers.UUIDField(required=False, allow_null=True)
    status = serializers.ChoiceField(Booking.Status.choices, required=False)
    reason = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=500,
        help_text="Why the booking is cancelled. Only together with the status `cancelled`.",
    )


@example("The booking took place", {"status": "completed"})
class StatusChangeSerializer(StrictSerializer):
    """A new status, and the reason for it."""

    status = serializers.ChoiceField(Booking.Status.choices)
    reason = serializers.CharField(required=False, allow_blank=True, max_length=500)


@example(
    "The booking was confirmed",
    {
        "type": "booking.confirmed",
        "actor_id": "0199d3a1-7c1e-7f61-b2ab-0a1c5d3f9e10",
        "api_key_id": None,
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
    """An event in the history of a booking."""

    # A CharField and not a ChoiceField, because more types will be added.
    type = serializers.CharField(read_only=True)
    actor_id = serializers.UUIDField(
        read_only=True,
        allow_null=True,
        help_text="The user who caused the event; null if it happened automatically.",
    )
    api_key_id = serializers.UUIDField(
        read_only=True,
        allow_null=True,
        help_text="The API key with which the user caused the event; null if none was used.",
    )
    data = serializers.DictField(  # type: ignore[assignment]
        read_only=True,
        help_text=(
            "The state of the booking after the event. `was` has the previous values of "
            "what changed, `reason` is the given reason, `changed` names the changed details, "
            "`hours` is how long before the start a reminder was sent, `overridden` is the code "
            "of the limit that staff overrode, `waitlist` is true for a seat from the waitlist, "
            "and `review_id` and `rating` are those of the review."
        ),
    )

    class Meta:
        model = BookingEvent
        fields = ["type", "actor_id", "api_key_id", "at", "data"]
        read_only_fields = fields

    @classmethod
    def rows(cls, queryset: QuerySet[Any]) -> QuerySet[Any, dict[str, Any]]:
        """Return the rows, each with the reason for the cancellation of its booking.

        A reason that the user gave may contain personal data. So it is stored only in the booking,
        and is deleted with it; the events stay.
        """
        return queryset.values(*cls.Meta.fields, "booking__cancellation_reason")

    @classmethod
    def represent(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row with the reason for a cancellation, and with the times in `data` parsed.

        Times are parsed so that the response shows them in its time zone.
        """
        data = with_instants(row["data"])
        if "was" in data:
            data["was"] = with_instants(data["was"])
        reason = row.pop("booking__cancellation_reason")
        if reason and row["type"] == BookingEvent.Type.CANCELLED:
            data["reason"] = reason
        return {**row, "data": data}


def with_instants(state: dict[str, Any]) -> dict[str, Any]:
    """Return the data of an event with its times as `datetime` objects."""
    return {
        name: datetime.fromisoformat(value) if value and name in EVENT_TIMES else value
        for name, value in state.items()
    }


# An example of a slot. It is here because `bookings.slots` and `bookings.waitlist` both use it, and
# `bookings.waitlist` cannot import `bookings.slots`.
EXAMPLE_SLOT = {
    "id": "0199d3a5-11c8-7b3e-8d52-4a9e0c6f1b73",
    "service_id": "0199d3a0-6a3b-7c55-8f0d-1f6f2b7c9d42",
    "calendar_id": "0199d3a0-6a31-7e8a-a0f5-3e6a4c1b8d07",
    "start_time": "2026-12-01T18:00:00Z",
    "end_time": "2026-12-01T19:00:00Z",
    "capacity": 12,
    "seats_left": 12,
    "status": "scheduled",
    "created_at": "2026-11-21T09:00:00Z",
    "updated_at": "2026-11-21T09:00:00Z",
}
