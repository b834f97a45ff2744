"""The payloads of events for webhooks and `/events`."""

from collections.abc import Iterable, Sequence
from typing import Any

from drf_spectacular.utils import extend_schema_serializer

from bookings.events import STATE_COLUMNS
from bookings.extensions import EVENT_DATA
from bookings.models import Booking, BookingEvent
from bookings.serializers import CONFIRMED_BOOKING, BookingSerializer, with_instants
from bookit.api.schema import SOMETIMES, example


@extend_schema_serializer(
    extensions={SOMETIMES: sorted({*BookingSerializer.Meta.fields} - {"id", *STATE_COLUMNS})}
)
@example("A confirmed booking", CONFIRMED_BOOKING)
class BookingAtEventSerializer(BookingSerializer):
    """A booking in its state after an event. If it was deleted, only its id and state are left."""


def payloads(events: Iterable[BookingEvent]) -> list[dict[str, Any]]:
    """Return `{type, timestamp, data}` for each event.

    `data` is the booking in its state after the event, or the review with its first rating. The
    number of queries does not depend on the number of events.
    """
    events = list(events)
    by_source: dict[Any, list[BookingEvent]] = {}
    for event in events:
        by_source.setdefault(EVENT_DATA.get(event.type, _bookings), []).append(event)
    data = {
        event.pk: found
        for find, alike in by_source.items()
        for event, found in zip(alike, find(alike), strict=True)
    }
    return [{"type": event.type, "timestamp": event.at, "data": data[event.pk]} for event in events]


def _bookings(events: Sequence[BookingEvent]) -> list[dict[str, Any]]:
    """Return the booking of each event as the API shows it, in its state after the event.

    `updated_at` is the time of the event. Other columns that are not part of the state have their
    current values. If the booking has been deleted since, only its id and its state are returned.
    """
    stored = Booking.objects.filter(pk__in={event.booking_id for event in events})
    rows = {row["id"]: row for row in BookingSerializer.rows(stored.order_by())}
    return [
        BookingSerializer.represent({**rows[event.booking_id], **state, "updated_at": event.at})
        if event.booking_id in rows
        else {"id": event.booking_id, **state}
        for event in events
        # An event that was inserted directly may lack a part of the state.
        for kept in [{name: event.data[name] for name in STATE_COLUMNS if name in event.data}]
        for state in [with_instants(kept)]
    ]
