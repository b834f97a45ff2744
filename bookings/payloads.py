"""What others are told of events, by webhooks and at `/events`: the thing itself, as it was."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from bookings.events import STATE_COLUMNS
from bookings.extensions import EVENT_DATA
from bookings.models import Booking, BookingEvent
from bookings.serializers import BookingSerializer


def payloads(events: Iterable[BookingEvent]) -> list[dict[str, Any]]:
    """Return `{type, timestamp, data}` of each event, in as many queries for many as for one."""
    events = list(events)
    by_source: dict[Any, list[BookingEvent]] = {}
    for event in events:
        by_source.setdefault(EVENT_DATA.get(event.type, _bookings), []).append(event)
    things = {
        event.pk: thing
        for find, alike in by_source.items()
        for event, thing in zip(alike, find(alike), strict=True)
    }
    return [
        {"type": event.type, "timestamp": event.at, "data": things[event.pk]} for event in events
    ]


def _bookings(events: Sequence[BookingEvent]) -> list[dict[str, Any]]:
    """Return the booking of each event, as the API shows it, in the state that came of the event.

    What never changes, and what an attendee may, is as it is now; of a booking that has been
    deleted since there is its id and its state.
    """
    stored = Booking.objects.filter(pk__in={event.booking_id for event in events})
    rows = {row["id"]: row for row in BookingSerializer.rows(stored.order_by())}
    return [
        BookingSerializer.represent({**rows[event.booking_id], **state, "updated_at": event.at})
        if event.booking_id in rows
        else {"id": event.booking_id, **state}
        for event in events
        for state in [_state(event)]
    ]


def _state(event: BookingEvent) -> dict[str, Any]:
    """Return the state that an event keeps, with its times as times."""
    return {
        name: datetime.fromisoformat(event.data[name])
        if name.endswith(("_time", "_at")) and event.data[name]
        else event.data[name]
        for name in STATE_COLUMNS
        if name in event.data
    }
