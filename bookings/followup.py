"""What follows from events, once they are committed: mails, webhooks, offers to those who wait."""

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction

from bookings import mails, waitlist, webhooks
from bookings.models import BookingEvent


@transaction.atomic
def follow_up(*, event_ids: Sequence[int], at: datetime) -> None:
    """Enqueue all that follows from some events, or, if that fails, nothing.

    It may run twice, for a worker may die before it can say that it is done.
    """
    # Prefetched, not joined: events outlive their bookings.
    events = (
        BookingEvent.objects.filter(pk__in=event_ids).prefetch_related("booking").order_by("id")
    )
    mails.enqueue(events)
    waitlist.enqueue(events, at=at)
    webhooks.enqueue(event_ids, at=at)
