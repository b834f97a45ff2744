"""The data of review events, for webhooks and `/events`."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema_serializer

from bookings.extensions import EVENT_DATA, EVENT_DATA_SERIALIZERS
from bookings.models import BookingEvent
from bookit.api.schema import SOMETIMES, example
from reviews.models import Review
from reviews.serializers import FIVE_STARS, ReviewSerializer

# The fields of a deleted review that its event keeps.
KEPT = {"id", "booking_id", "rating"}


@EVENT_DATA_SERIALIZERS.add(BookingEvent.Type.REVIEWED)
@extend_schema_serializer(extensions={SOMETIMES: sorted({*ReviewSerializer.Meta.fields} - KEPT)})
@example("Five stars", FIVE_STARS)
class ReviewAtEventSerializer(ReviewSerializer):
    """A review with its first rating. If deleted, only its id, booking_id and rating are left."""


@EVENT_DATA.add(BookingEvent.Type.REVIEWED)
def reviews(events: Sequence[BookingEvent]) -> list[dict[str, Any]]:
    """Return the review of each event as the API shows it.

    The rating is the rating at the time of the event, and `updated_at` is that time. If a review
    was deleted, return only its id, the id of its booking, and the rating.
    """
    ids = {event.pk: UUID(event.data["review_id"]) for event in events}
    stored = Review.objects.filter(pk__in=ids.values()).order_by()
    rows = {row["id"]: row for row in ReviewSerializer.rows(stored)}
    return [
        {**rows[review_id], "rating": event.data["rating"], "updated_at": event.at}
        if review_id in rows
        else {"id": review_id, "booking_id": event.booking_id, "rating": event.data["rating"]}
        for event in events
        for review_id in [ids[event.pk]]
    ]
