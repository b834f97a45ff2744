"""Stores the histories of the bookings, which also say when a booking was reviewed."""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from bookings.events import state
from bookings.models import BookingEvent
from bookit.tools.demo.drafts import Draft
from reviews.models import Review


def store_histories(drafts: Iterable[Draft], reviews: Iterable[Review]) -> list[BookingEvent]:
    """Store and return the events of the bookings and of their reviews, in order of their times."""
    events = [event for draft in drafts for event in draft.events()]
    events += [_event_of(review) for review in reviews]
    # The sort is stable, so events of one booking at the same moment stay in their order.
    return BookingEvent.objects.bulk_create(sorted(events, key=attrgetter("at")))


def _event_of(review: Review) -> BookingEvent:
    """Return the event of a new review, as `reviews.services` would have recorded it."""
    booking: Any = review.booking
    return BookingEvent(
        calendar_id=booking.calendar_id,
        booking_id=booking.pk,
        type=BookingEvent.Type.REVIEWED,
        actor_id=review.user_id,
        at=review.created_at,
        data={**state(booking), "review_id": str(review.pk), "rating": review.rating},
    )
