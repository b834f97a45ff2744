"""The points at which apps that import the catalog extend it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any
from uuid import UUID

from bookit.api.filters import FilterSet
from bookit.extensions import Extensions


@dataclass(frozen=True)
class Affected:
    """The bookings that have not ended and that a change leaves outside a calendar's open times.

    Args:
        count: the number of bookings.
        first: the id and the start time of each of the first hundred, the earliest first.
    """

    count: int = 0
    first: tuple[tuple[UUID, datetime], ...] = ()


# Functions that return the affected bookings. They are called with `calendar`, `period` and `at`,
# in the transaction of the change. `period` is the period of time off, or None to find all bookings
# outside the open times. A form also calls the functions before new time off is stored, to warn of
# the bookings in its period.
AFFECTED: Extensions[Callable[..., Affected]] = Extensions()


@dataclass(frozen=True)
class Described:
    """A booking as a line of an admin page.

    Args:
        text: the time, the service and, if the viewer may see bookings, the attendee.
        url: the URL of the booking's page; empty if the viewer may not see bookings.
    """

    text: str
    url: str = ""


@dataclass(frozen=True)
class Offer:
    """A time that customers are offered, with the number of free seats."""

    start_time: datetime
    seats_left: int


# Functions that describe bookings on pages of the admin site. They are called with `pks`, `viewer`
# (the user who sees the page) and `tz`, and return a `Described` for each booking, earliest first.
DESCRIBED: Extensions[Callable[..., list[Described]]] = Extensions()

# At most this many affected bookings are described. The others are only counted.
MAX_DESCRIBED = 5


def described(affected: Affected, *, viewer: Any, tz: tzinfo) -> list[Described]:
    """Return the descriptions of the first affected bookings."""
    pks = [pk for pk, _start in affected.first[:MAX_DESCRIBED]]
    return [
        each for describe in DESCRIBED.values() for each in describe(pks=pks, viewer=viewer, tz=tz)
    ]


# Functions that return what customers would be offered under the terms of a service, which may have
# unsaved changes. They are called with `service`, `from_`, `until` and `at`, and return `Offer`s.
OFFERED: Extensions[Callable[..., Iterable[Offer]]] = Extensions()

# Filter classes, by the name of the list that they filter. Each is a subclass of the list's own
# filter class, and replaces that class.
FILTERS: Extensions[type[FilterSet]] = Extensions()
