"""What follows from committed events: mails, webhooks, and offers to the waitlist."""

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction
from procrastinate.contrib.django import app
from procrastinate.types import JSONValue

from bookings.mails import services as mails
from bookings.models import BookingEvent
from bookings.waitlist import services as waitlist
from bookings.webhooks import services as webhooks

# How many events one job follows up. A single statement can write any number of events.
MOST = 500


@transaction.atomic
def follow_up(*, event_ids: Sequence[int], at: datetime) -> None:
    """Enqueue everything that follows from some events, or nothing if that fails.

    It can safely run twice, because a worker may die before it has marked the job as done.
    """
    if len(event_ids) > MOST:
        parts = [event_ids[first : first + MOST] for first in range(0, len(event_ids), MOST)]
        for part in parts:
            # Webhooks are enqueued here, in order, because several workers share the jobs below.
            webhooks.enqueue(event_ids=part, at=at)
        jobs: list[dict[str, JSONValue]] = [{"event_ids": [*part]} for part in parts]
        app.configure_task("bookings.follow_up").batch_defer(*jobs)
        return
    # Bookings are prefetched and not joined, because events outlive them.
    events = (
        BookingEvent.objects.filter(pk__in=event_ids).prefetch_related("booking").order_by("id")
    )
    mails.enqueue(events=events)
    waitlist.enqueue(events=events, at=at)
    webhooks.enqueue(event_ids=event_ids, at=at)
