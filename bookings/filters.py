"""Filters for bookings."""

from typing import Any

from django.db.models import QuerySet
from django_filters import rest_framework as filters

from bookings.models import Booking
from bookit.api.filters import (
    PERIOD_FILTERS,
    CommaSeparatedChoices,
    FilterSet,
    UUIDFilter,
)


class BookingFilter(FilterSet):
    """Filters bookings by status, period, service, calendar and user."""

    status = CommaSeparatedChoices(
        choices=Booking.Status.choices, help_text="One or more values, comma-separated."
    )
    service_id = UUIDFilter(field_name="service")
    calendar_id = UUIDFilter(field_name="calendar")
    user_id = UUIDFilter(field_name="user", help_text="The user who booked.")
    scope = filters.ChoiceFilter(
        choices=[("provider", "bookings on your calendars")], method="by_scope"
    )

    class Meta:
        model = Booking
        fields: list[str] = []

    def by_scope(self, queryset: Any, name: str, value: str) -> QuerySet[Booking]:
        """Return the rows unchanged, because the view has already applied the scope."""
        return queryset


BookingFilter.base_filters.update(PERIOD_FILTERS)
