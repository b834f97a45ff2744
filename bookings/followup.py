"""What follows from events, once they are committed: mails, webhooks, offers to those who wait."""

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction
from procrastinate.contrib.django import app
from procrastinate.types import JSONValue

from bookings.mails import services as mails
from bookings.models import BookingEvent
from bookings.waitlist import services as waitlist
from bookings.webhooks import services as webhooks

# Events whose mails and offers are worked out at a time; a statement can have written any number.
MOST = 500


@transaction.atomic
def follow_up(*, event_ids: Sequence[int], at: datetime) -> None:
    """Enqueue all that follows from some events, or, if that fails, nothing.

    It may run twice, because a worker may die before it can say that it is done.
    """
    if len(event_ids) > MOST:
        parts = [event_ids[first : first + MOST] for first in range(0, len(event_ids), MOST)]
        for part in parts:
            # Here, in order: several workers share the jobs of the parts.
            webhooks.enqueue(event_ids=part, at=at)
        jobs: list[dict[str, JSONValue]] = [{"event_ids": [*part]} for part in parts]
        app.configure_task("bookings.follow_up").batch_defer(*jobs)
        return
    # Prefetched, not joined: events outlive their bookings.
    events = (
        BookingEvent.objects.filter(pk__in=event_ids).prefetch_related("booking").order_by("id")
    )
    mails.enqueue(events=events)
    waitlist.enqueue(events=events, at=at)
    webhooks.enqueue(event_ids=event_ids, at=at)
