"""Bookings and their history in the admin site."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from bookings import services
from bookings.apps import import_from_rooms
from bookings.exports.files import ICALENDAR
from bookings.models import Booking, BookingEvent
from bookit import money
from bookit.adminsite.exports import CSV
from bookit.adminsite.pages import HistoryInline, ReadOnlyAdmin, ServedAdmin

Action = Callable[["BookingAdmin", HttpRequest, QuerySet[Booking]], None]


def _change_status(status: str, words: str) -> Action:
    """Return the action that changes the status of the selected bookings to `status`."""

    @admin.action(description=words, permissions=["change"])
    def run(page: "BookingAdmin", request: HttpRequest, queryset: QuerySet[Booking]) -> None:
        page.apply(
            request,
            queryset,
            lambda booking: services.change_status(
                booking_id=booking.pk,
                status=status,
                actor=request.user,  # type: ignore[arg-type]
                at=timezone.now(),
            ),
        )

    run.__name__ = f"mark_{status}"
    return run


class EventInline(HistoryInline):
    """The history of a booking, shown on its page."""

    model = BookingEvent
    fields = ["at", "type", "actor", "api_key_id", "data"]
    readonly_fields = ["at", "type", "actor", "api_key_id", "data"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[BookingEvent]:
        """Return the events together with their actors."""
        return super().get_queryset(request).select_related("actor")


@admin.register(Booking)
class BookingAdmin(ServedAdmin):
    """Bookings. All fields are read-only; actions change the status."""

    list_display = ["start_time", "status", "service", "user", "seat", "amount"]
    list_filter = ["status", "start_time", "created_at"]
    list_select_related = ["service", "user", "calendar"]
    formats = {"csv": CSV, "ics": ICALENDAR}
    exported = [
        *("end_time", "calendar", "attendee_name", "attendee_email", "attendee_phone", "notes"),
        *("price", "currency", "cancellation_reason", "created_at"),
    ]
    search_fields = ["id", "user__email", "user__name", "service__title", "attendee_name"]
    date_hierarchy = "start_time"
    ordering = ["-start_time"]
    inlines = [EventInline]
    exclude = ["active", "blocked", "price", "currency"]
    actions: Any = [
        _change_status(Booking.Status.CONFIRMED, "Confirm"),
        _change_status(Booking.Status.COMPLETED, "Mark as completed"),
        _change_status(Booking.Status.NO_SHOW, "Mark as no-show"),
        _change_status(Booking.Status.CANCELLED, "Cancel"),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return the names of all fields, and `amount`."""
        return [*super().get_readonly_fields(request, obj), "amount"]

    @admin.display(description="price", ordering="price")
    def amount(self, booking: Booking) -> str:
        """Return the price with its currency."""
        return money.written(booking.price, booking.currency)

    def delete_row(self, request: HttpRequest, row: Booking) -> None:
        """Delete a booking, but not its history."""
        services.delete_booking(
            booking_id=row.pk,
            actor=request.user,  # type: ignore[arg-type]
            at=timezone.now(),
        )


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
