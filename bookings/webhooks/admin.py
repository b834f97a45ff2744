"""Webhooks and deliveries in the admin site."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html

from bookings.events import REPORTED_TYPES
from bookings.webhooks import services as webhooks
from bookings.webhooks.models import Attempt, Delivery, Webhook
from bookit.adminsite.filters import one_of
from bookit.adminsite.pages import HistoryInline, ServedAdmin


@admin.register(Webhook)
class WebhookAdmin(ServedAdmin):
    """Webhooks, and whether their deliveries arrive. The secrets are hidden."""

    list_display = ["url", "is_active", "why_off", "failing_since", "owner", "created_at"]
    list_filter = ["is_active", "created_at"]
    list_select_related = ["owner"]
    search_fields = ["id", "url"]
    exclude = ["secret", "previous_secret"]
    actions = ["send_test", "switch_on", "switch_off"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return every field, and the reason why nothing is sent."""
        return [*super().get_readonly_fields(request, obj), "why_off"]

    @admin.display(description="Why nothing is sent")
    def why_off(self, webhook: Webhook) -> str:
        """Return the recorded reason or, without one, that the owner is no longer an admin.

        The text is empty if the webhook works, or if an admin has merely switched it off.
        """
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
        """Switch the selected webhooks on. The admin becomes the owner of those that were off."""
        self._switch(request, queryset, is_active=True)

    @admin.action(description="Switch off", permissions=["change"])
    def switch_off(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        """Switch the selected webhooks off."""
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
    """The attempts to deliver a message, and their results."""

    model = Attempt
    fields = ["at", "duration_ms", "status_code", "error", "answer"]
    readonly_fields = ["at", "duration_ms", "status_code", "error", "answer"]

    @admin.display(description="Response")
    def answer(self, attempt: Attempt) -> str:
        """Return the response as HTML that wraps even if the response contains no spaces."""
        style = "max-width: 40rem; overflow-wrap: anywhere"
        return format_html('<div style="{}">{}</div>', style, attempt.response)


@admin.register(Delivery)
class DeliveryAdmin(ServedAdmin):
    """Messages to webhooks. They can be sent again."""

    list_display = ["created_at", "type", "webhook", "status", "next_attempt_at"]
    list_filter = [
        "status",
        ("type", one_of(lambda: [*REPORTED_TYPES, webhooks.TEST])),
        "created_at",
    ]
    list_select_related = ["webhook"]
    search_fields = ["id", "webhook__url"]
    date_hierarchy = "created_at"
    inlines = [AttemptInline]
    actions = ["redeliver"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False, because a job deletes old deliveries."""
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
