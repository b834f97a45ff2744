"""Seats that a worker offers to those who wait."""

from django.utils import timezone
from procrastinate.contrib.django import app

from bookings.waitlist import services as waitlist
from bookit.jobs.queues import PATIENT


@app.task(name="bookings.offer_seats", retry=PATIENT)
def offer_seats(slot_ids: list[str]) -> None:
    """Offer the free seats of slots to those who wait for them."""
    waitlist.offer_seats(slot_ids=slot_ids, at=timezone.now())


@app.periodic(cron="* * * * *")
@app.task(name="bookings.offer", queueing_lock="bookings.offer")
def offer_all_seats(timestamp: int) -> None:
    """Offer whatever is free to those who wait for it, every minute, lest a seat be forgotten."""
    waitlist.offer_seats(at=timezone.now())
