"""`manage.py send_reminders`."""

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from bookings import clock


class Command(BaseCommand):
    """Enqueues reminders of bookings that start soon; the worker does so every minute."""

    help = (
        "Enqueue the reminders of confirmed bookings that are due according to REMINDER_HOURS, as "
        "the worker does every minute. A reminder is left out if its time had passed when the "
        "booking was made, moved or confirmed. The worker sends the mails."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command once."""
        self.stdout.write(f"{clock.send_reminders(at=timezone.now())} reminders enqueued.")
