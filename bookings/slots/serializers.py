"""The shape of slots."""

from typing import Any

from rest_framework import serializers

from bookings.models import Slot
from bookings.serializers import CLASS
from bookings.slots.recurrence import LONGEST_RULE, Rule, parse_rule
from bookings.slots.services import SEATS_LEFT
from bookit.api.schema import example
from bookit.api.serializers import InputSerializer, RowSerializer
from bookit.times import InstantField


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
