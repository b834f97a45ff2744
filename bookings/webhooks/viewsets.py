"""Endpoints of webhooks, deliveries and events."""

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import (
    OpenApiExample,
    PolymorphicProxySerializer,
    extend_schema,
    extend_schema_view,
)
from rest_framework.request import Request

from accounts.permissions import IsAdmin, signed_in
from bookings.events import REPORTED_TYPES
from bookings.holds import ANNOUNCED
from bookings.models import BookingEvent
from bookings.payloads import payloads
from bookings.webhooks import services as webhooks
from bookings.webhooks.filters import DeliveryFilter, EventFilter
from bookings.webhooks.models import Delivery, Webhook
from bookings.webhooks.serializers import (
    EVENT_EXAMPLE,
    DeliverySerializer,
    EventSerializer,
    WebhookSecretSerializer,
    WebhookSerializer,
    event_serializers,
)
from bookit.api.etags import conditional
from bookit.api.pagination import EventPagination
from bookit.api.schema import errors
from bookit.api.serializers import StrictSerializer
from bookit.api.views import RowViewSet
from bookit.database.prepared import Bound, Prepared
from bookit.idempotency.views import idempotent
from bookit.responses import Response

DELIVERIES = Prepared(
    lambda webhook_id: Delivery.objects.filter(webhook=webhook_id), webhook_id=Webhook._meta.pk
)


@extend_schema_view(
    list=extend_schema(tags=["Webhooks"], summary="List webhooks"),
    retrieve=extend_schema(tags=["Webhooks"], summary="Show a webhook"),
)
class WebhookViewSet(RowViewSet):
    """URLs to which events are sent."""

    with_secrets = {"create", "rotate_secret"}
    permission_classes = [IsAdmin]
    serializer_class = WebhookSerializer
    ordering_fields = {"created_at": "created_at"}
    default_ordering = ["created_at"]
    # These bodies have no fields: `checked` refuses any field, and returns an empty dictionary.
    input_classes = {"rotate_secret": StrictSerializer, "test": StrictSerializer}
    needed_permissions = dict.fromkeys(["rotate_secret", "test"], "bookings.change_webhook")
    queryset = Webhook.objects.all()

    @extend_schema(
        tags=["Webhooks"], summary="Create a webhook", responses={201: WebhookSecretSerializer}
    )
    @idempotent
    def create(self, request: Request) -> Response:
        """Send events to a URL from now on. Only this response contains the secret: store it.

        Events are sent while you are an admin. If you no longer are, another admin can switch the
        webhook on.
        """
        webhook = webhooks.create_webhook(
            actor=signed_in(request), at=timezone.now(), **self.checked()
        )
        response = self.created(webhook)
        response.data = WebhookSecretSerializer.represent_instance(webhook)
        return response

    @extend_schema(tags=["Webhooks"], summary="Change a webhook", responses=WebhookSerializer)
    @conditional
    def partial_update(self, request: Request, pk: Any) -> Response:
        """Change a webhook, or switch it off or on. Switching it on makes you its owner."""
        return self.shown(
            webhooks.update_webhook(
                webhook_id=pk,
                actor=signed_in(request),
                changes=self.checked(partial=True),
                at=timezone.now(),
            )
        )

    @extend_schema(tags=["Webhooks"], summary="Delete a webhook")
    @conditional
    def destroy(self, request: Request, pk: Any) -> Response:
        """Delete a webhook and the log of its deliveries."""
        webhooks.delete_webhook(webhook_id=pk)
        return Response(status=204)

    @extend_schema(
        tags=["Webhooks"],
        summary="Renew the secret of a webhook",
        request=None,
        responses=WebhookSecretSerializer,
    )
    def rotate_secret(self, request: Request, pk: Any) -> Response:
        """Create a new secret, which only this response contains. You become the webhook's owner.

        For a day, messages are also signed with the old secret.
        """
        webhook = webhooks.rotate_secret(
            webhook_id=pk, actor=signed_in(request), at=timezone.now(), **self.checked()
        )
        return Response(WebhookSecretSerializer.represent_instance(webhook))

    @extend_schema(
        tags=["Webhooks"],
        summary="Send a test",
        request=None,
        responses={202: DeliverySerializer},
        extensions=errors("webhook_inactive"),
    )
    @idempotent
    def test(self, request: Request, pk: Any) -> Response:
        """Send a message of type `test`. It is delivered like any other."""
        delivery = webhooks.send_test(webhook_id=pk, at=timezone.now(), **self.checked())
        return Response(DeliverySerializer.represent_instance(delivery), status=202)


@extend_schema_view(
    list=extend_schema(tags=["Webhooks"], summary="List a webhook's deliveries"),
)
class DeliveryViewSet(RowViewSet):
    """Messages to a webhook, and the results of the attempts to send them."""

    permission_classes = [IsAdmin]
    governed_by = Webhook
    needed_permissions = {"redeliver": "bookings.change_webhook"}
    serializer_class = DeliverySerializer
    filterset_class = DeliveryFilter
    ordering_fields = {"created_at": "created_at"}
    default_ordering = ["-created_at"]
    input_classes = {"redeliver": StrictSerializer}  # The body is empty.
    queryset = Delivery.objects.all()
    object_lookup = {"pk": "pk", "webhook": "webhook_id"}

    def listed(self) -> Bound:
        """Return the deliveries to the webhook in the path.

        Raises:
            Webhook.DoesNotExist: the webhook does not exist.
        """
        webhook = Webhook.objects.only("pk").get(pk=self.kwargs["webhook_id"])
        return DELIVERIES(webhook_id=webhook.pk)

    @extend_schema(
        tags=["Webhooks"],
        summary="Send a message again",
        request=None,
        responses={202: DeliverySerializer},
        extensions=errors("webhook_inactive"),
    )
    @idempotent
    def redeliver(self, request: Request, webhook_id: Any, pk: Any) -> Response:
        """Send a message again now, with the same `webhook-id`, whatever its status."""
        delivery = webhooks.redeliver(
            webhook_id=webhook_id, delivery_id=pk, at=timezone.now(), **self.checked()
        )
        return Response(self.serializer_class.represent_instance(delivery), status=202)


class EventViewSet(RowViewSet):
    """Events, for clients that poll instead of receiving webhooks."""

    permission_classes = [IsAdmin]
    serializer_class = EventSerializer  # type: ignore[assignment]
    filterset_class = EventFilter
    pagination_class = EventPagination
    # `ANNOUNCED` leaves out the ends of holds.
    queryset = BookingEvent.objects.filter(ANNOUNCED, type__in=REPORTED_TYPES)

    @extend_schema(
        tags=["Webhooks"],
        summary="List events",
        responses=PolymorphicProxySerializer(
            "Event", lambda: {**event_serializers()}, resource_type_field_name="type"
        ),
        examples=[OpenApiExample("A booking was confirmed", EVENT_EXAMPLE, response_only=True)],
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        """Return the events that webhooks receive, oldest first. None is missed or repeated.

        Send the `cursor` of a page, even of an empty page, to get the next. An event appears as
        soon as all changes that began before it are done.
        """
        found: Any = self.filter_queryset(self.listed())  # type: ignore[arg-type]
        events = self.paginate_queryset(found.queryset()) or []
        return self.get_paginated_response(
            [
                {"id": event.pk, **payload}
                for event, payload in zip(events, payloads(events), strict=True)
            ]
        )
