"""The bookings app."""

from importlib import import_module
from importlib.util import find_spec

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

# A room imports only rooms that come before it in this list. An import contract in `pyproject.toml`
# says which rooms it may import.
ROOMS = [
    *("tally", "feeds", "mails", "availability", "reports", "exports", "imports"),
    *("waitlist", "slots", "webhooks", "diary", "phone", "desk"),
]


class BookingsConfig(AppConfig):
    """Configuration of the bookings app. Its rooms are packages, each with one subject."""

    name = "bookings"
    verbose_name = _("Bookings and slots")

    def import_models(self) -> None:
        """Import the models of the rooms too; Django looks only in `bookings/models.py`."""
        super().import_models()
        import_from_rooms("models")

    def ready(self) -> None:
        """Import the modules of this app and of its rooms that register extensions.

        `bookings/admin.py` and `bookings/urls.py` import the others.
        """
        from bookings import affected, booked, permissions, privacy, shards, subjects  # noqa: F401
        from bookings.availability import filters, offers  # noqa: F401
        from bookings.diary import views as diary  # noqa: F401
        from bookings.exports import daysheets  # noqa: F401
        from bookings.feeds import services  # noqa: F401
        from bookings.imports import pages as imports  # noqa: F401
        from bookings.reports import pages  # noqa: F401
        from bookings.slots import serializers  # noqa: F401
        from bookings.tally import metrics, positions  # noqa: F401
        from bookings.webhooks import services as webhooks  # noqa: F401


def import_from_rooms(name: str) -> None:
    """Import the module `name` of each room that has one."""
    for room in ROOMS:
        if find_spec(f"bookings.{room}.{name}"):
            import_module(f"bookings.{room}.{name}")
