"""Endpoints of bookings and their history."""

from collections.abc import Collection, Mapping
from typing import Any

from django.db.models import UUIDField
from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.utils import (
    extend_schema,
    extend_schema_view,
)
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request

from accounts.permissions import allowed_by, signed_in
from bookings import services
from bookings.booked import own_bookings
from bookings.extensions import EXPANSIONS
from bookings.filters import BookingFilter
from bookings.models import Booking, BookingEvent
from bookings.permissions import ListsBookings
from bookings.serializers import (
    BookerSerializer,
    BookingChangeSerializer,
    BookingCreateSerializer,
    BookingSerializer,
    DetailsSerializer,
    HistoryEventSerializer,
    StatusChangeSerializer,
)
from bookit.api.etags import conditional
from bookit.api.expand import Expansion, by_id
from bookit.api.schema import errors
from bookit.api.views import RowViewSet
from bookit.database.prepared import Bound, Prepared
from bookit.errors.refusals import refuse
from bookit.idempotency.views import idempotent
from bookit.responses import Response
from catalog.models import Calendar
from catalog.serializers import CalendarSerializer, ServiceSerializer

PROVIDED_BOOKINGS = Prepared(
    lambda provider_id: Booking.objects.on_calendars(Calendar.objects.filter(provider=provider_id)),
    provider_id=UUIDField(),
)
EVENTS = Prepared(
    lambda booking_id, calendar_id: BookingEvent.objects.filter(
        booking=booking_id, calendar=calendar_id
    ),
    booking_id=Booking._meta.pk,
    calendar_id=UUIDField(),
)

# The error codes for a request whose time or service cannot be booked. Creating and rescheduling a
# booking share them.
TIME_REFUSALS = [
    "booking_conflict",
    "slot_full",
    "outside_opening_hours",
    "service_inactive",
    "too_soon",
    "too_far_ahead",
]

# The fields of a booking that its user can change until it starts.
DETAILS = tuple(DetailsSerializer().fields)

EXPANSIONS.add("service")(by_id("service_id", ServiceSerializer))
EXPANSIONS.add("calendar")(by_id("calendar_id", CalendarSerializer))


def _find_bookers(request: Request, booking_ids: Collection[Any]) -> Mapping[Any, dict[str, Any]]:
    """Return the users of bookings, by the ids of the bookings.

    The result contains only the bookings that the client may see as their provider, an admin or
    staff; see `served_by`.
    """
    names = BookerSerializer.Meta.fields
    served = Booking.objects.served_by(signed_in(request)).filter(pk__in=booking_ids)
    rows = served.order_by().values_list("pk", *(f"user__{name}" for name in names))
    return {pk: dict(zip(names, values, strict=True)) for pk, *values in rows}


EXPANSIONS.add("user")(Expansion("id", BookerSerializer, _find_bookers))


