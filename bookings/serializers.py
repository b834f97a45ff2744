"""Serializers for bookings and their history."""

from datetime import datetime
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from accounts.serializers import EmailAddressField
from bookings.models import Booking, BookingEvent
from bookit.api.schema import example
from bookit.api.serializers import InputSerializer, ListField, RowSerializer
from bookit.money import in_currency
from bookit.times import InstantField

# The fields of an event's data that contain times.
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
    """A booking: one seat of a service for a period."""

    user_id = serializers.UUIDField(read_only=True)
    service_id = serializers.UUIDField(read_only=True)
    calendar_id = serializers.UUIDField(read_only=True)
    # A CharField, because the value is empty if no email address was given.
    attendee_email = serializers.CharField(read_only=True)
    slot_id = serializers.UUIDField(
        read_only=True, allow_null=True, help_text="The published slot, if the booking is in one."
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
        help_text=(
            "Use instead of service_id to book the first of these services that is free. "
            "Those with the fewest bookings that day are tried first."
        ),
    )
    slot_id = serializers.UUIDField(
        required=False, allow_null=True, help_text="A published slot. It determines the start."
    )
    start_time = InstantField(required=False, help_text="Required unless slot_id is sent.")
    end_time = InstantField(
        required=False, help_text="Follows from the duration. If it is sent, it must match."
    )
    user_id = serializers.UUIDField(required=False, help_text="Admins only.")
    attendee_name = serializers.CharField(required=False, allow_blank=True, max_length=200)
    attendee_email = EmailAddressField(required=False, allow_blank=True)
    notes = serializers.CharField(required=False, allow_blank=True, max_length=2000)
    hold = serializers.BooleanField(
        required=False, help_text="Only hold the seat, until hold_expires_at."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a body that does not say what to book and when."""
        if "service_id" in attrs and "service_ids" in attrs:
            raise ValidationError(
                {"service_ids": [("Send either service_id or service_ids, not both.")]}
            )
        if attrs.get("slot_id") is None:
            missing = [] if "service_ids" in attrs else ["service_id"]
            missing = [name for name in [*missing, "start_time"] if name not in attrs]
            if missing:
                raise ValidationError(
                    {name: ["This field is required."] for name in missing}, code="required"
                )
        return attrs


@example("One hour later", {"start_time": "2026-12-01T11:00:00Z"})
class BookingChangeSerializer(InputSerializer):
    """A new start or slot, or a new status."""

    ignored = frozenset(BookingSerializer.Meta.fields)

    start_time = InstantField(required=False)
    slot_id = serializers.UUIDField(required=False, allow_null=True)
    status = serializers.ChoiceField(Booking.Status.choices, required=False)


@example("The booking took place", {"status": "completed"})
class StatusChangeSerializer(InputSerializer):
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
        help_text="The API key with which the user caused the event; null if it was none.",
    )
    data = serializers.DictField(  # type: ignore[assignment]
        read_only=True,
        help_text=(
            "The state of the booking after the event. `was` has the previous values of "
            "what changed."
        ),
    )

    class Meta:
        model = BookingEvent
        fields = ["type", "actor_id", "api_key_id", "at", "data"]
        read_only_fields = fields

    @classmethod
    def represent(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Parse the times inside `data`, so that they are shown in the response's time zone."""
        data = _with_instants(row["data"])
        if "was" in data:
            data["was"] = _with_instants(data["was"])
        return {**row, "data": data}


def _with_instants(state: dict[str, Any]) -> dict[str, Any]:
    return {
        name: datetime.fromisoformat(value) if value and name in EVENT_TIMES else value
        for name, value in state.items()
    }


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
