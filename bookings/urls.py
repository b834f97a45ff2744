"""URLs of bookings, and of the rooms of this app that have endpoints."""

from django.urls import path

from bookings.availability.urls import urlpatterns as availability
from bookings.feeds.urls import urlpatterns as feeds
from bookings.reports.urls import urlpatterns as reports
from bookings.slots.urls import urlpatterns as slots
from bookings.viewsets import BookingViewSet, HistoryViewSet
from bookings.waitlist.urls import urlpatterns as waitlist
from bookings.webhooks.urls import urlpatterns as webhooks

urlpatterns = [
    path(
        "bookings/<id:pk>",
        BookingViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
    path("bookings/<id:pk>/status", BookingViewSet.as_view({"patch": "status"})),
    path("bookings/<id:booking_id>/history", HistoryViewSet.as_view({"get": "list"})),
    path("bookings", BookingViewSet.as_view({"get": "list", "post": "create"})),
    *availability,
    *feeds,
    *reports,
    *slots,
    *waitlist,
    *webhooks,
]
