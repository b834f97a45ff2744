"""Time that is taken, in the admin site."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html

from bookings import services, slots, webhooks
from bookings.events import TOLD
from bookings.models import (
    Attempt,
    Booking,
    BookingEvent,
    Delivery,
    MailCount,
    Slot,
    WaitlistEntry,
    Webhook,
)
from bookit import money
from bookit.adminsite.filters import one_of
from bookit.adminsite.pages import HistoryInline, ReadOnlyAdmin, ServedAdmin

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


class EventInline(HistoryInline):
    """What happened to a booking."""

    model = BookingEvent
    fields = ["at", "type", "actor", "data"]
    readonly_fields = ["at", "type", "actor", "data"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[BookingEvent]:
        """Return the events with whoever caused them."""
        return super().get_queryset(request).select_related("actor")


@admin.register(Slot)
class SlotAdmin(ServedAdmin):
    """Published sessions: to look at, and to cancel."""

    list_display = ["start_time", "service", "capacity", "seats_taken", "status"]
    list_filter = ["status", "start_time", "created_at"]
    list_select_related = ["service"]
    search_fields = ["id", "service__title", "calendar__name"]
    date_hierarchy = "start_time"
    ordering = ["-start_time"]
    exclude = ["blocked"]
    actions = ["cancel"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Slot]:
        """Return the slots with how many of their seats are taken."""
        return super().get_queryset(request).annotate(taken=slots.SEATS_TAKEN)

    @admin.display(description="Seats taken")
    def seats_taken(self, slot: Any) -> int:
        """Return how many seats are taken."""
        return slot.taken

    @admin.action(description="Cancel, with all bookings", permissions=["change"])
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
        """Return also the bookings that stand against it."""
        names, counts, missing, _ = super().get_deleted_objects(objs, request)
        return names, counts, missing, [str(each) for each in Booking.objects.filter(slot__in=objs)]

    def delete_row(self, request: HttpRequest, row: Slot) -> None:
        """Delete a slot that was never booked."""
        slots.delete_slot(slot_id=row.pk, actor=request.user)  # type: ignore[arg-type]


@admin.register(Booking)
class BookingAdmin(ServedAdmin):
    """Bookings: to look at, and to bring into another state."""

    list_display = ["start_time", "status", "service", "user", "seat", "amount"]
    list_filter = ["status", "start_time", "created_at"]
    list_select_related = ["service", "user"]
    search_fields = ["id", "user__email", "user__name", "service__title", "attendee_name"]
    date_hierarchy = "start_time"
    ordering = ["-start_time"]
    inlines = [EventInline]
    exclude = ["active", "blocked", "price", "currency"]
    actions: Any = [
        _enter(Booking.Status.CONFIRMED, "Confirm"),
        _enter(Booking.Status.COMPLETED, "Mark as completed"),
        _enter(Booking.Status.NO_SHOW, "Mark as no-show"),
        _enter(Booking.Status.CANCELLED, "Cancel"),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return every field, the price with its currency."""
        return [*super().get_readonly_fields(request, obj), "amount"]

    @admin.display(description="price", ordering="price")
    def amount(self, booking: Booking) -> str:
        """Return the price with its currency."""
        return money.written(booking.price, booking.currency)

    def delete_row(self, request: HttpRequest, row: Booking) -> None:
        """Delete a booking; its history stays."""
        services.delete_booking(
            booking_id=row.pk,
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
    ordering = ["-id"]


@admin.register(WaitlistEntry)
class WaitlistEntryAdmin(ReadOnlyAdmin):
    """Who waits for a seat of a full slot, or did."""

    list_display = ["created_at", "status", "slot", "user", "booking"]
    list_filter = ["status", "created_at"]
    list_select_related = ["slot", "user", "booking"]
    search_fields = ["id", "slot__id", "user__email", "user__name"]
    ordering = ["-id"]


@admin.register(Webhook)
class WebhookAdmin(ServedAdmin):
    """Addresses that are sent what happens, and whether it arrives. Nobody sees the secrets."""

    list_display = ["url", "is_active", "why_off", "failing_since", "owner", "created_at"]
    list_filter = ["is_active", "created_at"]
    list_select_related = ["owner"]
    search_fields = ["id", "url"]
    exclude = ["secret", "previous_secret"]
    actions = ["send_test", "switch_on", "switch_off"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return every field, and why nothing is sent."""
        return [*super().get_readonly_fields(request, obj), "why_off"]

    @admin.display(description="Why nothing is sent")
    def why_off(self, webhook: Webhook) -> str:
        """Return what stops deliveries, other than that somebody switched them off."""
        return webhook.disabled_reason or ("" if webhook.has_admin else Webhook.NO_ADMIN)

    @admin.action(description="Send a test", permissions=["change"])
    def send_test(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        """Send a test to the selected webhooks."""
        self.apply(
            request,
            queryset,
            lambda webhook: webhooks.send_test(webhook_id=webhook.pk, at=timezone.now()),
        )

    @admin.action(description="Switch on", permissions=["change"])
    def switch_on(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        """Send the selected webhooks what happens from now on, as their owner."""
        self._switch(request, queryset, is_active=True)

    @admin.action(description="Switch off", permissions=["change"])
    def switch_off(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        """Tell the selected webhooks nothing any more."""
        self._switch(request, queryset, is_active=False)

    def _switch(
        self, request: HttpRequest, queryset: QuerySet[Webhook], *, is_active: bool
    ) -> None:
        self.apply(
            request,
            queryset,
            lambda webhook: webhooks.update_webhook(
                webhook_id=webhook.pk,
                actor=request.user,  # type: ignore[arg-type]
                changes={"is_active": is_active},
                at=timezone.now(),
            ),
        )

    def delete_row(self, request: HttpRequest, row: Webhook) -> None:
        """Delete a webhook and the log of its deliveries."""
        webhooks.delete_webhook(webhook_id=row.pk)


class AttemptInline(HistoryInline):
    """How often a message was tried, and what came of it."""

    model = Attempt
    fields = ["at", "duration_ms", "status_code", "error", "answer"]
    readonly_fields = ["at", "duration_ms", "status_code", "error", "answer"]

    @admin.display(description="Response")
    def answer(self, attempt: Attempt) -> str:
        """Return what came back, which need not have a blank to break a line at."""
        style = "max-width: 40rem; overflow-wrap: anywhere"
        return format_html('<div style="{}">{}</div>', style, attempt.response)


@admin.register(Delivery)
class DeliveryAdmin(ServedAdmin):
    """Messages to webhooks: to look at, and to send again."""

    list_display = ["created_at", "type", "webhook", "status", "next_attempt_at"]
    list_filter = ["status", ("type", one_of(lambda: [*TOLD, webhooks.TEST])), "created_at"]
    list_select_related = ["webhook"]
    search_fields = ["id", "webhook__url"]
    date_hierarchy = "created_at"
    inlines = [AttemptInline]
    actions = ["redeliver"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: they go when they are old."""
        return False

    @admin.action(description="Redeliver", permissions=["change"])
    def redeliver(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> None:
        """Send the selected messages again."""
        self.apply(
            request,
            queryset,
            lambda delivery: webhooks.redeliver(
                webhook_id=delivery.webhook_id, delivery_id=delivery.pk, at=timezone.now()
            ),
        )


@admin.register(MailCount)
class MailCountAdmin(ReadOnlyAdmin):
    """How many mails were sent, and which limits kept others back."""

    list_display = ["day", "subject", "sent", "most", "withheld"]
    list_filter = ["day"]
    search_fields = ["subject"]
