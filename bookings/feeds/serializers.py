"""The shape of feeds."""

from rest_framework import serializers

from bookit.api.schema import example
from bookit.api.serializers import InputSerializer

FEED = "https://bookit.example.com/{}.ics?token=WyJvd24iXQ.Lq3cP0Zk9V8Jt1s4"
CALENDAR = "calendars/0199d3a0-6a31-7e8a-a0f5-3e6a4c1b8d07"


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
