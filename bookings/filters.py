"""Filters of bookings."""

from datetime import UTC
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from django_filters import rest_framework as filters

from bookings.availability import LONGEST, search, window
from bookings.models import Booking
from bookit.exceptions import refuse
from bookit.filters import PERIOD_FILTERS, CommaSeparatedChoices, DayOrInstantFilter
from catalog.filters import ServiceFilter
from catalog.models import Service


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


BookingFilter.base_filters.update(PERIOD_FILTERS)


class BookableServiceFilter(ServiceFilter):
    """Also by whether there is a free time; what the catalog cannot know."""

    available_from = DayOrInstantFilter(
        help_text="With available_to: services with a free time that starts in between."
    )
    available_to = DayOrInstantFilter(
        ends=True, help_text=f"A date means its end; at most {LONGEST.days} days later."
    )

    def filter_queryset(self, queryset: QuerySet[Service]) -> QuerySet[Service]:
        """Return the services that pass; of those that pass all else, those with a free time."""
        bounds = {
            name: self.form.cleaned_data.pop(name) for name in ("available_from", "available_to")
        }
        found = super().filter_queryset(queryset)
        missing = [name for name, value in bounds.items() if value is None]
        if len(missing) == len(bounds):
            return found
        if missing:
            raise refuse(missing[0], "Say both available_from and available_to.")
        at, tz = timezone.now(), getattr(self.request, "zone", UTC)
        from_, until = window(
            bounds["available_from"], bounds["available_to"], tz, at, field="available_to"
        )
        around = search([*found.order_by().values_list("pk", flat=True)], from_, until, at=at)
        free = [terms.service_id for terms in around.services if around.has_free_time(terms)]
        return found.filter(pk__in=free)
