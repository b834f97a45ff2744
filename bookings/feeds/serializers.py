"""Serializers of calendar feeds."""

from rest_framework import serializers

from bookit.api.schema import example
from bookit.api.serializers import StrictSerializer

FEED = "https://bookit.example.com/{}.ics?token={}.Lq3cP0Zk9V8Jt1s4"
OWN = FEED.format("me/calendar", "WyJvd24iXQ")
CALENDAR = "calendars/0199d3a0-6a31-7e8a-a0f5-3e6a4c1b8d07"
BUSY = FEED.format(CALENDAR, "WyJidXN5Il0")
NAMES = FEED.format(CALENDAR, "WyJuYW1lcyJd")


@example("Your own feed", {"address": OWN})
class FeedSerializer(StrictSerializer):
    """The address at which calendar programs find your bookings."""

    address = serializers.CharField(
        read_only=True, help_text="Keep it secret: anyone who has it can see your bookings."
    )


@example("Two addresses", {"address": BUSY, "address_with_names": NAMES})
class CalendarFeedSerializer(StrictSerializer):
    """The addresses at which calendar programs find when a calendar is busy."""

    address = serializers.CharField(
        read_only=True,
        help_text="Shows only when the calendar is busy. You can give it to anyone.",
    )
    address_with_names = serializers.CharField(
        read_only=True, help_text="Also shows who has booked. Keep it secret."
    )
