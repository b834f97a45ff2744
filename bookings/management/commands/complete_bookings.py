"""`manage.py complete_bookings`."""

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from bookings import clock


class Command(BaseCommand):
    """Completes confirmed bookings that have ended; the worker does so every minute."""

    help = "Complete confirmed bookings that have ended, as the worker does every minute."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command once."""
        self.stdout.write(f"{clock.complete_bookings(at=timezone.now())} bookings completed.")
