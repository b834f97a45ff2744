"""What higher apps add to bookings."""

from collections.abc import Callable, Sequence
from typing import Any

from bookings.models import BookingEvent
from bookit.extensions import Extensions

# By event type: a function that returns the `data` of events whose data is not the booking. It gets
# all events of the type at once, so that the number of queries does not depend on their number.
EVENT_DATA: Extensions[Callable[[Sequence[BookingEvent]], list[dict[str, Any]]]] = Extensions()
