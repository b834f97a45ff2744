"""Serializers of events, webhooks and deliveries."""

from datetime import datetime
from functools import cache
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import JSONObject
from rest_framework import serializers

from accounts.models import User
from bookings.events import REPORTED_TYPES
from bookings.extensions import EVENT_DATA_SERIALIZERS
from bookings.models import BookingEvent
from bookings.payloads import BookingAtEventSerializer
from bookings.serializers import CONFIRMED_BOOKING
from bookings.webhooks.models import Attempt, Delivery, Webhook
from bookit.api.schema import example
from bookit.api.serializers import ListField, RowSerializer, StrictSerializer
from bookit.times import InstantField

EVENT_CHOICES = [(kind.value, kind.label) for kind in REPORTED_TYPES]
EVENT_EXAMPLE = {
    "id": "0199d3a5-6b1c-7e40-a3d2-8f4c1b7e9d05",
    "type": BookingEvent.Type.CONFIRMED.value,
    "timestamp": CONFIRMED_BOOKING["updated_at"],
    "data": CONFIRMED_BOOKING,
}


class EventSerializer(StrictSerializer):
    """Something that happened to a booking, or a new review."""

    id = serializers.UUIDField()
    type = serializers.ChoiceField(EVENT_CHOICES)
    timestamp = InstantField(help_text="When the event happened.")
    data = serializers.DictField(  # type: ignore[assignment]
        help_text="The booking, in its state after the event, or the review."
    )


@cache
def event_serializers() -> dict[str, Any]:
    """Return the serializers that describe events in the OpenAPI document, by event type.

    Event types whose `data` has the same serializer share their event serializer.
    """
    found: dict[Any, list[BookingEvent.Type]] = {}
    for kind in REPORTED_TYPES:
        data = EVENT_DATA_SERIALIZERS.get(kind, BookingAtEventSerializer)
        found.setdefault(data, []).append(kind)
    return {
        kind.value: serializer
        for data, kinds in found.items()
        for serializer in [_event_serializer(data, kinds)]
        for kind in kinds
    }


def _event_serializer(
    data: type[serializers.Serializer[Any]], kinds: list[BookingEvent.Type]
) -> type[EventSerializer]:
    name = data.__name__.removesuffix("AtEventSerializer")
    members = {
        "__doc__": EventSerializer.__doc__,
        "type": serializers.ChoiceField([(kind.value, kind.label) for kind in kinds]),
        "data": data(help_text=EventSerializer().fields["data"].help_text),
    }
    return type(f"{name}EventSerializer", (EventSerializer,), members)


HOOK = {
    "url": "https://hooks.example.com/bookit",
    "events": ["booking.created", "booking.cancelled"],
}
# What responses add to `HOOK`.
HOOK_ADDED = {
    "id": "0199d3a6-40d1-7e52-9c3a-5b8f7d2e1a64",
    "owner_id": "0199d3a1-7c1e-7f61-b2ab-0a1c5d3f9e10",
    "is_active": True,
    "failing_since": None,
    "disabled_reason": "",
    "created_at": "2026-11-21T09:00:00Z",
    "updated_at": "2026-11-21T09:00:00Z",
}
SECRET = {"secret": "whsec_Tk90IGEgc2VjcmV0LCBidXQgYW4gZXhhbXBsZSE="}


