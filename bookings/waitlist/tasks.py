"""Jobs that offer free seats to the users on waitlists, and tell them when their wait has ended."""

from uuid import UUID

from django.utils import timezone
from procrastinate.contrib.django import app

from bookings.waitlist import emails
from bookings.waitlist import services as waitlist
from bookit.jobs import queues
from bookit.jobs.queues import PATIENT


@app.task(name="bookings.offer_seats", retry=PATIENT)
def offer_seats(slot_ids: list[str]) -> None:
    """Offer the free seats of these slots to the users on their waitlists."""
    waitlist.offer_seats(slot_ids=slot_ids, at=timezone.now())


@app.task(name=emails.TASK, queue=queues.MAILS, retry=PATIENT)
def send_queue_mail(entry_id: str) -> None:
    """Tell a user that they no longer wait for a seat."""
    emails.send(entry_id=UUID(entry_id), at=timezone.now())


@app.periodic(cron="* * * * *")
@app.task(name="bookings.offer", queueing_lock="bookings.offer")
def offer_all_seats(timestamp: int) -> None:
    """Offer the free seats of all slots; end the waitlists of slots that can no longer be booked.

    Runs every minute, because no event says that a slot can no longer be booked, or that it can be
    booked again, and in case an event was missed.
    """
    waitlist.offer_seats(at=timezone.now())
