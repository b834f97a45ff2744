"""What bookings do later, and by the clock."""

from datetime import datetime, timedelta
from threading import BoundedSemaphore
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils import timezone
from procrastinate import JobContext, RetryStrategy
from procrastinate.contrib.django import app

from bookings import clock, followup, mail_limits, mails, waitlist, webhooks

# After 4, 16 and 64 seconds, and so on; a day in all.
PATIENT = RetryStrategy(max_attempts=8, exponential_wait=4)


@app.task(name="bookings.follow_up", retry=PATIENT)
def follow_up(event_ids: list[int]) -> None:
    """Do what follows from events; PostgreSQL enqueues it with them, see the migrations."""
    followup.follow_up(event_ids=event_ids, at=timezone.now())


@app.task(name="bookings.send_mail", retry=PATIENT)
def send_mail(event_id: int, audience: str) -> None:
    """Send the mail about an event to the attendee or the provider."""
    mails.send(event_id=event_id, audience=audience, at=timezone.now())


@app.task(name="bookings.send_composed_mail", retry=PATIENT)
def send_composed_mail(mail: dict[str, Any]) -> None:
    """Send a mail about a booking that is gone."""
    mails.deliver(mails.Mail(**mail), at=timezone.now())


# So many of a worker's jobs wait for somebody's server at a time: half of what it does, so that
# mails and the clock always find a place.
DELIVERING = BoundedSemaphore(max(1, settings.WORKER_CONCURRENCY // 2))
# Seconds after which a delivery that found no place tries again.
ANOTHER_TRY = 2


@app.task(name="bookings.deliver", retry=PATIENT, pass_context=True)
def deliver(context: JobContext, delivery_id: str, planned: str) -> None:
    """Try to deliver a message to a webhook, as planned for a moment."""
    if not DELIVERING.acquire(blocking=False):
        job = context.job
        # With a lock, before those that wait behind it: in the order in which they were.
        priority = webhooks.PRIORITY + 1 if job.lock else job.priority
        app.configure_task(
            "bookings.deliver",
            lock=job.lock,
            priority=priority,
            schedule_at=timezone.now() + timedelta(seconds=ANOTHER_TRY),
        ).defer(delivery_id=delivery_id, planned=planned)
        return
    try:
        webhooks.deliver(
            delivery_id=UUID(delivery_id),
            planned=datetime.fromisoformat(planned),
            at=timezone.now(),
        )
    finally:
        DELIVERING.release()


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
