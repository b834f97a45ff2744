"""The filter that finds services by their free times."""

from dataclasses import replace
from datetime import UTC
from functools import partial
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from rest_framework.request import Request

from bookings.availability.search import LONGEST, window, with_free_time
from bookit.api.filters import DayOrInstantFilter
from bookit.database.prepared import Bound
from bookit.errors.refusals import refuse
from catalog.extensions import FILTERS
from catalog.filters import ServiceFilter
from catalog.listing import ENOUGH_FOR_COUNT, MAX_LOOKED_AT, Listing


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

    @classmethod
    def applied(cls, rows: Bound, values: dict[str, Any], request: Request) -> Any:
        """Return the matching services, as a `Listing` if words or free times filter them."""
        names = ("available_from", "available_to")
        bounds = {name: values.pop(name) for name in names if name in values}
        found = super().applied(rows, values, request)
        if not bounds:
            return found
        for name in names:
            if name not in bounds:
                raise refuse(name, _("Send both available_from and available_to, or neither."))
        at, tz = timezone.now(), getattr(request, "zone", UTC)
        from_, until = window(
            bounds["available_from"], bounds["available_to"], tz, at, field="available_to"
        )
        listing = found if isinstance(found, Listing) else Listing(found)
        return replace(listing, keep=partial(with_free_time, from_=from_, until=until, at=at))
