"""The history of bookings in the admin site."""

from django.contrib import admin

from bookings.apps import import_from_rooms
from bookings.models import BookingEvent
from bookit.adminsite.pages import ReadOnlyAdmin


@admin.register(BookingEvent)
class BookingEventAdmin(ReadOnlyAdmin):
    """The history of all bookings, including deleted bookings."""

    list_display = ["at", "type", "booking_id", "actor"]
    list_filter = ["type", "at"]
    list_select_related = ["actor"]
    search_fields = ["booking__id", "actor__email", "api_key_id"]
    fields = ["at", "type", "booking_id", "actor", "api_key_id", "data"]
    ordering = ["-id"]


# Django imports only `bookings/admin.py`, so this line imports the admin pages of the rooms.
import_from_rooms("admin")
