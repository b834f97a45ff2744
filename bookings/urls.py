"""Addresses of bookings."""

from django.urls import path

from bookings.viewsets import (
    AvailabilityViewSet,
    BookingViewSet,
    CalendarFeedViewSet,
    CalendarFileViewSet,
    DeliveryViewSet,
    EventViewSet,
    HistoryViewSet,
    OwnFeedViewSet,
    SlotViewSet,
    WaitlistViewSet,
    WebhookViewSet,
)

urlpatterns = [
    path(
        "bookings/<id:pk>",
        BookingViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
    path("bookings/<id:pk>/status", BookingViewSet.as_view({"patch": "status"})),
    path("bookings/<id:booking_id>/history", HistoryViewSet.as_view({"get": "list"})),
    path("bookings/<id:pk>.ics", CalendarFileViewSet.as_view({"get": "booking"})),
    path("bookings", BookingViewSet.as_view({"get": "list", "post": "create"})),
    path("services/<id:pk>/availability", AvailabilityViewSet.as_view({"get": "retrieve"})),
    path("availability", AvailabilityViewSet.as_view({"get": "many"})),
    path(
        "slots/<id:pk>",
        SlotViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
    path("me/calendar.ics", CalendarFileViewSet.as_view({"get": "own"})),
    path("me/calendar", OwnFeedViewSet.as_view({"get": "retrieve", "post": "renew"})),
    path("calendars/<id:pk>.ics", CalendarFileViewSet.as_view({"get": "calendar"})),
    path(
        "calendars/<id:pk>/feed", CalendarFeedViewSet.as_view({"get": "retrieve", "post": "renew"})
    ),
    path(
        "slots/<id:slot_id>/waitlist/<id:pk>",
        WaitlistViewSet.as_view({"get": "retrieve", "delete": "destroy"}),
    ),
    path(
        "slots/<id:slot_id>/waitlist",
        WaitlistViewSet.as_view({"get": "list", "post": "create"}),
    ),
    path("slots", SlotViewSet.as_view({"get": "list", "post": "create"})),
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
