"""Endpoints of bookings, of free times and of slots."""

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any
from urllib.parse import urlencode

import orjson
from django.db.models import Q, QuerySet, UUIDField
from django.http import Http404
from django.utils import timezone
from django.utils.http import parse_etags, quote_etag
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
)
from rest_framework.fields import BooleanField
from rest_framework.permissions import AllowAny, BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.permissions import IsAdmin, signed_in
from bookings import feeds, ical, services, slots, waitlist, webhooks
from bookings.availability import Search, search, window
from bookings.events import TOLD
from bookings.filters import BookingFilter, DeliveryFilter, EventFilter, SlotFilter
from bookings.free_times import write, write_free_times
from bookings.models import Booking, BookingEvent, Delivery, Slot, WaitlistEntry, Webhook
from bookings.payloads import payloads
from bookings.permissions import (
    BooksForUser,
    DeletesBooking,
    HasPlace,
    ListsBookings,
    ManagesBooking,
    ReadsBooking,
)
from bookings.serializers import (
    CLASS,
    AvailabilitiesSerializer,
    AvailabilitySerializer,
    BookingChangeSerializer,
    BookingCreateSerializer,
    BookingSerializer,
    CalendarFeedSerializer,
    DeliverySerializer,
    EventSerializer,
    FeedSerializer,
    HistoryEventSerializer,
    NothingSerializer,
    ServiceSearchSerializer,
    ServicesSearchSerializer,
    SlotChangeSerializer,
    SlotPublishSerializer,
    SlotSerializer,
    StatusChangeSerializer,
    WaitlistEntrySerializer,
    WaitlistJoinSerializer,
    WebhookSecretSerializer,
    WebhookSerializer,
)
from bookings.terms import Terms
from bookit.exceptions import refuse
from bookit.pagination import FeedPagination
from bookit.prepared import Bound, Parameter, Prepared
from bookit.renderers import CalendarRenderer, dumps
from bookit.schema import errors
from bookit.views import GenericViewSet
from catalog.models import Calendar, Service
from catalog.opening import DAY
from catalog.permissions import KeepsCalendar
from catalog.viewsets import CatalogViewSet

OWN_BOOKINGS = Prepared(
    lambda: Booking.objects.filter(user=Parameter("user_id", UUIDField())).order_by(
        "start_time", "id"
    ),
    BookingSerializer.rows,
)

# This many times fit into an answer: those of one service do, whatever its grid.
MOST_TIMES = 90_000
# Why a time is refused takes longer to find out.
MOST_REFUSED = 10_000
# A search of several services covers this many days at a time, summed over the services.
SERVICE_DAYS = 500

# Why a time cannot be had.
NOT_THEN = [
    "booking_conflict",
    "slot_full",
    "outside_opening_hours",
    "service_inactive",
    "too_soon",
    "too_far_ahead",
]


TOKEN = OpenApiParameter("token", str, description="As in the feed's address; another is a 404.")
CALENDAR_FILE: Any = {
    (200, "text/calendar"): OpenApiResponse(
        {"type": "string"},
        examples=[
            OpenApiExample(
                "A calendar",
                value=(
                    "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//BookIt//BookIt//EN\r\nBEGIN:VEVENT\r\n"
                    "UID:0199d3a4-02aa-7d0c-9b1f-6f0e5b8f2a11\r\nDTSTAMP:20261121T090500Z\r\n"
                    "DTSTART:20261201T100000Z\r\nDTEND:20261201T103000Z\r\nSUMMARY:Haircut\r\n"
                    "STATUS:CONFIRMED\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
                ),
            )
        ],
    ),
    304: OpenApiResponse(description="It is what `If-None-Match` names."),
}


