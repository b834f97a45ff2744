"""Tasks of bookings: the follow-up of events, and the changes that happen every minute."""

from uuid import UUID

from django.utils import timezone
from procrastinate.contrib.django import app

from bookings import clock, followup
from bookings.apps import import_from_rooms
from bookit.jobs.queues import PATIENT


@app.task(name="bookings.follow_up", retry=PATIENT)
def follow_up(calendar_ids: list[str], event_ids: list[str], only_webhooks: bool = False) -> None:
    """Follow up events. A trigger enqueues this job when events are written.

    The job itself can enqueue further ones: for parts of many events, or only for webhooks.
    """
    followup.follow_up(
        calendar_ids=[UUID(each) for each in calendar_ids],
        event_ids=[UUID(each) for each in event_ids],
        at=timezone.now(),
        only_webhooks=only_webhooks,
    )


@app.periodic(cron="* * * * *")
@app.task(name="bookings.complete", queueing_lock="bookings.complete")
def complete_bookings(timestamp: int) -> None:
    """Every minute, complete bookings that have ended."""
    clock.complete_bookings(at=timezone.now())


@app.periodic(cron="* * * * *")
@app.task(name="bookings.expire", queueing_lock="bookings.expire")
def expire_bookings(timestamp: int) -> None:
    """Every minute, expire bookings not confirmed before their start, and holds that ran out."""
    clock.expire_bookings(at=timezone.now())


@app.periodic(cron="* * * * *")
@app.task(name="bookings.remind", queueing_lock="bookings.remind")
def send_reminders(timestamp: int) -> None:
    """Every minute, send reminders of bookings that start soon."""
    clock.send_reminders(at=timezone.now())


# procrastinate imports this module, but not the modules `tasks` in the rooms of this app.
import_from_rooms("tasks")