@extend_schema_view(
    list=extend_schema(tags=["Bookings"], summary="List bookings"),
)
class BookingViewSet(RowViewSet):
    """Bookings."""

    action_permissions = {
        "list": ListsBookings,
        "create": allowed_by(services.check_books_for),
        "retrieve": allowed_by(services.check_may_read),
        "partial_update": allowed_by(services.check_may_change),
        "status": allowed_by(services.check_manages),
        "destroy": allowed_by(services.check_may_delete),
    }
    permission_classes = [IsAuthenticated]
    object_rows = Booking.objects.select_related("calendar", "user")
    named_in_body = {"create": ("user_id", lambda user_id: user_id)}
    serializer_class = BookingSerializer
    filterset_class = BookingFilter
    ordering_fields = {"start_time": "start_time", "created_at": "created_at"}
    default_ordering = ["start_time"]
    cursor_pages = True
    expandable = EXPANSIONS
    input_classes = {
        "create": BookingCreateSerializer,
        "partial_update": BookingChangeSerializer,
        "status": StatusChangeSerializer,
    }
    queryset = Booking.objects.all()

    def listed(self) -> Bound:
        """Return the bookings that the list shows.

        Users see their own bookings; admins and permitted staff see all bookings. With
        `scope=provider`, everybody sees the bookings on their own calendars.
        """
        user = signed_in(self.request)
        if self.request.query_params.get("scope") == "provider":
            # A former provider sees no bookings, because in SQL no `provider_id` is equal to null.
            return PROVIDED_BOOKINGS(provider_id=user.pk if user.is_keeper else None)
        if user.may("bookings.view_booking"):
            return super().listed()
        return own_bookings(user.pk)

    @extend_schema(tags=["Bookings"], summary="Show a booking")
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return a booking. Only its owner, its provider, admins and staff can see it."""
        return Response(self.expanded([BookingSerializer.represent_instance(self.object)])[0])

    @extend_schema(
        tags=["Bookings"],
        summary="Create a booking",
        responses={201: BookingSerializer},
        extensions=errors(*TIME_REFUSALS, "too_many_holds", "email_not_verified"),
    )
    @idempotent
    def create(self, request: Request) -> Response:
        """Book a service at a given time.

        If several requests compete for the last seat, exactly one of them gets it.
        """
        return self.created(
            services.create_booking(actor=signed_in(request), at=timezone.now(), **self.checked())
        )

    @extend_schema(
        tags=["Bookings"],
        summary="Reschedule a booking, or change its status or its details",
        responses=BookingSerializer,
        extensions=errors(
            *TIME_REFUSALS,
            *("invalid_transition", "cancellation_too_late", "booking_started"),
            "email_not_verified",
        ),
    )
    @conditional
    def partial_update(self, request: Request, pk: Any) -> Response:
        """Reschedule a booking, or change its `status` or its details.

        A request can make only one such change. `start_time` or `slot_id` reschedules the booking.
        The details are the attendee, `language`, `notes` and `metadata`.

        A booking's owner can reschedule it, cancel it with a `reason`, and turn a hold into a
        booking (`pending`). Until it starts, its owner can also change its details. Its provider,
        admins and staff can change its details at any time, and make every other change that its
        status allows.
        """
        # The `slot_id` of a booking without a slot is null, and a client may send it back.
        changes = {name: value for name, value in self.checked().items() if value is not None}
        reason = changes.pop("reason", "")
        if reason and changes.get("status") != Booking.Status.CANCELLED:
            raise refuse("reason", _("Send a reason only together with the status cancelled."))
        if len(changes) > 1:
            # A client may send back the booking that it has read. A field with the old value is not
            # a change. (If it is the only field, the service decides: a second cancellation, for
            # example, is refused.) But if the booking is already cancelled, a cancellation with a
            # reason is refused, because the new reason would not be stored.
            shown = BookingSerializer.represent_instance(self.object)
            changes = {
                name: value
                for name, value in changes.items()
                if shown[name] != value or (name == "status" and reason)
            }
        details = {name: changes.pop(name) for name in DETAILS if name in changes}
        status = changes.pop("status", None)
        if bool(changes) + bool(status) + bool(details) > 1:
            raise refuse(
                "", _("Change the time, the status or the details, but only one of them at once.")
            )
        call = {"booking_id": pk, "actor": signed_in(request), "at": timezone.now()}
        if details:
            return self.shown(services.change_details(**call, details=details))
        if changes:
            return self.shown(services.reschedule_booking(**call, **changes))
        if status == Booking.Status.CANCELLED:
            return self.shown(services.cancel_booking(**call, reason=reason))
        if status == Booking.Status.PENDING:
            return self.shown(services.book_hold(**call))
        if status:
            return self.shown(services.change_status(**call, status=status))
        return self.shown(self.object)

    @extend_schema(
        tags=["Bookings"],
        summary="Change a booking's status",
        responses=BookingSerializer,
        extensions=errors("invalid_transition"),
    )
    @conditional
    def status(self, request: Request, pk: Any) -> Response:
        """Confirm, complete or cancel a booking, or mark it as a no-show."""
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
    @conditional
    def destroy(self, request: Request, pk: Any) -> Response:
        """Delete a booking. Owners can until it is too late to cancel, admins and staff always."""
        services.delete_booking(booking_id=pk, actor=signed_in(request), at=timezone.now())
        return Response(status=204)


@extend_schema_view(
    list=extend_schema(tags=["Bookings"], summary="Show a booking's history"),
)
class HistoryViewSet(RowViewSet):
    """What happened to a booking, oldest first, for those who may see the booking."""

    permission_classes = [allowed_by(services.check_may_read)]
    governed_by = Booking
    object_rows = Booking.objects.select_related("calendar")
    object_lookup = {"pk": "booking_id"}
    serializer_class = HistoryEventSerializer
    default_ordering = ["id"]
    queryset = BookingEvent.objects.all()

    def listed(self) -> Bound:
        """Return the events of the booking in the path."""
        return EVENTS(booking_id=self.object.pk, calendar_id=self.object.calendar_id)
