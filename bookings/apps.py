"""The bookings app."""

from importlib import import_module
from importlib.util import find_spec

from django.apps import AppConfig

# From the bottom to the top: each room may use those before it.
ROOMS = ["feeds", "mails", "availability", "waitlist", "slots", "webhooks"]


class BookingsConfig(AppConfig):
    """Configuration of the bookings app, whose subjects are in rooms: packages of their own."""

    name = "bookings"

    def import_models(self) -> None:
        """Import the models of the rooms too; Django looks only in `bookings/models.py`."""
        super().import_models()
        import_from_rooms("models")

    def ready(self) -> None:
        """Add to the catalog what only bookings know: what is free, and what closing affects."""
        from bookings import affected  # noqa: F401
        from bookings.availability import filters  # noqa: F401


def import_from_rooms(name: str) -> None:
    """Import the module `name` of each room that has one."""
    for room in ROOMS:
        if find_spec(f"bookings.{room}.{name}"):
            import_module(f"bookings.{room}.{name}")
