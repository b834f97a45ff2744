"""The filter that finds services by their free times."""

from dataclasses import replace
from datetime import UTC
from functools import partial
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from bookings.availability.search import LONGEST, window, with_free_time
from bookit.api.filters import DayOrInstantFilter
from bookit.errors.refusals import refuse
from catalog.extensions import FILTERS
from catalog.filters import ServiceFilter
from catalog.listing import ENOUGH_FOR_COUNT, MAX_LOOKED_AT, Listing
from catalog.models import Service


@FILTERS.add("services")
class BookableServiceFilter(ServiceFilter):
    """The filter of the `catalog` app, extended by free times, which that app does not know."""

    available_from = DayOrInstantFilter(
        help_text=(
            "Only services with a free time that starts between this time and `available_to`; "
            "send both. A date means the start of that day in the request's zone. Up to "
            f"{MAX_LOOKED_AT:,} services are searched to fill a page. If more than "
            f"{ENOUGH_FOR_COUNT} services match the other filters, `count` can be an estimate."
        )
    )
    available_to = DayOrInstantFilter(
        ends=True,
        help_text=(
            f"At most {LONGEST.days} days after `available_from`. A date means the end of that day "
            "in the request's zone."
        ),
    )

    def filter_queryset(self, queryset: QuerySet[Service]) -> Any:
        """Return the matching services, as a `Listing` if the query filters by free times."""
        bounds = {
            name: self.form.cleaned_data.pop(name) for name in ("available_from", "available_to")
        }
        found = super().filter_queryset(queryset)
        missing = [name for name, value in bounds.items() if value is None]
        if len(missing) == len(bounds):
            return found
        if missing:
            raise refuse(missing[0], _("Send both available_from and available_to, or neither."))
        at, tz = timezone.now(), getattr(self.request, "zone", UTC)
        from_, until = window(
            bounds["available_from"], bounds["available_to"], tz, at, field="available_to"
        )
        listing = found if isinstance(found, Listing) else Listing(found)
        return replace(listing, keep=partial(with_free_time, from_=from_, until=until, at=at))
