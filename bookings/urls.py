"""Addresses of bookings."""

from django.urls import path

from bookings.viewsets import AvailabilityViewSet, BookingViewSet, SlotViewSet

urlpatterns = [
    path(
        "bookings/<id:pk>",
        BookingViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
    path("bookings/<id:pk>/status", BookingViewSet.as_view({"patch": "status"})),
    path("bookings", BookingViewSet.as_view({"get": "list", "post": "create"})),
    path("services/<id:pk>/availability", AvailabilityViewSet.as_view({"get": "retrieve"})),
    path("availability", AvailabilityViewSet.as_view({"get": "many"})),
    path(
        "slots/<id:pk>",
        SlotViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
    path("slots", SlotViewSet.as_view({"get": "list", "post": "create"})),
]
