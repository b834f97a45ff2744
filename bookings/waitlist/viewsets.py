"""Endpoints of the queue for a slot."""

from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import (
    extend_schema,
    extend_schema_view,
)
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.permissions import signed_in
from bookings.models import Slot
from bookings.waitlist import services as waitlist
from bookings.waitlist.models import WaitlistEntry
from bookings.waitlist.permissions import HasPlace
from bookings.waitlist.serializers import WaitlistEntrySerializer, WaitlistJoinSerializer
from bookit.api.schema import errors
from bookit.api.views import GenericViewSet


@extend_schema_view(
    list=extend_schema(
        tags=["Bookings"],
        summary="List who waits for a slot",
        description="Show one's own places in the queue; its provider and admins see all.",
    ),
)
class WaitlistViewSet(GenericViewSet):
    """The queue for a full slot."""

    permission_classes = [IsAuthenticated]
    serializer_class = WaitlistEntrySerializer
    ordering_fields = {"created_at": "created_at"}
    default_ordering = ["created_at"]
    input_classes = {"create": WaitlistJoinSerializer}
    queryset = WaitlistEntry.objects.all()
    action_permissions = {"retrieve": HasPlace, "destroy": HasPlace}
    object_rows = WaitlistEntry.objects.select_related("slot__calendar")
    object_lookup = {"pk": "pk", "slot": "slot_id"}

    def get_queryset(self) -> QuerySet[WaitlistEntry]:
        """Return one's own entries for the slot of the path; for its provider and admins all.

        Raises:
            Slot.DoesNotExist: there is no such slot.
        """
        user = signed_in(self.request)
        slot = Slot.objects.select_related("calendar").get(pk=self.kwargs["slot_id"])
        entries = self.queryset.filter(slot=slot)
        return entries if user.keeps(slot.calendar.provider_id) else entries.filter(user=user)

    @extend_schema(
        tags=["Bookings"],
        summary="Join the queue for a full slot",
        responses={201: WaitlistEntrySerializer},
        extensions=errors("service_inactive", "too_soon", "too_far_ahead", "outside_opening_hours"),
    )
    def create(self, request: Request, slot_id: Any) -> Response:
        """Wait for a seat. The next one that becomes free is held for the first in line.

        They are told by mail, and make the hold a booking in time, or it is passed on. Nobody else
        gets the seat meanwhile. Who waits already keeps their place, and is answered with it. Where
        there is a free seat, or one has one, it is a 400.
        """
        Slot.objects.only("pk").get(pk=slot_id)
        self.checked()
        return self.created(
            waitlist.join(slot_id=slot_id, actor=signed_in(request), at=timezone.now())
        )

    @extend_schema(tags=["Bookings"], summary="Show a place in the queue for a slot")
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Show where one stands, to whoever waits, the provider and admins."""
        return self.shown(self.object)

    @extend_schema(tags=["Bookings"], summary="Leave the queue for a slot")
    def destroy(self, request: Request, slot_id: Any, pk: Any) -> Response:
        """Wait no longer. A seat that is held for one goes to the next; a booking stays."""
        waitlist.leave(slot_id=slot_id, entry_id=pk, actor=signed_in(request), at=timezone.now())
        return Response(status=204)
