"""URLs of webhooks, deliveries and events."""

from django.urls import path

from bookings.webhooks.viewsets import DeliveryViewSet, EventViewSet, WebhookViewSet

urlpatterns = [
    path(
        "webhooks/<id:pk>",
        WebhookViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
    path("webhooks/<id:pk>/rotate-secret", WebhookViewSet.as_view({"post": "rotate_secret"})),
    path("webhooks/<id:pk>/test", WebhookViewSet.as_view({"post": "test"})),
    path("webhooks/<id:webhook_id>/deliveries", DeliveryViewSet.as_view({"get": "list"})),
    path(
        "webhooks/<id:webhook_id>/deliveries/<id:pk>/redeliver",
        DeliveryViewSet.as_view({"post": "redeliver"}),
    ),
    path("webhooks", WebhookViewSet.as_view({"get": "list", "post": "create"})),
    path("events", EventViewSet.as_view({"get": "list"})),
]