@extend_schema_view(
    list=extend_schema(tags=["Bookings"], summary="List bookings"),
)
class BookingViewSet(GenericViewSet):
    """Time that is taken."""

    action_permissions = {
        "list": ListsBookings,
        "create": BooksForUser,
        "retrieve": ReadsBooking,
        "partial_update": ReadsBooking,
        "status": ManagesBooking,
        "destroy": DeletesBooking,
    }
    permission_classes = [IsAuthenticated]
    object_rows = Booking.objects.select_related("service", "calendar")
    named_in_body = {"create": ("user_id", lambda pk: Booking(user_id=pk))}
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
        if self.request.query_params.get("scope") == "provider":
            return Booking.objects.on_calendars_of(user)
        return self.queryset.all() if user.is_admin else self.queryset.filter(user=user)

    def prepared_list(self) -> Bound | None:
        """Return one's own bookings by start."""
        user = signed_in(self.request)
        return None if user.is_admin else OWN_BOOKINGS(user_id=user.pk)

    @extend_schema(tags=["Bookings"], summary="Show a booking")
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Show a booking to its owner, its provider, or an admin."""
        return self.shown(self.object)

    @extend_schema(
        tags=["Bookings"],
        summary="Book",
        responses={201: BookingSerializer},
        extensions=errors(*NOT_THEN, "too_many_holds"),
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
        extensions=errors(*NOT_THEN, "invalid_transition", "cancellation_too_late"),
    )
    def partial_update(self, request: Request, pk: Any) -> Response:
        """Move a booking (`start_time` or `slot_id`) or change its status, one at a time.

        Its owner can move and cancel it, and make a booking of a hold (`pending`); its provider and
        admins can do what the states allow.
        """
        changes = {name: value for name, value in self.checked().items() if value is not None}
        if len(changes) > 1:
            # A client may send back what it has read: what is as it was is no change.
            changes = {
                name: value
                for name, value in changes.items()
                if getattr(self.object, name) != value
            }
        status = changes.pop("status", None)
        if changes and status:
            raise refuse("", "Change either the time or the status, not both at once.")
        call = {"booking_id": pk, "actor": signed_in(request), "at": timezone.now()}
        if changes:
            return self.shown(services.reschedule_booking(**call, **changes))
        if status == Booking.Status.CANCELLED:
            return self.shown(services.cancel_booking(**call))
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


@extend_schema_view(
    list=extend_schema(tags=["Bookings"], summary="Show a booking's history"),
)
class HistoryViewSet(GenericViewSet):
    """What happened to a booking, oldest first, for whoever may see the booking."""

    permission_classes = [ReadsBooking]
    object_rows = Booking.objects.select_related("calendar")
    object_lookup = {"pk": "booking_id"}
    serializer_class = HistoryEventSerializer
    default_ordering = ["id"]
    queryset = BookingEvent.objects.all()

    def get_queryset(self) -> QuerySet[BookingEvent]:
        """Return the events of the booking that the path names."""
        return self.queryset.filter(booking=self.object)


class CalendarFileViewSet(GenericViewSet):
    """Bookings for calendar programs, in iCalendar; without a change since, a 304.

    Feeds are read by programs that cannot sign in: their address holds a token.
    """

    costly_with = ()
    renderer_classes = [CalendarRenderer]
    # Anyone may ask for a feed: it is the token that counts.
    permission_classes = [AllowAny]
    action_permissions = {"booking": ReadsBooking}
    object_rows = Booking.objects.select_related("service", "calendar")
    pagination_class = None

    def known_parameters(self) -> frozenset[str]:
        """Return also the token of a feed."""
        return super().known_parameters() | (set() if self.action == "booking" else {"token"})

    @extend_schema(
        operation_id="bookings_file_show",
        tags=["Bookings"],
        summary="Download a booking",
        responses=CALENDAR_FILE,
    )
    def booking(self, request: Request, pk: Any) -> Response:
        """Download a booking for a calendar program."""
        return self._file(feeds.booking_file(self.object))

    @extend_schema(
        operation_id="me_calendar_file_show",
        tags=["Bookings"],
        summary="Follow one's bookings",
        parameters=[TOKEN],
        responses=CALENDAR_FILE,
        extensions=errors("not_found"),
    )
    def own(self, request: Request) -> Response:
        """Show the bookings of whoever has this address, see `GET /me/calendar`.

        From 90 days ago on, at most 5,000; but for holds, and what was cancelled or expired.
        """
        return self._file(feeds.own_feed(token=self._token, at=timezone.now()))

    @extend_schema(
        operation_id="calendars_file_show",
        tags=["Bookings"],
        summary="Follow a calendar",
        parameters=[TOKEN],
        responses=CALENDAR_FILE,
    )
    def calendar(self, request: Request, pk: Any) -> Response:
        """Show when a calendar is busy, see `GET /calendars/{id}/feed`.

        From 90 days ago on, at most 5,000 slots and bookings beside them.
        """
        feed = feeds.calendar_feed(calendar_id=pk, token=self._token, at=timezone.now())
        return self._file(feed)

    @property
    def _token(self) -> str:
        return self.request.query_params.get("token", "")

    def _file(self, calendar: ical.Calendar) -> Response:
        """Answer with a calendar, unless the client has the same already."""
        etag = quote_etag(calendar.version)
        known = parse_etags(self.request.headers.get("If-None-Match", ""))
        is_known = "*" in known or etag in [each.removeprefix("W/") for each in known]
        headers = {"ETag": etag}
        return (
            Response(status=304, headers=headers)
            if is_known
            else Response(calendar.text(), headers=headers)
        )


class OwnFeedViewSet(GenericViewSet):
    """Where calendar programs find one's own bookings."""

    permission_classes = [IsAuthenticated]
    serializer_class = FeedSerializer  # type: ignore[assignment]
    pagination_class = None

    @extend_schema(tags=["Bookings"], summary="Show the address of one's calendar feed")
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Show the address at which calendar programs find one's bookings."""
        token = feeds.own_token(signed_in(request))
        return Response({"address": _address(request, "/me/calendar.ics", token)})

    @extend_schema(
        operation_id="me_calendar_renew",
        tags=["Bookings"],
        summary="Renew the address of one's calendar feed",
        request=None,
        responses={200: FeedSerializer},
    )
    def renew(self, request: Request) -> Response:
        """Give one's feed another address; the one before answers 404 from now on."""
        feeds.renew(owner_id=signed_in(request).pk)
        return self.retrieve(request)


