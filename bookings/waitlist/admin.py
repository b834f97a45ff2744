"""Waitlists in the admin site."""

from django.contrib import admin

from bookings.waitlist.models import WaitlistEntry
from bookit.adminsite.menu import Menu
from bookit.adminsite.pages import ReadOnlyAdmin


@admin.register(WaitlistEntry)
class WaitlistEntryAdmin(ReadOnlyAdmin):
    """Users who are waiting, or have waited, for a seat of a full slot."""

    menu = Menu.DIARY
    list_display = ["created_at", "status", "slot", "user", "booking"]
    list_filter = ["status", "created_at"]
    list_select_related = ["slot", "user", "booking"]
    search_fields = ["id", "slot__id", "user__email", "user__name"]
    ordering = ["-id"]
