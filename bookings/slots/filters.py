"""Filters for slots."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.db.models import DurationField, ExpressionWrapper, F, Q, QuerySet
from django.db.models.functions import Now
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema_field
from rest_framework.request import Request

from bookings.affected import IN_TIME_OFF
from bookings.models import Slot
from bookings.slots.services import SEATS_LEFT
from bookit.api.filters import (
    PERIOD_FILTERS,
    YES_NO,
    DayOrInstantField,
    FilterSet,
    UUIDFilter,
)
from bookit.times import day_end, day_start, parse_day


class DayField(DayOrInstantField):
    """A form field for a date."""

    parse = staticmethod(parse_day)


@extend_schema_field(
    {
        "type": "string",
        "format": "date",
        "description": "Only slots that start on this day in the request's zone.",
        "example": "2026-12-01",
    }
)
class DayFilter(filters.Filter):
    """Finds rows that start on a day in the request's zone."""

    field_class = DayField

    def parts(self, value: date, request: Request) -> tuple[datetime, datetime]:
        """Return the start and the end of the day, which `FilterSet` passes to `filter`."""
        tz = getattr(request, "zone", UTC)
        return day_start(value, tz), day_end(value, tz)

    def filter(self, queryset: QuerySet[Any], value: tuple[Any, ...]) -> QuerySet[Any]:
        """Return the rows that start on the day."""
        start, end = value
        return queryset.filter(start_time__gte=start, start_time__lt=end)


class SlotFilter(FilterSet):
    """Finds slots by service, calendar, provider, status, time and availability."""

    service_id = UUIDFilter(field_name="service")
    calendar_id = UUIDFilter(field_name="calendar")
    provider_id = UUIDFilter(field_name="calendar__provider")
    status = filters.ChoiceFilter(choices=Slot.Status.choices)
    date = DayFilter()
    available = filters.TypedChoiceFilter(
        method="by_availability",
        help_text=(
            "Whether the slot can be booked now: it has seats left, it is not in time off, and the "
            "service's rules allow it."
        ),
        **YES_NO,
    )

    class Meta:
        model = Slot
        fields: list[str] = []

    def by_availability(self, queryset: Any, name: str, value: bool) -> QuerySet[Slot]:
        """Return the slots that can be booked or, if `value` is false, the slots that cannot."""
        available = Q(
            Q(service__max_advance_days=None)
            | Q(start_time__lte=Now() + _duration("service__max_advance_days", timedelta(days=1))),
            ~IN_TIME_OFF,
            status=Slot.Status.SCHEDULED,
            service__is_active=True,
            start_time__gte=Now() + _duration("service__min_notice_minutes", timedelta(minutes=1)),
            free__gt=0,
        )
        slots = queryset.alias(free=SEATS_LEFT)
        # Notices are never negative, so every available slot starts now or later. The condition
        # `start_time__gte=Now()` repeats this in a form for which PostgreSQL has an index, so that
        # it does not count the seats of slots that have started.
        return slots.filter(available, start_time__gte=Now()) if value else slots.filter(~available)


def _duration(column: str, unit: timedelta) -> ExpressionWrapper:
    """Return the expression for a column that counts days or minutes, as a duration."""
    return ExpressionWrapper(F(column) * unit, output_field=DurationField())


SlotFilter.base_filters.update(PERIOD_FILTERS)
