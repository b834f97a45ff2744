"""Serializers of calendar feeds."""

from rest_framework import serializers

from bookit.api.schema import example
from bookit.api.serializers import InputSerializer

FEED = "https://bookit.example.com/{}.ics?token=WyJvd24iXQ.Lq3cP0Zk9V8Jt1s4"
CALENDAR = "calendars/0199d3a0-6a31-7e8a-a0f5-3e6a4c1b8d07"


@example("Your own feed", {"address": FEED.format("me/calendar")})
class FeedSerializer(InputSerializer):
    """The address at which calendar programs find your bookings."""

    address = serializers.CharField(
        read_only=True, help_text="Keep it secret: anyone who has it can see your bookings."
    )


@example(
    "Two addresses",
    {"address": FEED.format(CALENDAR), "address_with_names": FEED.format(CALENDAR)},
)
class CalendarFeedSerializer(InputSerializer):
    """The addresses at which calendar programs find when a calendar is busy."""

    address = serializers.CharField(
        read_only=True,
        help_text="Shows only when the calendar is busy. You can give it to anyone.",
    )
    address_with_names = serializers.CharField(
        read_only=True, help_text="Also shows who has booked. Keep it secret."
    )
