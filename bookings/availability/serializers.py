"""Serializers for searches for free times, and for the results."""

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from bookings.availability.search import LONGEST
from bookit.api.schema import SOMETIMES, example
from bookit.api.serializers import FlagField, ListField, StrictSerializer
from bookit.times import DayOrInstantField, InstantField


class SearchSerializer(StrictSerializer):
    """When to look for free times, in a query."""

    ignored = frozenset({"tz"})  # The view reads this parameter.

    # `from` is a Python keyword, so the class body cannot assign to it.
    vars()["from"] = DayOrInstantField(
        required=False, help_text="Only times that start at this time or later; by default now."
    )
    to = DayOrInstantField(
        required=False,
        help_text="Only times that start before this time; by default one week after `from`. A "
        f"date means the end of that day. At most {LONGEST.days} days after `from`.",
    )


class ServiceSearchSerializer(SearchSerializer):
    """When to look for free times of a service, and whether to explain the refused times."""

    explain = FlagField(
        default=False,
        help_text=(
            "Also list the times that cannot be booked, and why. Only for the service's "
            "provider, admins and permitted staff."
        ),
    )


class ServicesSearchSerializer(SearchSerializer):
    """Which services to search for free times, and when."""

    service_id = ListField(
        child=serializers.UUIDField(), min_length=1, max_length=50, help_text="Up to 50 services."
    )


class FreeTimeSerializer(StrictSerializer):
    """A time that can be booked."""

    start_time = InstantField()
    end_time = InstantField()
    seats_left = serializers.IntegerField(min_value=1)
    slot_id = serializers.UUIDField(allow_null=True)


class RefusalSerializer(StrictSerializer):
    """A time that cannot be booked, and the error code that booking it would return."""

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
class AvailabilitySerializer(StrictSerializer):
    """The free times of a service, in chronological order."""

    service_id = serializers.UUIDField()
    timezone = serializers.CharField(help_text="The time zone of the times.")
    times = FreeTimeSerializer(many=True, read_only=True)
    refused = RefusalSerializer(
        many=True,
        read_only=True,
        help_text="The times that cannot be booked; only with `explain`.",
    )


@example("A morning", {"results": [MORNING]})
class AvailabilitiesSerializer(StrictSerializer):
    """The free times of several services, in the order of the request."""

    results = AvailabilitySerializer(many=True, read_only=True)
