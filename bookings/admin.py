"""Time that is taken, in the admin site."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from bookings import services
from bookings.models import Booking, BookingEvent
from bookit.admin import ReadOnlyAdmin
from bookit.errors import ServiceError

Action = Callable[["BookingAdmin", HttpRequest, QuerySet[Booking]], None]


def _enter(status: str, words: str) -> Action:
    """Return the action that brings the selected bookings into `status`."""

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


class EventInline(admin.TabularInline):
    """What happened to a booking."""

    model = BookingEvent
    fields = ["at", "type", "actor", "data"]
    readonly_fields = ["at", "type", "actor", "data"]
    extra = 0
    can_delete = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[BookingEvent]:
        """Return the events with whoever caused them."""
        return super().get_queryset(request).select_related("actor")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: history is written by what happens."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: history is not changed."""
        return False


@admin.register(Booking)
class BookingAdmin(admin.ModelAdmin):
    """Bookings: to look at, and to bring into another state."""

    list_display = ["start_time", "status", "service", "user", "seat", "price", "currency"]
    list_filter = ["status", "start_time", "created_at"]
    list_select_related = ["service", "user"]
    search_fields = ["id", "user__email", "user__name", "service__title", "attendee_name"]
    date_hierarchy = "start_time"
    ordering = ["-start_time"]
    show_full_result_count = False
    inlines = [EventInline]
    exclude = ["active", "blocked"]
    actions: Any = [
        _enter(Booking.Status.CONFIRMED, "Confirm"),
        _enter(Booking.Status.COMPLETED, "Mark as completed"),
        _enter(Booking.Status.NO_SHOW, "Mark as no-show"),
        _enter(Booking.Status.CANCELLED, "Cancel"),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return every field: services write them."""
        return [
            field.name for field in Booking._meta.fields if field.name not in ("active", "blocked")
        ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: a booking is made through the API, which finds its seat."""
        return False

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Show a booking without buttons that would save nothing."""
        shown = {"show_save": False, "show_save_and_continue": False}
        return super().changeform_view(
            request, object_id, form_url, {**(extra_context or {}), **shown}
        )

    def delete_model(self, request: HttpRequest, obj: Booking) -> None:
        """Delete one booking; its history stays."""
        self.apply(request, [obj], self._delete(request), say_done=False)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Booking]) -> None:
        """Delete the selected bookings; their history stays."""
        self.apply(request, queryset, self._delete(request), say_done=False)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Return what will be deleted: the bookings, not their history, which is kept."""
        return [str(booking) for booking in objs], {"bookings": len(objs)}, set(), []

    def apply(
        self,
        request: HttpRequest,
        bookings: Any,
        call: Callable[[Booking], object],
        *,
        say_done: bool = True,
    ) -> None:
        """Call a service for each booking, and tell which ones it refused."""
        done = 0
        for booking in bookings:
            try:
                call(booking)
                done += 1
            except ServiceError as error:
                self.message_user(request, f"{booking}: {error.detail}", messages.ERROR)
        if done and say_done:
            self.message_user(request, f"{done} changed.", messages.SUCCESS)

    def _delete(self, request: HttpRequest) -> Callable[[Booking], object]:
        return lambda booking: services.delete_booking(
            booking_id=booking.pk,
            actor=request.user,  # type: ignore[arg-type]
            at=timezone.now(),
        )


@admin.register(BookingEvent)
class BookingEventAdmin(ReadOnlyAdmin):
    """What happened to bookings, those included that are deleted."""

    list_display = ["at", "type", "booking_id", "actor"]
    list_filter = ["type", "at"]
    list_select_related = ["actor"]
    search_fields = ["booking__id", "actor__email"]
    fields = ["at", "type", "booking_id", "actor", "data"]
    date_hierarchy = "at"
    ordering = ["-id"]
    show_full_result_count = False
