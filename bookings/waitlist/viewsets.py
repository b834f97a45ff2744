"""Endpoints for the waitlist of a slot."""

from functools import partial
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request

from accounts.models import User
from accounts.permissions import allowed_by, signed_in
from bookings.models import Slot
from bookings.waitlist import services as waitlist
from bookings.waitlist.models import WaitlistEntry
from bookings.waitlist.serializers import WaitlistEntrySerializer, WaitlistJoinSerializer
from bookit.api.etags import conditional
from bookit.api.schema import errors
from bookit.api.views import RowViewSet
from bookit.database.citus.lookups import by_id
from bookit.database.prepared import Bound, Prepared
from bookit.idempotency.views import idempotent
from bookit.responses import Response
from catalog.models import Calendar

ENTRIES = Prepared(
    lambda slot_id, calendar_id: WaitlistEntry.objects.filter(slot=slot_id, calendar=calendar_id),
    slot_id=Slot._meta.pk,
    calendar_id=Calendar._meta.pk,
)
OWN_ENTRIES = Prepared(
    lambda slot_id, calendar_id, user_id: WaitlistEntry.objects.filter(
        slot=slot_id, calendar=calendar_id, user=user_id
    ),
    slot_id=Slot._meta.pk,
    calendar_id=Calendar._meta.pk,
    user_id=User._meta.pk,
)


@extend_schema_view(
    list=extend_schema(
        tags=["Bookings"],
        summary="List the waitlist of a slot",
        description=(
            "Return your own places, including ended ones. The slot's provider, admins and staff "
            "see everybody's."
        ),
    ),
)
class WaitlistViewSet(RowViewSet):
    """The waitlist of a full slot."""

    permission_classes = [IsAuthenticated]
    serializer_class = WaitlistEntrySerializer
    ordering_fields = {"created_at": "created_at"}
    default_ordering = ["created_at"]
    input_classes = {"create": WaitlistJoinSerializer}
    queryset = WaitlistEntry.objects.all()
    action_permissions = {
        action: allowed_by(partial(waitlist.check_access, permission=permission))
        for action, permission in (
            ("retrieve", "bookings.view_waitlistentry"),
            ("destroy", "bookings.delete_waitlistentry"),
        )
    }
    object_rows = WaitlistEntry.objects.select_related("slot__calendar")
    object_lookup = {"pk": "pk", "slot": "slot_id"}

    def listed(self) -> Bound:
        """Return the user's entries for the slot; its provider, admins and staff see all entries.

        Raises:
            Slot.DoesNotExist: the slot does not exist.
        """
        user = signed_in(self.request)
        slot = by_id(Slot.objects.select_related("calendar"), self.kwargs["slot_id"]).get()
        if user.may("bookings.view_waitlistentry", slot.calendar.provider_id):
            return ENTRIES(slot_id=slot.pk, calendar_id=slot.calendar_id)
        return OWN_ENTRIES(slot_id=slot.pk, calendar_id=slot.calendar_id, user_id=user.pk)

    @extend_schema(
        tags=["Bookings"],
        summary="Join the waitlist of a slot",
        responses={201: WaitlistEntrySerializer},
        extensions=errors(
            *("service_inactive", "too_soon", "too_far_ahead", "outside_opening_hours"),
            *("slot_not_full", "email_not_verified"),
        ),
    )
    @idempotent
    def create(self, request: Request, slot_id: Any) -> Response:
        """Wait for a seat. The next free seat is held for the first user on the waitlist.

        That user gets an email and can turn the hold into a booking. If the hold expires first, the
        seat goes to the next user. Nobody else can get the seat meanwhile. Users who are already
        waiting keep their place, and the response shows it. If the slot has a free seat, the
        response is a 409; if the user already has a seat, it is a 400.
        """
        # An unknown slot is a 404, whatever the body contains.
        Slot.calendar_of(slot_id)
        self.checked()
        return self.created(
            waitlist.join(slot_id=slot_id, actor=signed_in(request), at=timezone.now())
        )

    @extend_schema(tags=["Bookings"], summary="Show a place on the waitlist of a slot")
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return a place to its user, the slot's provider, admins and staff."""
        return self.shown(self.object)

    @extend_schema(tags=["Bookings"], summary="Leave the waitlist of a slot")
    @conditional
    def destroy(self, request: Request, slot_id: Any, pk: Any) -> Response:
        """Leave the waitlist.

        A seat that is held for the user goes to the next user. A seat that is already booked stays
        booked.
        """
        waitlist.leave(slot_id=slot_id, entry_id=pk, actor=signed_in(request), at=timezone.now())
        return Response(status=204)