class CalendarFeedViewSet(GenericViewSet):
    """Where calendar programs find what a calendar's time is taken by."""

    permission_classes = [KeepsCalendar]
    object_rows = Calendar.objects.all()
    serializer_class = CalendarFeedSerializer  # type: ignore[assignment]
    pagination_class = None

    @extend_schema(tags=["Bookings"], summary="Show the addresses of a calendar's feed")
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Show two addresses: one for anyone, of the busy times alone, and one with names."""
        return self._addresses()

    @extend_schema(
        operation_id="calendars_feed_renew",
        tags=["Bookings"],
        summary="Renew the addresses of a calendar's feed",
        request=None,
        responses={200: CalendarFeedSerializer},
    )
    def renew(self, request: Request, pk: Any) -> Response:
        """Give the feed two other addresses; those before answer 404 from now on."""
        feeds.renew(owner_id=pk)
        return self._addresses()

    def _addresses(self) -> Response:
        path = f"/calendars/{self.object.pk}.ics"
        busy, names = feeds.calendar_tokens(self.object, signed_in(self.request))
        return Response(
            {
                "address": _address(self.request, path, busy),
                "address_with_names": _address(self.request, path, names),
            }
        )


def _address(request: Request, path: str, token: str) -> str:
    return request.build_absolute_uri(f"{path}?{urlencode({'token': token})}")


class AvailabilityViewSet(GenericViewSet):
    """Times that can be booked."""

    costly_with = ()
    permission_classes = [AllowAny]
    object_rows = Service.objects.select_related("calendar")
    serializer_class = AvailabilitySerializer  # type: ignore[assignment]
    input_classes = {"retrieve": ServiceSearchSerializer, "many": ServicesSearchSerializer}
    queryset = Service.objects.all()

    def get_permissions(self) -> list[BasePermission]:
        """Return who may ask: anyone when a time is free, and why another is not, its provider."""
        explained = self.request.query_params.get("explain") in BooleanField.TRUE_VALUES
        return [KeepsCalendar() if self.action == "retrieve" and explained else AllowAny()]

    def known_parameters(self) -> frozenset[str]:
        """Return what may be asked."""
        return super().known_parameters() | self.input_classes[self.action]().fields.keys()

    @extend_schema(
        tags=["Catalog"],
        summary="Find free times of a service",
        parameters=[ServiceSearchSerializer],
        responses=AvailabilitySerializer,
    )
    def retrieve(self, request: Request, pk: Any) -> Response:
        """Find the times at which a service can be booked: whatever is offered here is accepted.

        Where it can be booked at any time, those on a grid from the opening on are offered; others
        that fit are accepted as well.
        """
        asked = self.asked()
        from_, until, at = self._window(asked)
        found = search([pk], from_, until, at=at)
        if not found.services:
            raise Http404
        [terms] = found.services
        shown, _ = self._shown(found, terms, MOST_TIMES)
        if asked.get("explain", False):
            refused = write(found.refusals(terms), self._zone)
            shown["refused"], _ = self._collected(refused, MOST_REFUSED)
        return Response(shown)

    @extend_schema(
        tags=["Catalog"],
        summary="Find free times of several services",
        parameters=[ServicesSearchSerializer],
        responses=AvailabilitiesSerializer,
    )
    def many(self, request: Request) -> Response:
        """Find the times at which each of up to 50 services can be booked, in the order asked."""
        asked = self.asked()
        wanted = [*dict.fromkeys(asked["service_id"])]
        from_, until, at = self._window(asked)
        results: list[orjson.Fragment] = []
        left = MOST_TIMES
        size = max(1, SERVICE_DAYS // ((until - from_) // DAY + 1))
        for first in range(0, len(wanted), size):
            some = wanted[first : first + size]
            found = search(some, from_, until, at=at)
            by_id = {terms.service_id: terms for terms in found.services}
            for service_id in some:
                if service_id not in by_id:
                    raise refuse("service_id", f"There is no service with the id {service_id}.")
                shown, left = self._shown(found, by_id[service_id], left)
                results.append(orjson.Fragment(dumps(shown, self._zone)))
        return Response({"results": results})

    def _window(self, asked: dict[str, Any]) -> tuple[datetime, datetime, datetime]:
        """Return where the search begins and ends, and the time that it is."""
        at = timezone.now()
        return *window(asked.get("from"), asked.get("to"), self._zone, at), at

    @property
    def _zone(self) -> tzinfo:
        return getattr(self.request, "zone", UTC)

    def _shown(self, found: Search, terms: Terms, most: int) -> tuple[dict[str, Any], int]:
        """Return the free times of a service, and how many more there may be in the answer."""
        times, left = self._collected(write_free_times(found, terms, self._zone), most)
        return {
            "service_id": terms.service_id,
            "timezone": str(self._zone),
            "times": times,
        }, left

    def _collected(
        self, times: Iterator[tuple[int, bytes]], most: int
    ) -> tuple[orjson.Fragment, int]:
        """Return times in a list, and how many fewer than `most` they are.

        Raises:
            ValidationError: they are more than that.
        """
        written = []
        for count, some in times:
            most -= count
            if most < 0:
                raise refuse("to", "These are too many times for one answer: ask for fewer days.")
            written.append(some)
        return orjson.Fragment(b"[" + b",".join(written) + b"]"), most


SERIES = {"count": 1, "next": None, "previous": None, "results": [CLASS]}


@extend_schema_view(
    list=extend_schema(tags=["Catalog"], summary="Find slots"),
    retrieve=extend_schema(tags=["Catalog"], summary="Show a slot"),
)
class SlotViewSet(CatalogViewSet):
    """Published sessions of services."""

    costly_with = ("available",)
    serializer_class = SlotSerializer
    filterset_class = SlotFilter
    ordering_fields = {"start_time": "start_time", "created_at": "created_at"}
    default_ordering = ["start_time"]
    input_classes = {
        "create": SlotPublishSerializer,
        "partial_update": SlotChangeSerializer,
    }
    queryset = Slot.objects.all()
    object_rows = Slot.objects.select_related("calendar")
    named_in_body = {
        "create": (
            "service_id",
            lambda pk: Service.objects.select_related("calendar").filter(pk=pk).first(),
        )
    }

    @extend_schema(
        tags=["Catalog"],
        summary="Publish a slot, or a series",
        responses={
            201: OpenApiResponse(
                {
                    "oneOf": [
                        {"$ref": "#/components/schemas/Slot"},
                        {"$ref": "#/components/schemas/PaginatedSlotList"},
                    ]
                },
                examples=[
                    OpenApiExample("A slot", value=CLASS),
                    OpenApiExample("A series", value=SERIES),
                ],
            )
        },
        extensions=errors("service_inactive", "slot_conflict"),
    )
    def create(self, request: Request) -> Response:
        """Publish a session of a service; with `rrule` a series, and the answer is the list of all.

        None is made if one of them overlaps another slot or booking of its calendar.
        """
        content = self.checked()
        published = slots.publish_slots(actor=signed_in(request), at=timezone.now(), **content)
        if "rrule" not in content:
            return self.created(published[0])
        rows = SlotSerializer.represent_many(published)
        found = {
            "service_id": content["service_id"],
            "from": _instant(rows[0]["start_time"]),
            "to": _instant(rows[-1]["end_time"]),
        }
        return Response(
            {"count": len(rows), "next": None, "previous": None, "results": rows},
            status=201,
            headers={"Location": request.build_absolute_uri(f"{request.path}?{urlencode(found)}")},
        )

    @extend_schema(
        tags=["Catalog"],
        summary="Change a slot",
        responses=SlotSerializer,
        extensions=errors("slot_conflict", "invalid_transition"),
    )
    def partial_update(self, request: Request, pk: Any) -> Response:
        """Change how many seats there are, or cancel a slot, and with it its bookings."""
        return self.shown(
            slots.change_slot(
                slot_id=pk, actor=signed_in(request), at=timezone.now(), **self.checked()
            )
        )

    @extend_schema(tags=["Catalog"], summary="Delete a slot", extensions=errors("slot_conflict"))
    def destroy(self, request: Request, pk: Any) -> Response:
        """Delete a slot that was never booked; cancel others."""
        slots.delete_slot(slot_id=pk, actor=signed_in(request))
        return Response(status=204)


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


@extend_schema_view(
    list=extend_schema(tags=["Webhooks"], summary="List webhooks"),
    retrieve=extend_schema(tags=["Webhooks"], summary="Show a webhook"),
)
class WebhookViewSet(GenericViewSet):
    """Addresses that are told what happens."""

    permission_classes = [IsAdmin]
    serializer_class = WebhookSerializer
    ordering_fields = {"created_at": "created_at"}
    default_ordering = ["created_at"]
    input_classes = {"rotate_secret": NothingSerializer, "test": NothingSerializer}
    queryset = Webhook.objects.all()

    @extend_schema(
        tags=["Webhooks"], summary="Make a webhook", responses={201: WebhookSecretSerializer}
    )
    def create(self, request: Request) -> Response:
        """Send an address what happens from now on. Only this answer holds the secret: keep it.

        It is sent for as long as you are an admin; then another admin has to switch it on.
        """
        webhook = webhooks.create_webhook(
            actor=signed_in(request), at=timezone.now(), **self.checked()
        )
        response = self.created(webhook)
        response.data = WebhookSecretSerializer.represent_instance(webhook)
        return response

    @extend_schema(tags=["Webhooks"], summary="Change a webhook", responses=WebhookSerializer)
    def partial_update(self, request: Request, pk: Any) -> Response:
        """Change a webhook, or switch it off or on again, which makes you its owner."""
        return self.shown(
            webhooks.update_webhook(
                webhook_id=pk,
                actor=signed_in(request),
                changes=self.checked(partial=True),
                at=timezone.now(),
            )
        )

    @extend_schema(tags=["Webhooks"], summary="Delete a webhook")
    def destroy(self, request: Request, pk: Any) -> Response:
        """Delete a webhook and the log of its deliveries."""
        webhooks.delete_webhook(webhook_id=pk)
        return Response(status=204)

    @extend_schema(
        tags=["Webhooks"],
        summary="Give a webhook another secret",
        request=None,
        responses=WebhookSecretSerializer,
    )
    def rotate_secret(self, request: Request, pk: Any) -> Response:
        """Make a new secret, which the answer alone holds. For a day the old one signs as well."""
        webhook = webhooks.rotate_secret(
            webhook_id=pk, actor=signed_in(request), at=timezone.now(), **self.checked()
        )
        return Response(WebhookSecretSerializer.represent_instance(webhook))

    @extend_schema(
        tags=["Webhooks"],
        summary="Send a test",
        request=None,
        responses={202: DeliverySerializer},
        extensions=errors("webhook_inactive"),
    )
    def test(self, request: Request, pk: Any) -> Response:
        """Send a message of type `test`, which is delivered as any other."""
        delivery = webhooks.send_test(webhook_id=pk, at=timezone.now(), **self.checked())
        return Response(DeliverySerializer.represent_instance(delivery), status=202)


@extend_schema_view(
    list=extend_schema(tags=["Webhooks"], summary="List a webhook's deliveries"),
)
class DeliveryViewSet(GenericViewSet):
    """What was sent to a webhook, and what came of it."""

    permission_classes = [IsAdmin]
    serializer_class = DeliverySerializer
    filterset_class = DeliveryFilter
    ordering_fields = {"created_at": "created_at"}
    default_ordering = ["-created_at"]
    input_classes = {"redeliver": NothingSerializer}
    queryset = Delivery.objects.all()
    object_lookup = {"pk": "pk", "webhook": "webhook_id"}

    def get_queryset(self) -> QuerySet[Delivery]:
        """Return the deliveries to the webhook that the path names.

        Raises:
            Webhook.DoesNotExist: there is none.
        """
        webhook = Webhook.objects.only("pk").get(pk=self.kwargs["webhook_id"])
        return self.queryset.filter(webhook=webhook)

    @extend_schema(
        tags=["Webhooks"],
        summary="Send a message again",
        request=None,
        responses={202: DeliverySerializer},
        extensions=errors("webhook_inactive"),
    )
    def redeliver(self, request: Request, webhook_id: Any, pk: Any) -> Response:
        """Send a message again now, under the same `webhook-id`, whatever became of it."""
        delivery = webhooks.redeliver(
            webhook_id=webhook_id, delivery_id=pk, at=timezone.now(), **self.checked()
        )
        return Response(self.serializer_class.represent_instance(delivery), status=202)


class EventViewSet(GenericViewSet):
    """What happened, for those who would rather ask than be told."""

    permission_classes = [IsAdmin]
    serializer_class = EventSerializer  # type: ignore[assignment]
    filterset_class = EventFilter
    pagination_class = FeedPagination
    # Of a hold that ends nobody has been told that it began.
    queryset = BookingEvent.objects.filter(
        ~Q(type__in=["booking.cancelled", "booking.expired"])
        | Q(data__was__status__isnull=True)
        | ~Q(data__was__status="held"),
        type__in=TOLD,
    )

    @extend_schema(tags=["Webhooks"], summary="List what happened")
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Answer with what webhooks are told, oldest first: none is missed, none comes twice.

        Go on with `cursor`, which every page has, also an empty one. An event appears once all
        changes that began before it are done.
        """
        events = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        return self.get_paginated_response(
            [
                {"id": str(event.pk), **payload}
                for event, payload in zip(events, payloads(events), strict=True)
            ]
        )


def _instant(value: Any) -> str:
    """Return an instant in UTC as a parameter."""
    return value.isoformat().replace("+00:00", "Z")
