"""Shapes of bookings."""

from rest_framework import serializers

from bookings.models import Booking
from bookit.schema import example
from bookit.serializers import InputSerializer, RowSerializer
from bookit.times import InstantField


@example(
    "A confirmed booking",
    {
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
    },
)
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

    service_id = serializers.UUIDField()
    start_time = InstantField()
    end_time = InstantField(
        required=False, help_text="Follows from the duration; one that is sent must agree."
    )
    user_id = serializers.UUIDField(required=False, help_text="Admins alone.")
    attendee_name = serializers.CharField(required=False, allow_blank=True, max_length=200)
    attendee_email = serializers.EmailField(required=False, allow_blank=True, max_length=254)
    notes = serializers.CharField(required=False, allow_blank=True, max_length=2000)


@example("An hour later", {"start_time": "2026-12-01T11:00:00Z"})
class BookingChangeSerializer(InputSerializer):
    """Another start, or another status."""

    ignored = frozenset(BookingSerializer.Meta.fields)

    start_time = InstantField(required=False)
    status = serializers.ChoiceField(Booking.Status.choices, required=False)


@example("It took place", {"status": "completed"})
class StatusChangeSerializer(InputSerializer):
    """Another status, and why."""

    status = serializers.ChoiceField(Booking.Status.choices)
    reason = serializers.CharField(required=False, allow_blank=True, max_length=500)
