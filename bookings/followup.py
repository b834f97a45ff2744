"""Follow up committed events with emails, webhooks and waitlist offers."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import OperationalError, transaction
from procrastinate.contrib.django import app
from procrastinate.types import JSONValue

from bookings.mails import services as mails
from bookings.models import BookingEvent
from bookings.waitlist import services as waitlist
from bookings.webhooks import services as webhooks
from bookit.database.citus.nodes import is_server_down

# The maximum number of events that one job follows up. A single statement can write more events.
MAX_EVENTS = 500


def follow_up(
    *,
    calendar_ids: Sequence[UUID],
    event_ids: Sequence[UUID],
    at: datetime,
    only_webhooks: bool = False,
) -> None:
    """Enqueue the emails, webhooks and waitlist offers that follow from events on these calendars.

    Also erase the stored responses to webhook messages about bookings that were deleted.

    If an error occurs, nothing is enqueued. The function can safely run twice for the same events,
    which happens if a worker dies before it has marked the job as done.

    Emails and offers need only the server of a calendar. The messages to webhooks are in the order
    of the events on all servers of a distributed database. So while another server is down, they
    wait in a job with `only_webhooks`.
    """
    if only_webhooks:
        with transaction.atomic():
            webhooks.enqueue(event_ids=event_ids, at=at)
        return
    try:
        _follow_up(calendar_ids, event_ids, at)
    except OperationalError as error:
        if not is_server_down(error):
            raise
        _follow_up(calendar_ids, event_ids, at, webhooks_wait=True)


@transaction.atomic
def _follow_up(
    calendar_ids: Sequence[UUID],
    event_ids: Sequence[UUID],
    at: datetime,
    *,
    webhooks_wait: bool = False,
) -> None:
    task = app.configure_task("bookings.follow_up")
    calendars: JSONValue = [*map(str, calendar_ids)]
    if len(event_ids) > MAX_EVENTS:
        parts = [
            event_ids[first : first + MAX_EVENTS] for first in range(0, len(event_ids), MAX_EVENTS)
        ]
        if not webhooks_wait:
            # Deliveries to webhooks are written here, in the order of the events, because the jobs
            # below can run in any order. The jobs write them again, which has no effect.
            for part in parts:
                webhooks.enqueue(event_ids=part, at=at)
        jobs: list[dict[str, JSONValue]] = [
            {"calendar_ids": calendars, "event_ids": [*map(str, part)]} for part in parts
        ]
        task.batch_defer(*jobs)
        return
    events = BookingEvent.objects.filter(calendar__in=calendar_ids, pk__in=event_ids)
    events = events.order_by("id")
    mails.enqueue(events=events)
    waitlist.enqueue(events=events, at=at)
    if webhooks_wait:
        task.defer(calendar_ids=calendars, event_ids=[*map(str, event_ids)], only_webhooks=True)
    else:
        webhooks.enqueue(event_ids=event_ids, at=at)
    webhooks.forget_responses(events=events)
