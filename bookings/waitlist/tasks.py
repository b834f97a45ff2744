"""Jobs that offer free seats to the users on waitlists."""

from django.utils import timezone
from procrastinate.contrib.django import app

from bookings.waitlist import services as waitlist
from bookit.jobs.queues import PATIENT


@app.task(name="bookings.offer_seats", retry=PATIENT)
def offer_seats(slot_ids: list[str]) -> None:
    """Offer the free seats of these slots to the users on their waitlists."""
    waitlist.offer_seats(slot_ids=slot_ids, at=timezone.now())


@app.periodic(cron="* * * * *")
@app.task(name="bookings.offer", queueing_lock="bookings.offer")
def offer_all_seats(timestamp: int) -> None:
    """Offer the free seats of all slots. Runs every minute, in case an event was missed."""
    waitlist.offer_seats(at=timezone.now())