@example("New and cancelled bookings", HOOK, response=HOOK_ADDED)
class WebhookSerializer(RowSerializer):
    """A URL that receives events. A secret is shown once, when it is new."""

    url = serializers.CharField(
        max_length=2000, help_text="An HTTPS or HTTP URL that leads to a public address."
    )
    events = ListField(
        child=serializers.ChoiceField(EVENT_CHOICES),
        min_length=1,
        max_length=100,
        help_text="The types of events to send.",
    )
    is_active = serializers.BooleanField(required=False)

    owner_id = serializers.UUIDField(
        read_only=True,
        allow_null=True,
        help_text=(
            "The admin who created it, or who last switched it on or renewed its secret. "
            "Nothing is sent once the owner is no longer an admin."
        ),
    )

    # A client may send back a response that contained the secret.
    ignored = frozenset({"secret"})
    annotations = {
        "has_admin": Exists(User.objects.all().active_admins().filter(pk=OuterRef("owner")))
    }

    class Meta:
        model = Webhook
        fields = [
            "id",
            "owner_id",
            "url",
            "events",
            "is_active",
            "failing_since",
            "disabled_reason",
            "created_at",
            "updated_at",
        ]
        read_only_fields = ["failing_since", "disabled_reason"]

    @classmethod
    def rows(cls, queryset: QuerySet[Any]) -> QuerySet[Any, dict[str, Any]]:
        """Return the queryset's rows as dictionaries of the columns that `represent` needs."""
        return queryset.annotate(**cls.annotations).values(*cls.Meta.fields, *cls.annotations)

    @classmethod
    def represent(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Return the representation of a row that `rows` has returned.

        A webhook is shown as switched off if its owner is no longer an admin.
        """
        if row.pop("has_admin"):
            return row
        reason = row["disabled_reason"] or Webhook.NO_ADMIN
        return {**row, "is_active": False, "disabled_reason": reason}

    @classmethod
    def represent_instance(cls, instance: Webhook) -> dict[str, Any]:  # type: ignore[override]
        """Return the representation of a webhook."""
        names = [*cls.Meta.fields, *cls.annotations]
        return cls.represent({name: getattr(instance, name) for name in names})


@example("With its secret", {**HOOK, **HOOK_ADDED, **SECRET}, response_only=True)
class WebhookSecretSerializer(WebhookSerializer):
    """A webhook with its secret."""

    class Meta(WebhookSerializer.Meta):
        fields = [*WebhookSerializer.Meta.fields, "secret"]
        read_only_fields = [*WebhookSerializer.Meta.read_only_fields, "secret"]


class AttemptSerializer(StrictSerializer):
    """One attempt to deliver a message, and its result."""

    at = InstantField()
    duration_ms = serializers.IntegerField(min_value=0)
    status_code = serializers.IntegerField(allow_null=True)
    error = serializers.CharField(help_text="Why there was no response; empty if there was one.")
    response = serializers.CharField(help_text="The beginning of the response, at most 2 KiB.")


@example(
    "Delivered at the second attempt",
    {
        "id": "0199d3a7-52e3-7a18-8f4d-6c9a0b3e2d75",
        "webhook_id": HOOK_ADDED["id"],
        "event_id": EVENT_EXAMPLE["id"],
        "type": "booking.confirmed",
        "status": "delivered",
        "next_attempt_at": None,
        "created_at": "2026-11-21T09:05:00Z",
        "attempts": [
            {
                "at": "2026-11-21T09:05:00Z",
                "duration_ms": 10000,
                "status_code": None,
                "error": "No response within 10 seconds.",
                "response": "",
            },
            {
                "at": "2026-11-21T09:05:15Z",
                "duration_ms": 84,
                "status_code": 204,
                "error": "",
                "response": "",
            },
        ],
    },
    status_codes=[200, 202],
)
class DeliverySerializer(RowSerializer):
    """A message to a webhook: an event or a test. Its id is the `webhook-id` of each attempt."""

    webhook_id = serializers.UUIDField(read_only=True)
    event_id = serializers.UUIDField(
        read_only=True,
        allow_null=True,
        help_text="Its id in `/events`; null for a test.",
    )
    attempts = AttemptSerializer(many=True, read_only=True)

    annotations = {
        # The annotation cannot have the name of the field, `attempts`, because the model has a
        # relation with this name.
        "tried": ArraySubquery(
            Attempt.objects.filter(delivery=OuterRef("pk"))
            .order_by("id")
            .values(
                attempt=JSONObject(
                    at="at",
                    duration_ms="duration_ms",
                    status_code="status_code",
                    error="error",
                    response="response",
                )
            )
        )
    }

    class Meta:
        model = Delivery
        fields = [
            "id",
            "webhook_id",
            "event_id",
            "type",
            "status",
            "next_attempt_at",
            "created_at",
            "attempts",
        ]
        read_only_fields = fields

    @classmethod
    def rows(cls, queryset: QuerySet[Any]) -> QuerySet[Any, dict[str, Any]]:
        """Return the queryset's rows as dictionaries of the columns that `represent` needs."""
        columns = [name for name in cls.Meta.fields if name != "attempts"]
        return queryset.annotate(**cls.annotations).values(*columns, *cls.annotations)

    @classmethod
    def represent(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Return the representation of a row that `rows` has returned."""
        attempts = row.pop("tried")
        return {
            **row,
            "attempts": [
                {**attempt, "at": datetime.fromisoformat(attempt["at"])} for attempt in attempts
            ],
        }

    @classmethod
    def represent_instance(cls, instance: Delivery) -> dict[str, Any]:  # type: ignore[override]
        """Return the representation of a delivery."""
        return cls.represent(cls.rows(Delivery.objects.filter(pk=instance.pk)).get())
