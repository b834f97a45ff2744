"""Serializers for the periods of reports, and for their numbers."""

from typing import Any

from rest_framework import serializers

from bookings.reports.periods import LONGEST, MONTHS
from bookit import money
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


VISITORS = {"customers": 38, "new": 9, "returning": 29}


class RateField(serializers.FloatField):
    """A share, for example 0.25. It is null if the whole is 0."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_null=True, min_value=0, **options)


class AmountField(serializers.DecimalField):
    """An amount of money, next to its currency."""

    def __init__(self, **options: Any) -> None:
        # A sum has more digits than a price.
        super().__init__(max_digits=money.DIGITS + 10, decimal_places=money.DECIMALS, **options)


class CountField(serializers.IntegerField):
    """A count, which is never negative."""

    def __init__(self, **options: Any) -> None:
        super().__init__(min_value=0, **options)


@example(
    "Customers of a month",
    {
        "from": "2026-11-01T00:00:00Z",
        "to": "2026-12-01T00:00:00Z",
        "timezone": "Europe/Lisbon",
        "results": [{"month": "2026-11", **VISITORS}],
        "totals": VISITORS,
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


class InMonthSerializer(StrictSerializer):
    """The month of a row, in the time zone of the report, for example `2026-12`.

    If this is the first base class, the month is the first column.
    """

    month = serializers.CharField()


class UtilisationTotalsSerializer(StrictSerializer):
    """The booked share of the open time of calendars."""

    bookings = CountField()
    open_minutes = CountField(help_text="Opening hours, minus time off.")
    booked_minutes = CountField(help_text="The time in which there was at least one booking.")
    utilisation = RateField(
        help_text="Booked share of the open time; above 1 if more time is booked than is open."
    )


class OfCalendarSerializer(StrictSerializer):
    """The calendar of a row."""

    calendar_id = serializers.UUIDField()
    calendar = serializers.CharField()


class CalendarUtilisationSerializer(OfCalendarSerializer, UtilisationTotalsSerializer):
    """The booked share of the open time of a calendar."""


class UtilisationSerializer(ReportSerializer):
    """The booked share of the open time of each calendar, ordered by name."""

    results = CalendarUtilisationSerializer(many=True, read_only=True)
    totals = UtilisationTotalsSerializer(read_only=True)


class CurrencyRevenueSerializer(StrictSerializer):
    """What bookings in one currency bring in."""

    currency = serializers.CharField()
    bookings = CountField(help_text="Completed bookings.")
    revenue = AmountField(help_text="The prices of the completed bookings.")
    upcoming = CountField(help_text="Pending and confirmed bookings.")
    expected = AmountField(help_text="The prices of the pending and confirmed bookings.")


class OfServiceSerializer(StrictSerializer):
    """The service of a row."""

    service_id = serializers.UUIDField()
    service = serializers.CharField(help_text="The title of the service.")


class ServiceRevenueSerializer(InMonthSerializer, OfServiceSerializer, CurrencyRevenueSerializer):
    """What the bookings of a service in one month and one currency bring in."""


class RevenueTotalsSerializer(StrictSerializer):
    """What bookings bring in, for each currency."""

    currencies = CurrencyRevenueSerializer(many=True, read_only=True)


class RevenueSerializer(ReportSerializer):
    """What bookings bring in, by month and service."""

    results = ServiceRevenueSerializer(many=True, read_only=True)
    totals = RevenueTotalsSerializer(read_only=True)


class CustomersTotalsSerializer(StrictSerializer):
    """How many customers had bookings, and how many of them were new."""

    customers = CountField(help_text="Users who have a booking.")
    new = CountField(help_text="Users without an earlier booking.")
    returning = CountField(help_text="All other users who have a booking.")


class MonthCustomersSerializer(InMonthSerializer, CustomersTotalsSerializer):
    """How many customers had bookings in a month, and how many of them were new."""


class CustomersSerializer(ReportSerializer):
    """How many customers had bookings in each month, and how many of them were new."""

    results = MonthCustomersSerializer(many=True, read_only=True)
    totals = CustomersTotalsSerializer(read_only=True)


class LeadTimeTotalsSerializer(StrictSerializer):
    """How far in advance bookings were made."""

    bookings = CountField()
    median_hours = CountField(
        allow_null=True, help_text="The median of the lead times, in whole hours."
    )
    average_hours = serializers.FloatField(allow_null=True, min_value=0)


class LeadTimeRangeSerializer(StrictSerializer):
    """How many bookings have a lead time in a range."""

    lead_time = serializers.CharField()
    bookings = CountField()
    share = RateField(help_text="The share of all bookings.")


class LeadTimeSerializer(ReportSerializer):
    """How far in advance bookings were made, in ranges."""

    results = LeadTimeRangeSerializer(many=True, read_only=True)
    totals = LeadTimeTotalsSerializer(read_only=True)


class CancellationsTotalsSerializer(StrictSerializer):
    """How many bookings were cancelled, or were missed by their customers."""

    bookings = CountField(help_text="All bookings, without holds and expired bookings.")
    cancelled = CountField()
    cancellation_rate = RateField(help_text="Cancelled bookings as a share of all bookings.")
    no_show = CountField()
    no_show_rate = RateField(
        help_text="Missed bookings as a share of the completed and the missed bookings."
    )
    expired = CountField(help_text="Holds that ran out, and bookings that nobody confirmed.")


class MonthCancellationsSerializer(InMonthSerializer, CancellationsTotalsSerializer):
    """How many bookings of a month were cancelled, or were missed by their customers."""


class CancellationsSerializer(ReportSerializer):
    """How many bookings of each month were cancelled, or were missed by their customers."""

    results = MonthCancellationsSerializer(many=True, read_only=True)
    totals = CancellationsTotalsSerializer(read_only=True)
