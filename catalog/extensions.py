"""What the apps above add to the catalog."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from bookit.api.filters import FilterSet
from bookit.extensions import Extensions


@dataclass(frozen=True)
class Affected:
    """The upcoming bookings that a change leaves outside of a calendar's hours.

    Args:
        count: how many there are.
        first: id and start of the first hundred, in order.
    """

    count: int = 0
    first: tuple[tuple[UUID, datetime], ...] = ()


# Called with `calendar`, `period` (a new time off, or None if the hours or the zone have changed)
# and `at`, in the transaction that closes a calendar at times at which it may have been open.
AFFECTED: Extensions[Callable[..., Affected]] = Extensions()

# Filters that replace those of a list, by the name of the list: they extend the class that they
# replace.
FILTERS: Extensions[type[FilterSet]] = Extensions()
