"""Webhooks, their deliveries, and the attempts of each delivery."""

from datetime import datetime

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop
from uuid_utils.compat import uuid7

from accounts.models import User
from bookings import triggers
from bookings.models import BookingEvent
from catalog.models import Calendar


class WebhookQuerySet(models.QuerySet["Webhook"]):
    """Queries for webhooks."""

    def delivering(self) -> "WebhookQuerySet":
        """Return the webhooks that receive events: they are on, and their owner is an admin."""
        return self.filter(is_active=True, owner__in=User.objects.all().active_admins())


class Webhook(models.Model):
    """A URL to which events are sent, as long as its owner is an admin."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    url = models.URLField(max_length=2000)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        db_index=False,
        related_name="+",
        help_text=(
            "The admin who created the webhook, or who last switched it on or renewed its secret."
        ),
    )
    events = ArrayField(models.CharField(max_length=30), help_text="The types of events to send.")
    # The values are ids, not times, because the clocks of hosts differ. PostgreSQL makes these ids
    # and the ids of events. All values are replaced when the webhook receives events again after it
    # was off or had no admin.
    since = models.JSONField(
        default=dict,
        help_text="For each type, an id from the moment when the webhook subscribed to it.",
    )
    is_active = models.BooleanField(default=True)
    secret = models.CharField(
        max_length=100, help_text="Signs the messages, as Standard Webhooks specifies."
    )
    # The secrets before the present one, the latest first, separated by a space. Two of them fit
    # into the column, because they are stored without the prefix `whsec_`.
    previous_secret = models.CharField(max_length=100, blank=True, default="")
    previous_secret_expires_at = models.DateTimeField(null=True, blank=True)
    failing_since = models.DateTimeField(
        null=True, blank=True, help_text="The time since which every attempt has failed."
    )
    paused_until = models.DateTimeField(
        null=True,
        blank=True,
        help_text="All other messages wait until this time, when the failed message is retried.",
    )
    disabled_reason = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    objects = models.Manager.from_queryset(WebhookQuerySet)()

    # Replaces an empty `disabled_reason` if the owner is no longer an admin.
    NO_ADMIN = gettext_noop(
        "Its owner is no longer an admin. The admin who switches it on becomes its new owner."
    )

    class Meta:
        ordering = ["created_at", "id"]
        indexes = [models.Index(fields=["created_at", "id"], name="webhook_by_age")]
        constraints = [triggers.WEBHOOK_UPDATED_AT]

    def __str__(self) -> str:
        return self.url

    def previous_secrets(self, at: datetime) -> list[str]:
        """Return the secrets that still sign messages besides the present one, without `whsec_`."""
        expires_at = self.previous_secret_expires_at
        return self.previous_secret.split() if expires_at and expires_at > at else []

    @property
    def has_admin(self) -> bool:
        """Whether the owner is an admin. `WebhookQuerySet.delivering` also checks this, in SQL."""
        return self.owner is not None and self.owner.is_admin

    @property
    def why_off(self) -> str:
        """Why nothing is sent; empty if messages are sent.

        It is also empty if the only reason is that an admin has switched the webhook off.
        """
        return self.disabled_reason or ("" if self.has_admin else self.NO_ADMIN)


class Delivery(models.Model):
    """A message to a webhook: an event, or a test."""

    class Status(models.TextChoices):
        """Whether the message has arrived."""

        PENDING = "pending", _("Pending")
        DELIVERED = "delivered", _("Delivered")
        FAILED = "failed", _("Failed")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    webhook = models.ForeignKey(
        Webhook, on_delete=models.CASCADE, related_name="deliveries", db_index=False
    )
    # A delivery belongs to its webhook, not to a calendar. The calendar and the event are not
    # foreign keys in the database: a delivery can outlive its calendar. An event is never deleted
    # and, in a distributed database, can be on another server.
    calendar = models.ForeignKey(
        Calendar,
        on_delete=models.DO_NOTHING,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
        db_constraint=False,
        help_text="Empty for a test.",
    )
    event = models.ForeignKey(
        BookingEvent,
        on_delete=models.DO_NOTHING,
        null=True,
        blank=True,
        related_name="deliveries",
        db_constraint=False,
        help_text="Empty for a test.",
    )
    type = models.CharField(max_length=30)
    status = models.CharField(max_length=9, choices=Status, default=Status.PENDING)
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        verbose_name_plural = "deliveries"
        indexes = [
            models.Index(fields=["webhook", "created_at", "id"], name="delivery_by_webhook"),
            models.Index(fields=["created_at"], name="delivery_by_age"),
            # The order in which a webhook's messages are sent: tests first, then by event.
            models.Index(
                "webhook",
                F("event").asc(nulls_first=True),
                "id",
                name="delivery_pending",
                condition=Q(status="pending"),
            ),
            # Few messages fail, so the home page of the admin site can count them.
            models.Index(fields=["webhook"], name="delivery_failed", condition=Q(status="failed")),
        ]
        constraints = [
            models.UniqueConstraint(fields=["webhook", "event"], name="delivery_once"),
            models.CheckConstraint(
                condition=Q(calendar=None, event=None)
                | Q(calendar__isnull=False, event__isnull=False),
                name="delivery_names_calendar",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["pending", "delivered", "failed"]),
                name="delivery_status_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.type}, {self.get_status_display()}"


class Attempt(models.Model):
    """One attempt to send a delivery, and its result."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="attempts")
    at = models.DateTimeField()
    duration_ms = models.PositiveIntegerField()
    status_code = models.PositiveSmallIntegerField(null=True, blank=True)
    error = models.CharField(max_length=300, blank=True, default="")
    response = models.TextField(
        blank=True, default="", help_text="The beginning of the response, at most 2 KiB."
    )

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.error or f"{self.status_code}"
