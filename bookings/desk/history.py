"""The history of all bookings in the admin site."""

import json
from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from bookings.desk import words
from bookings.models import Booking, BookingEvent
from bookit.adminsite.cards import Card, CardsAdmin
from bookit.adminsite.cells import code, exactly, link, person
from bookit.adminsite.links import page_of
from bookit.adminsite.pages import ReadOnlyAdmin


def _booking(event: BookingEvent) -> Booking | None:
    """Return the booking of an event, or None if it was deleted."""
    try:
        return event.booking
    except Booking.DoesNotExist:
        return None


@admin.register(BookingEvent)
class BookingEventAdmin(CardsAdmin, ReadOnlyAdmin):
    """The history of all bookings, including deleted bookings."""

    list_title = _("History of bookings")
    list_display = ["at", "what", "subject", "who"]
    list_display_links = ["what"]
    csv_columns = ["at", "type", "booking_key", "actor", "api_key_id"]
    list_filter = ["type", "at"]
    list_select_related = ["actor"]
    # Staff cannot search by user: an index for this would slow down writing every event.
    search_fields = ["booking__id", "api_key_id"]
    ordering = ["-id"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[BookingEvent]:
        """Return the events with their bookings.

        The bookings are read by separate queries, because Django's join would leave out the events
        of deleted bookings.
        """
        events = super().get_queryset(request)
        return events.prefetch_related("booking__service", "booking__calendar", "booking__user")

    @admin.display(description=_("What"))
    def what(self, event: BookingEvent) -> str:
        """Return what happened, with times in the zone of the calendar.

        If the booking was deleted, the times are in the zone of the signed-in user.
        """
        booking = _booking(event)
        zone = ZoneInfo(booking.calendar.timezone) if booking else timezone.get_current_timezone()
        return words.sentence(event, zone)

    @admin.display(description=_("Booking"))
    def subject(self, event: BookingEvent) -> Any:
        """Return what was booked and for whom, as a link; the id if the booking was deleted."""
        booking = _booking(event)
        if booking is None:
            return code(event.booking_id)
        return link(page_of(booking), words.title(booking))

    @admin.display(description=_("Booking"))
    def booking_key(self, event: BookingEvent) -> str:
        """Return the id of the booking, which may have been deleted."""
        return str(event.booking_id)

    @admin.display(description=_("By"), empty_value="")
    def who(self, event: BookingEvent) -> Any:
        """Return the user who caused the event; nothing if nobody did."""
        return person(event.actor) if event.actor else None

    def heading(self, row: BookingEvent) -> str:
        """Return what happened."""
        return self.what(row)

    def cards(self, request: HttpRequest, row: BookingEvent) -> Sequence[Card]:
        """Return the event as it is stored."""
        facts = [
            (_("When"), exactly(row.at, timezone.get_current_timezone_name())),
            (_("Type"), code(row.type)),
            (_("Booking"), self.subject(row)),
            (_("By"), self.who(row)),
            (_("API key"), row.api_key_id and code(row.api_key_id)),
            (_("Id"), code(row.pk)),
        ]
        data = json.dumps(row.data, indent=2, ensure_ascii=False)
        return [Card(_("Event"), facts=facts), Card(_("Data"), text=data)]
