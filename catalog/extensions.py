"""The points at which higher apps extend the catalog."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from bookit.api.filters import FilterSet
from bookit.extensions import Extensions


@dataclass(frozen=True)
class Affected:
    """The upcoming bookings that a change leaves outside a calendar's open times.

    Args:
        count: the number of bookings.
        first: the id and the start time of each of the first hundred, the earliest first.
    """

    count: int = 0
    first: tuple[tuple[UUID, datetime], ...] = ()


# Functions that return the affected bookings. They are called in the transaction of the change,
# with `calendar`, `period` and `at`. `period` is the period of new time off, or None if the opening
# hours or the time zone have changed.
AFFECTED: Extensions[Callable[..., Affected]] = Extensions()

# Filter classes, by the name of the list that they filter. Each is a subclass of the list's own
# filter class, and replaces that class.
FILTERS: Extensions[type[FilterSet]] = Extensions()
