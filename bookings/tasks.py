"""Tasks of bookings: the follow-up of events, and the changes that happen every minute."""

from uuid import UUID

from django.utils import timezone
from procrastinate.contrib.django import app

from bookings import clock, followup
from bookings.apps import import_from_rooms
from bookit.jobs.queues import PATIENT


@app.task(name="bookings.follow_up", retry=PATIENT)
def follow_up(calendar_ids: list[str], event_ids: list[str], only_webhooks: bool = False) -> None:
    """Follow up events. A trigger enqueues this job when events are written."""
    followup.follow_up(
        calendar_ids=[UUID(each) for each in calendar_ids],
        event_ids=[UUID(each) for each in event_ids],
        at=timezone.now(),
        only_webhooks=only_webhooks,
    )


@app.periodic(cron="* * * * *")
@app.task(name="bookings.complete", queueing_lock="bookings.complete")
def complete_bookings(timestamp: int) -> None:
    """Complete bookings that have ended, every minute."""
    clock.complete_bookings(at=timezone.now())


@app.periodic(cron="* * * * *")
@app.task(name="bookings.expire", queueing_lock="bookings.expire")
def expire_bookings(timestamp: int) -> None:
    """Expire unconfirmed bookings and holds whose time has run out, every minute."""
    clock.expire_bookings(at=timezone.now())


@app.periodic(cron="* * * * *")
@app.task(name="bookings.remind", queueing_lock="bookings.remind")
def send_reminders(timestamp: int) -> None:
    """Send reminders of bookings that start soon, every minute."""
    clock.send_reminders(at=timezone.now())


# procrastinate imports only `bookings/tasks.py`, so this line imports the tasks of the rooms.
import_from_rooms("tasks")
