"""URLs of the searches for free times."""

from django.urls import path

from bookings.availability.viewsets import AvailabilityViewSet

urlpatterns = [
    path("services/<id:pk>/availability", AvailabilityViewSet.as_view({"get": "retrieve"})),
    path("availability", AvailabilityViewSet.as_view({"get": "many"})),
]
