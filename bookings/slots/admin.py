"""Slots in the admin site."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from bookings.exports.files import ICALENDAR
from bookings.models import Booking, Slot
from bookings.slots import services as slots
from bookit.adminsite.exports import CSV
from bookit.adminsite.pages import ServedAdmin


@admin.register(Slot)
class SlotAdmin(ServedAdmin):
    """The pages for slots, which can be viewed, cancelled and deleted."""

    list_display = ["start_time", "service", "capacity", "seats_taken", "status"]
    list_filter = ["status", "start_time", "created_at"]
    list_select_related = ["service", "calendar"]
    formats = {"csv": CSV, "ics": ICALENDAR}
    exported = ["end_time", "calendar"]
    search_fields = ["id", "service__title", "calendar__name"]
    date_hierarchy = "start_time"
    ordering = ["-start_time"]
    exclude = ["blocked"]
    actions = ["cancel"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Slot]:
        """Return the slots, each with the number of its taken seats."""
        return super().get_queryset(request).annotate(taken=slots.SEATS_TAKEN)

    @admin.display(description="Seats taken")
    def seats_taken(self, slot: Any) -> int:
        """Return the number of taken seats."""
        return slot.taken

    @admin.action(description="Cancel, together with all bookings", permissions=["change"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Slot]) -> None:
        """Cancel the selected slots and their bookings."""
        self.apply(
            request,
            queryset,
            lambda slot: slots.change_slot(
                slot_id=slot.pk,
                status=Slot.Status.CANCELLED,
                actor=request.user,  # type: ignore[arg-type]
                at=timezone.now(),
            ),
        )

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Add the bookings that prevent the deletion."""
        names, counts, missing, _ = super().get_deleted_objects(objs, request)
        return names, counts, missing, [str(each) for each in Booking.objects.filter(slot__in=objs)]

    def delete_row(self, request: HttpRequest, row: Slot) -> None:
        """Delete a slot that was never booked."""
        slots.delete_slot(slot_id=row.pk, actor=request.user)  # type: ignore[arg-type]
