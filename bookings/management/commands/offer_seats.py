"""`manage.py offer_seats`."""

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from bookings.waitlist import services as waitlist


class Command(BaseCommand):
    """Offers free seats to waiting users, and ends waitlists; the worker does so every minute."""

    help = (
        "Hold the free seats of slots for the users on their waitlists, and end the waitlists of "
        "slots that start too soon or are cancelled, as the worker does every minute."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command once."""
        self.stdout.write(f"{waitlist.offer_seats(at=timezone.now())} seats offered.")
