"""Endpoints of bookings."""

from typing import Any

from django.db.models import QuerySet, UUIDField
from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.permissions import signed_in
from bookings import services
from bookings.filters import BookingFilter
from bookings.models import Booking
from bookings.serializers import (
    BookingChangeSerializer,
    BookingCreateSerializer,
    BookingSerializer,
    StatusChangeSerializer,
)
from bookit.exceptions import refuse
from bookit.prepared import Bound, Parameter, Prepared
from bookit.schema import errors
from bookit.views import GenericViewSet

OWN_BOOKINGS = Prepared(
    lambda: Booking.objects.filter(user=Parameter("user_id", UUIDField())).order_by(
        "start_time", "id"
    ),
    BookingSerializer.rows,
)


@extend_schema_view(
    list=extend_schema(tags=["Bookings"], summary="List bookings"),
)
class BookingViewSet(GenericViewSet):
    """Time that is taken."""

    permission_classes = [IsAuthenticated]
    serializer_class = BookingSerializer
    filterset_class = BookingFilter
    ordering_fields = {"start_time": "start_time", "created_at": "created_at"}
    default_ordering = ["start_time"]
    cursor_pages = True
    input_classes = {
        "create": BookingCreateSerializer,
        "partial_update": BookingChangeSerializer,
        "status": StatusChangeSerializer,
    }
    queryset = Booking.objects.all()

    def get_queryset(self) -> QuerySet[Booking]:
        """Return one's own bookings, or those on one's calendars (`scope`); for an admin all."""
        user = signed_in(self.request)
        if self.action != "list":
            return self.queryset.all()
        if "user_id" in self.request.query_params and not user.is_admin:
            raise PermissionDenied
        if self.request.query_params.get("scope") == "provider":
            return self.queryset.filter(calendar__provider=user)
        return self.queryset.all() if user.is_admin else self.queryset.filter(user=user)

    def prepared_list(self) -> Bound | None:
        """Return one's own bookings by start."""
        user = signed_in(self.request)
        return None if user.is_admin else OWN_BOOKINGS(user_id=user.pk)

    @extend_schema(tags=["Bookings"], summary="Show a booking")
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Show a booking to its owner, its provider, or an admin."""
        booking = Booking.objects.select_related("calendar").get(pk=kwargs["pk"])
        if not services.may_read(signed_in(request), booking):
            raise PermissionDenied
        return self.shown(booking)

    @extend_schema(
        tags=["Bookings"],
        summary="Book",
        responses={201: BookingSerializer},
        extensions=errors("booking_conflict", "service_inactive", "too_soon", "too_far_ahead"),
    )
    def create(self, request: Request) -> Response:
        """Book a service at a time. Of all who try for a seat at once, exactly one gets it."""
        return self.created(
            services.create_booking(actor=signed_in(request), at=timezone.now(), **self.checked())
        )

    @extend_schema(
        tags=["Bookings"],
        summary="Reschedule a booking, or change its status",
        responses=BookingSerializer,
        extensions=errors(
            "booking_conflict",
            "service_inactive",
            "invalid_transition",
            "too_soon",
            "too_far_ahead",
            "cancellation_too_late",
        ),
    )
    def partial_update(self, request: Request, pk: Any) -> Response:
        """Move a booking (`start_time`) or change its status, one at a time.

        Its owner can move and cancel it; its provider and admins can do what the states allow.
        """
        changes = self.checked()
        if len(changes) == 2:
            # A client may send back what it has read: what is as it was is no change.
            booking = Booking.objects.get(pk=pk)
            changes = {
                name: value for name, value in changes.items() if getattr(booking, name) != value
            }
            if len(changes) == 2:
                raise refuse("", "Change either start_time or status, not both at once.")
        call = {"booking_id": pk, "actor": signed_in(request), "at": timezone.now()}
        if "start_time" in changes:
            return self.shown(services.reschedule_booking(**call, **changes))
        if changes.get("status") == Booking.Status.CANCELLED:
            return self.shown(services.cancel_booking(**call))
        if "status" in changes:
            return self.shown(services.change_status(**call, **changes))
        return self.retrieve(request, pk=pk)

    @extend_schema(
        tags=["Bookings"],
        summary="Change a booking's status",
        responses=BookingSerializer,
        extensions=errors("invalid_transition"),
    )
    def status(self, request: Request, pk: Any) -> Response:
        """Confirm, complete or cancel a booking, or mark that nobody came."""
        return self.shown(
            services.change_status(
                booking_id=pk, actor=signed_in(request), at=timezone.now(), **self.checked()
            )
        )

    @extend_schema(
        tags=["Bookings"],
        summary="Delete a booking",
        extensions=errors("booking_started", "cancellation_too_late"),
    )
    def destroy(self, request: Request, pk: Any) -> Response:
        """Delete a booking before it starts; admins any time."""
        services.delete_booking(booking_id=pk, actor=signed_in(request), at=timezone.now())
        return Response(status=204)
