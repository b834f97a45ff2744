"""Filters for bookings."""

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet
from django_filters import rest_framework as filters

from bookings.models import Booking
from bookit.api.filters import (
    PERIOD_FILTERS,
    CommaSeparatedChoices,
    DayOrInstantFilter,
    FilterSet,
    UUIDFilter,
)


class StatusFilter(CommaSeparatedChoices):
    """A filter by statuses that can use the indexes of unfinished bookings and of holds."""

    def filter(self, queryset: QuerySet[Any], value: Sequence[str]) -> QuerySet[Any]:
        """Return the bookings with one of the statuses."""
        return queryset.with_status(*value) if value else queryset  # type: ignore[attr-defined]


class FromFilter(DayOrInstantFilter):
    """A filter for the bookings that end after an instant; see `BookingQuerySet.ending_after`."""

    def filter(self, queryset: QuerySet[Any], value: tuple[Any]) -> QuerySet[Any]:
        """Return the bookings that end after an instant."""
        [instant] = value
        return queryset.ending_after(instant)  # type: ignore[attr-defined]


class BookingFilter(FilterSet):
    """Filters bookings by status, period, service, calendar and user."""

    status = StatusFilter(
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
BookingFilter.base_filters["from"] = FromFilter(help_text=PERIOD_FILTERS["from"].extra["help_text"])
