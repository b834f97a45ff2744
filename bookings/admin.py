"""The history of bookings in the admin site."""

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from bookings import home  # noqa: F401 - importing `home` adds its cards
from bookings.apps import import_from_rooms
from bookings.models import BookingEvent
from bookit.adminsite.pages import ReadOnlyAdmin


@admin.register(BookingEvent)
class BookingEventAdmin(ReadOnlyAdmin):
    """The history of all bookings, including deleted bookings."""

    list_title = _("History of bookings")
    list_display = ["at", "type", "booking_key", "actor"]
    list_filter = ["type", "at"]
    list_select_related = ["actor"]
    search_fields = ["booking__id", "actor__email", "api_key_id"]
    fields = ["at", "type", "booking_key", "actor", "api_key_id", "data"]
    ordering = ["-id"]

    @admin.display(description=_("Booking"), ordering="booking_id")
    def booking_key(self, event: BookingEvent) -> str:
        """Return the id of the booking, which may have been deleted."""
        return str(event.booking_id)


# Django imports only `bookings/admin.py`, so these lines import the admin pages of the rooms, and
# their cards on the home page.
import_from_rooms("admin")
import_from_rooms("home")
