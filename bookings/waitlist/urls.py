"""URLs of the waitlist of a slot."""

from django.urls import path

from bookings.waitlist.viewsets import WaitlistViewSet

urlpatterns = [
    path(
        "slots/<id:slot_id>/waitlist/<id:pk>",
        WaitlistViewSet.as_view({"get": "retrieve", "delete": "destroy"}),
    ),
    path(
        "slots/<id:slot_id>/waitlist",
        WaitlistViewSet.as_view({"get": "list", "post": "create"}),
    ),
]
