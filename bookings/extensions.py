"""What other apps and the modules of this app add to bookings and their events.

The modules that read these dictionaries need not import the modules that add to them.
"""

from collections.abc import Callable, Sequence
from typing import Any

from rest_framework.serializers import Serializer

from bookings.models import BookingEvent
from bookit.api.expand import Expansion
from bookit.extensions import Extensions

# For each event type that reports something other than the booking: the function that returns the
# `data` of its events. The function gets all events of the type at once, so that the number of
# queries does not depend on the number of events.
EVENT_DATA: Extensions[Callable[[Sequence[BookingEvent]], list[dict[str, Any]]]] = Extensions()

# The resources that `expand` can add to bookings, by name.
EXPANSIONS: Extensions[Expansion] = Extensions()

# For each event type in `EVENT_DATA`: the serializer that describes the `data` of its events in the
# OpenAPI document. The serializer must have an `example`.
EVENT_DATA_SERIALIZERS: Extensions[type[Serializer[Any]]] = Extensions()
