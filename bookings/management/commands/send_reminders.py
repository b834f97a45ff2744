"""`manage.py send_reminders`."""

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from bookings import clock


class Command(BaseCommand):
    """Enqueues reminders of bookings that start soon; the worker does so every minute."""

    help = (
        "Enqueue reminders of confirmed bookings that start within REMINDER_HOURS and were made "
        "earlier than that, as the worker does every minute. Each start is announced once. The "
        "worker sends the mails."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command once."""
        self.stdout.write(f"{clock.send_reminders(at=timezone.now())} reminders enqueued.")
