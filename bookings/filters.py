"""Filters of bookings and of slots, and of services by what is free."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import DurationField, ExpressionWrapper, F, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema_field

from bookings.affected import IN_TIME_OFF
from bookings.availability import LONGEST, window, with_free_time
from bookings.events import TOLD
from bookings.models import Booking, BookingEvent, Delivery, Slot
from bookings.slots import SEATS_LEFT
from bookit.exceptions import refuse
from bookit.filters import (
    PERIOD_FILTERS,
    YES_NO,
    CommaSeparatedChoices,
    DayOrInstantField,
    DayOrInstantFilter,
)
from bookit.times import day_end, day_start
from catalog.filters import ServiceFilter
from catalog.listing import ENOUGH_FOR_COUNT, MOST_LOOKED_AT, Listing
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
        help_text=(
            "With available_to: services with a free time that starts in between. Up to "
            f"{MOST_LOOKED_AT:,} services are looked at to fill a page, and of more than "
            f"{ENOUGH_FOR_COUNT} the count is an estimate."
        )
    )
    available_to = DayOrInstantFilter(
        ends=True, help_text=f"A date means its end; at most {LONGEST.days} days later."
    )

    def filter_queryset(self, queryset: QuerySet[Service]) -> Any:
        """Return the services that pass; a `Listing` where it takes a look at each of them."""
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
        listing = found if isinstance(found, Listing) else Listing(found)
        return replace(listing, keep=partial(with_free_time, from_=from_, until=until, at=at))


class DayField(DayOrInstantField):
    """A date."""

    def to_python(self, value: Any) -> Any:
        """Return the date; None when nothing was given."""
        day = super().to_python(value)
        if isinstance(day, datetime):
            raise ValidationError("Write a date, such as 2026-12-01.", "invalid")
        return day


@extend_schema_field(
    {
        "type": "string",
        "format": "date",
        "description": "A day in the request's zone: slots that start on it.",
        "example": "2026-12-01",
    }
)
class DayFilter(filters.Filter):
    """Starts on a day of the request's zone."""

    field_class = DayField

    def filter(self, queryset: QuerySet[Any], value: Any) -> QuerySet[Any]:
        """Return the rows that start on the day."""
        if value is None:
            return queryset
        tz = getattr(self.parent.request, "zone", UTC)  # type: ignore[attr-defined]
        return queryset.filter(
            start_time__gte=day_start(value, tz), start_time__lt=day_end(value, tz)
        )


class SlotFilter(filters.FilterSet):
    """By what it is of, whose it is, when it is, and whether it can be booked."""

    service_id = filters.UUIDFilter(field_name="service")
    calendar_id = filters.UUIDFilter(field_name="calendar")
    provider_id = filters.UUIDFilter(field_name="calendar__provider")
    status = filters.ChoiceFilter(choices=Slot.Status.choices)
    date = DayFilter()
    available = filters.TypedChoiceFilter(
        method="by_availability",
        help_text="Whether it can be booked now: it has seats left and keeps its service's rules.",
        **YES_NO,
    )

    class Meta:
        model = Slot
        fields: list[str] = []

    def by_availability(self, queryset: Any, name: str, value: bool) -> QuerySet[Slot]:
        """Return the slots that a booking would be accepted in, or the others."""
        available = Q(
            Q(service__max_advance_days=None)
            | Q(start_time__lte=Now() + _times("service__max_advance_days", timedelta(days=1))),
            ~IN_TIME_OFF,
            status=Slot.Status.SCHEDULED,
            service__is_active=True,
            start_time__gte=Now() + _times("service__min_notice_minutes", timedelta(minutes=1)),
            free__gt=0,
        )
        slots = queryset.alias(free=SEATS_LEFT)
        # Notices are never negative, so this follows. It lets an index leave out the slots that are
        # over before their seats are counted.
        return slots.filter(available, start_time__gte=Now()) if value else slots.filter(~available)


def _times(column: str, unit: timedelta) -> ExpressionWrapper:
    return ExpressionWrapper(F(column) * unit, output_field=DurationField())


SlotFilter.base_filters.update(PERIOD_FILTERS)


class EventFilter(filters.FilterSet):
    """By what happened."""

    type = CommaSeparatedChoices(
        choices=[(kind.value, kind.label) for kind in TOLD],
        help_text="One or more, comma-separated.",
    )

    class Meta:
        model = BookingEvent
        fields: list[str] = []


class DeliveryFilter(filters.FilterSet):
    """By whether it has arrived."""

    status = CommaSeparatedChoices(
        choices=Delivery.Status.choices, help_text="One or more, comma-separated."
    )

    class Meta:
        model = Delivery
        fields: list[str] = []
