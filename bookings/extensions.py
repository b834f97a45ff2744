"""What the apps above add to bookings."""

from collections.abc import Callable, Sequence
from typing import Any

from bookings.models import BookingEvent
from bookit.extensions import Extensions

# The `data` of events of a type that is not about the booking itself, by type. Called with events
# of that type, so that many take as many queries as one.
EVENT_DATA: Extensions[Callable[[Sequence[BookingEvent]], list[dict[str, Any]]]] = Extensions()
