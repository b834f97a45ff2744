"""What bookings do later, and by the clock."""

import logging
from typing import Any
from uuid import UUID

from django.db import InterfaceError, OperationalError
from django.utils import timezone
from procrastinate import RetryStrategy
from procrastinate.contrib.django import app

from bookings import clock, deliveries, followup, mail_limits, mails, waitlist, webhooks
from bookit import jobs

logger = logging.getLogger(__name__)

# After 4, 16 and 64 seconds, and so on; a day in all.
PATIENT = RetryStrategy(max_attempts=8, exponential_wait=4)


@app.task(name="bookings.follow_up", retry=PATIENT)
def follow_up(event_ids: list[int]) -> None:
    """Do what follows from events; PostgreSQL enqueues it with them, see the migrations."""
    followup.follow_up(event_ids=event_ids, at=timezone.now())


@app.task(name="bookings.send_mail", queue=jobs.MAILS, retry=PATIENT)
def send_mail(event_id: int, audience: str) -> None:
    """Send the mail about an event to the attendee or the provider."""
    mails.send(event_id=event_id, audience=audience, at=timezone.now())


@app.task(name="bookings.send_composed_mail", queue=jobs.MAILS, retry=PATIENT)
def send_composed_mail(mail: dict[str, Any]) -> None:
    """Send a mail about a booking that is gone."""
    mails.deliver(mails.Mail(**mail), at=timezone.now())


# Not retried by procrastinate, which cannot do so while the next job of the same webhook waits:
# `wake_webhooks` sees to it.
@app.task(name="bookings.deliver", queue=jobs.WEBHOOKS)
async def deliver(webhook_id: str) -> None:
    """Send a webhook the messages that are due."""
    try:
        await deliveries.deliver(webhook_id=UUID(webhook_id), now=timezone.now)
    except (OperationalError, InterfaceError) as error:
        # PostgreSQL has gone. A failed job would stay for somebody to look at.
        logger.warning("deliveries to a webhook were interrupted: %s", type(error).__name__)


@app.periodic(cron="* * * * *")
@app.task(name="bookings.wake_webhooks", queueing_lock="bookings.wake_webhooks")
def wake_webhooks(timestamp: int) -> None:
    """Go on with the webhooks whose job failed, every minute."""
    webhooks.wake_forgotten()


@app.periodic(cron="* * * * *")
@app.task(name="bookings.complete", queueing_lock="bookings.complete")
def complete_bookings(timestamp: int) -> None:
    """Complete what is over, every minute."""
    clock.complete_bookings(at=timezone.now())


@app.periodic(cron="* * * * *")
@app.task(name="bookings.expire", queueing_lock="bookings.expire")
def expire_bookings(timestamp: int) -> None:
    """Let go what nobody confirmed in time, every minute."""
    clock.expire_bookings(at=timezone.now())


@app.periodic(cron="* * * * *")
@app.task(name="bookings.remind", queueing_lock="bookings.remind")
def send_reminders(timestamp: int) -> None:
    """Remind of what begins soon, every minute."""
    clock.send_reminders(at=timezone.now())


@app.task(name="bookings.offer_seats", retry=PATIENT)
def offer_seats(slot_ids: list[str]) -> None:
    """Offer the free seats of slots to those who wait for them."""
    waitlist.offer_seats(slot_ids=slot_ids, at=timezone.now())


@app.periodic(cron="* * * * *")
@app.task(name="bookings.offer", queueing_lock="bookings.offer")
def offer_all_seats(timestamp: int) -> None:
    """Offer whatever is free to those who wait for it, every minute, lest a seat be forgotten."""
    waitlist.offer_seats(at=timezone.now())


@app.periodic(cron="27 3 * * *")
@app.task(name="bookings.prune_deliveries", queueing_lock="bookings.prune_deliveries")
def prune_deliveries(timestamp: int) -> None:
    """Delete old deliveries, every night."""
    webhooks.prune_deliveries(at=timezone.now())


@app.periodic(cron="37 3 * * *")
@app.task(name="bookings.prune_mail_counts", queueing_lock="bookings.prune_mail_counts")
def prune_mail_counts(timestamp: int) -> None:
    """Delete old counts of mails, every night."""
    mail_limits.prune_mail_counts(at=timezone.now())
