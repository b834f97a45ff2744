"""The filter of services by free times."""

from dataclasses import replace
from datetime import UTC
from functools import partial
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from bookings.availability.search import LONGEST, window, with_free_time
from bookit.api.filters import (
    DayOrInstantFilter,
)
from bookit.errors.refusals import refuse
from catalog.extensions import FILTERS
from catalog.filters import ServiceFilter
from catalog.listing import ENOUGH_FOR_COUNT, MOST_LOOKED_AT, Listing
from catalog.models import Service


@FILTERS.add("services")
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
