"""Serializers of reports and of their periods."""

from typing import Any

from rest_framework import serializers

from bookings.reports.periods import LONGEST, MONTHS
from bookit.api.schema import example
from bookit.api.serializers import StrictSerializer
from bookit.times import DayOrInstantField, InstantField


class PeriodSerializer(StrictSerializer):
    """The period of a report, in a query."""

    ignored = frozenset({"tz"})  # The view reads this parameter.

    # `from` is a Python keyword, so the class body cannot assign to it.
    vars()["from"] = DayOrInstantField(
        required=False,
        help_text=f"The start. By default, the period has {MONTHS} months.",
    )
    to = DayOrInstantField(
        required=False,
        help_text="The end. By default, the end of today. A date means the end of that "
        f"day. At most {LONGEST.days:,} days after `from`.",
    )


CUSTOMERS = {"customers": 38, "new": 9, "returning": 29}


@example(
    "Customers of a month",
    {
        "from": "2026-11-01T00:00:00Z",
        "to": "2026-12-01T00:00:00Z",
        "timezone": "Europe/Lisbon",
        "results": [{"month": "2026-11", **CUSTOMERS}],
        "totals": CUSTOMERS,
    },
)
class ReportSerializer(StrictSerializer):
    """A report on a period."""

    # `from` is a Python keyword, so the class body cannot assign to it.
    vars()["from"] = InstantField()
    to = InstantField(help_text="The end of the period, which is not part of it.")
    timezone = serializers.CharField(help_text="The time zone in which days and months begin.")
    results: Any = serializers.ListField(
        child=serializers.DictField(), read_only=True, help_text="The rows."
    )
    totals: Any = serializers.DictField(help_text="The numbers of the whole period.")
