"""URLs of slots."""

from django.urls import path

from bookings.slots.viewsets import SlotViewSet

urlpatterns = [
    path(
        "slots/<id:pk>",
        SlotViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
    path("slots", SlotViewSet.as_view({"get": "list", "post": "create"})),
]
