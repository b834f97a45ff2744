"""Serializers for slots."""

from typing import Any

from rest_framework import serializers

from bookings.extensions import EXPANSIONS
from bookings.models import Slot
from bookings.serializers import EXAMPLE_SLOT
from bookings.slots.recurrence import LONGEST_RULE, MAX_STARTS, Rule, parse_rule
from bookings.slots.services import SEATS_LEFT
from bookit.api.expand import by_id
from bookit.api.schema import example
from bookit.api.serializers import RowSerializer, StrictSerializer
from bookit.times import InstantField
from catalog.models import MAX_CAPACITY
from catalog.serializers import CalendarSerializer, ServiceSerializer


@example("A class", EXAMPLE_SLOT)
class SlotSerializer(RowSerializer):
    """A slot: a published session of a service."""

    service_id = serializers.UUIDField(read_only=True)
    calendar_id = serializers.UUIDField(read_only=True)
    seats_left = serializers.IntegerField(
        read_only=True,
        min_value=0,
        help_text=(
            "The number of seats that can be booked, without those promised to users on "
            "the waitlist. 0 if the slot is cancelled."
        ),
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
            "updated_at",
        ]
        read_only_fields = fields

    @classmethod
    def represent_instance(cls, instance: Slot) -> dict[str, Any]:  # type: ignore[override]
        """Return the representation of a slot."""
        return cls.represent_many([instance])[0]

    @classmethod
    def represent_many(cls, slots: list[Slot]) -> list[dict[str, Any]]:
        """Return the representations of slots of one calendar, in order of their start times."""
        stored = Slot.objects.filter(
            calendar=slots[0].calendar_id, pk__in=[slot.pk for slot in slots]
        )
        return [cls.represent(row) for row in cls.rows(stored.order_by("start_time", "id"))]


EXPANSIONS.add("slot")(by_id("slot_id", SlotSerializer))

# The resources that `expand` can add to a slot, by name.
SLOT_EXPANSIONS = {
    "service": by_id("service_id", ServiceSerializer),
    "calendar": by_id("calendar_id", CalendarSerializer),
}


@example(
    "Every Tuesday at this time, ten times",
    {
        "service_id": EXAMPLE_SLOT["service_id"],
        "start_time": EXAMPLE_SLOT["start_time"],
        "capacity": EXAMPLE_SLOT["capacity"],
        "rrule": "FREQ=WEEKLY;COUNT=10",
    },
)
class SlotPublishSerializer(StrictSerializer):
    """The service, the first start and the recurrence to publish."""

    # A client may send back a slot that it has read. Its other fields are ignored.
    ignored = frozenset(SlotSerializer.Meta.fields)
    expanded = SLOT_EXPANSIONS

    service_id = serializers.UUIDField()
    start_time = InstantField(help_text="The start of the slot, or of the first slot of a series.")
    capacity = serializers.IntegerField(
        required=False,
        min_value=1,
        max_value=MAX_CAPACITY,
        help_text="By default, the capacity of the service.",
    )
    rrule = serializers.CharField(
        required=False,
        max_length=LONGEST_RULE,
        help_text="A recurrence rule (RFC 5545), in local time of the calendar's zone. `FREQ` is "
        "`DAILY`, `WEEKLY`, `MONTHLY` or `YEARLY`. `COUNT` or `UNTIL` ends it after at "
        f"most {MAX_STARTS} slots.",
    )

    def validate_rrule(self, text: str) -> Rule:
        """Parse the recurrence rule."""
        try:
            return parse_rule(text)
        except ValueError as error:
            raise serializers.ValidationError(str(error), code="invalid") from None


@example("Room for three more", {"capacity": 15})
class SlotChangeSerializer(StrictSerializer):
    """A new capacity, or the cancellation of the slot."""

    ignored = frozenset(SlotSerializer.Meta.fields)
    expanded = SLOT_EXPANSIONS

    capacity = serializers.IntegerField(
        required=False,
        min_value=1,
        max_value=MAX_CAPACITY,
        help_text="Cannot be lower than the number of seats taken.",
    )
    status = serializers.ChoiceField(
        Slot.Status.choices,
        required=False,
        help_text="`cancelled` also cancels the bookings of the slot.",
    )
