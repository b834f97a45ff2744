"""Shapes of bookings."""


from django.db.models import UUIDField, Value
from rest_framework import serializers

from bookings.models import Booking
from bookit.serializers import InputSerializer, RowSerializer
from bookit.times import InstantField


class BookingSerializer(RowSerializer):
    """A booking: a seat of a service for a period."""

    user_id = serializers.UUIDField(read_only=True)
    service_id = serializers.UUIDField(read_only=True)
    calendar_id = serializers.UUIDField(read_only=True)
    slot_id = serializers.UUIDField(
        read_only=True, allow_null=True, help_text="The published slot, if it is in one."
    )

    annotations = {"slot_id": Value(None, output_field=UUIDField())}

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


class BookingChangeSerializer(InputSerializer):
    """Another start, or another status."""

    ignored = frozenset(BookingSerializer.Meta.fields)

    start_time = InstantField(required=False)
    status = serializers.ChoiceField(Booking.Status.choices, required=False)


class StatusChangeSerializer(InputSerializer):
    """Another status, and why."""

    status = serializers.ChoiceField(Booking.Status.choices)
    reason = serializers.CharField(required=False, allow_blank=True, max_length=500)


