"""What higher apps add to the catalog."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from bookit.api.filters import FilterSet
from bookit.extensions import Extensions


@dataclass(frozen=True)
class Affected:
    """The upcoming bookings that a change leaves outside a calendar's opening hours.

    Args:
        count: the number of bookings.
        first: id and start of the first hundred, in order.
    """

    count: int = 0
    first: tuple[tuple[UUID, datetime], ...] = ()


# Functions that return the affected bookings. They are called with `calendar`, `period` (a new time
# off, or None if the hours or the zone have changed) and `at`, in the transaction of the change.
AFFECTED: Extensions[Callable[..., Affected]] = Extensions()

# Filter classes by the name of a list. Each extends the class of that list and replaces it.
FILTERS: Extensions[type[FilterSet]] = Extensions()
