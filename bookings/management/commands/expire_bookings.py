"""`manage.py expire_bookings`."""

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from bookings import clock


class Command(BaseCommand):
    """Expires bookings not confirmed in time, and holds that ran out.

    The worker does so every minute.
    """

    help = (
        "Expire bookings that were not confirmed before their start, and holds whose time has "
        "run out, as the worker does every minute."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command once."""
        self.stdout.write(f"{clock.expire_bookings(at=timezone.now())} bookings expired.")
