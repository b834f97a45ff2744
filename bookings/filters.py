"""Filters of bookings."""

from typing import Any

from django.db.models import QuerySet
from django_filters import rest_framework as filters

from bookings.models import Booking
from bookit.filters import CommaSeparatedChoices, DayOrInstantFilter


class BookingFilter(filters.FilterSet):
    """By state, period, service and calendar."""

    status = CommaSeparatedChoices(
        choices=Booking.Status.choices, help_text="One or more, comma-separated."
    )
    service_id = filters.UUIDFilter(field_name="service")
    calendar_id = filters.UUIDFilter(field_name="calendar")
    user_id = filters.UUIDFilter(field_name="user", help_text="Admins alone.")
    scope = filters.ChoiceFilter(
        choices=[("provider", "bookings on one's calendars")], method="by_scope"
    )

    class Meta:
        model = Booking
        fields: list[str] = []

    def by_scope(self, queryset: Any, name: str, value: str) -> QuerySet[Booking]:
        """Leave the rows as they are: the view chose them by scope already."""
        return queryset


# `from` is a word of Python's own.
BookingFilter.base_filters["from"] = DayOrInstantFilter(
    field_name="end_time",
    lookup_expr="gt",
    help_text="Bookings that end after it; a date means its beginning.",
)
BookingFilter.base_filters["to"] = DayOrInstantFilter(
    field_name="start_time",
    lookup_expr="lt",
    ends=True,
    help_text="Bookings that start before it; a date means its end.",
)
