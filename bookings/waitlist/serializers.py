"""Serializers of waitlist entries."""

from typing import Any

from rest_framework import serializers

from bookings.serializers import EXAMPLE_SLOT
from bookings.waitlist.models import WaitlistEntry
from bookings.waitlist.services import POSITION
from bookit.api.schema import example
from bookit.api.serializers import RowSerializer, StrictSerializer


@example(
    "The second in line",
    {
        "id": "0199d3a6-4e07-7c92-b1a8-2c5d9e7f3b60",
        "slot_id": EXAMPLE_SLOT["id"],
        "user_id": "0199d3a1-7c1e-7f61-b2ab-0a1c5d3f9e10",
        "status": "waiting",
        "position": 2,
        "booking_id": None,
        "created_at": "2026-11-21T09:00:00Z",
        "updated_at": "2026-11-21T09:00:00Z",
    },
)
class WaitlistEntrySerializer(RowSerializer):
    """A place on the waitlist of a full slot."""

    slot_id = serializers.UUIDField(read_only=True)
    user_id = serializers.UUIDField(read_only=True)
    position = serializers.IntegerField(
        read_only=True,
        allow_null=True,
        min_value=1,
        help_text="The position on the waitlist, from 1; null once the user is no longer waiting.",
    )
    booking_id = serializers.UUIDField(
        read_only=True,
        allow_null=True,
        help_text="The hold that was offered to the user, or the booking that the user got. "
        "`PATCH /bookings/{id}` with the status `pending` turns the hold into a "
        "booking.",
    )

    annotations = {"position": POSITION}

    class Meta:
        model = WaitlistEntry
        fields = [
            "id",
            "slot_id",
            "user_id",
            "status",
            "position",
            "booking_id",
            "created_at",
            "updated_at",
        ]
        read_only_fields = fields

    @classmethod
    def represent_instance(cls, instance: WaitlistEntry) -> dict[str, Any]:  # type: ignore[override]
        """Return the representation of an entry."""
        return cls.represent(
            cls.rows(WaitlistEntry.with_id(instance.pk, instance.calendar_id)).get()
        )


class WaitlistJoinSerializer(StrictSerializer):
    """An empty body: the user who sends the request joins, and the path names the slot."""

    # A client may send back an entry that it has read. Its fields are ignored.
    ignored = frozenset(WaitlistEntrySerializer.Meta.fields)
