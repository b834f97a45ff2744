"""Endpoints of calendar files and feeds."""

from typing import Any
from urllib.parse import urlencode

from django.utils import timezone
from django.utils.http import parse_etags, quote_etag
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
)
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request

from accounts.permissions import allowed_by, signed_in
from bookings import ical
from bookings.feeds import services as feeds
from bookings.feeds.models import Feed
from bookings.feeds.serializers import CalendarFeedSerializer, FeedSerializer
from bookings.models import Booking
from bookings.services import check_may_read
from bookit.api.negotiation import FixedNegotiation
from bookit.api.renderers import CalendarRenderer
from bookit.api.schema import errors
from bookit.api.views import RowViewSet
from bookit.responses import Response
from bookit.runtime.costly import ALWAYS
from catalog.models import Calendar
from catalog.permissions import KeepsCalendar

TOKEN = OpenApiParameter(
    "token",
    str,
    description="The token from the feed's address. Any other gets a 404.",
)
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
    304: OpenApiResponse(
        description="The file has not changed: `If-None-Match` has its current ETag."
    ),
}


class CalendarFileViewSet(RowViewSet):
    """Bookings in iCalendar format for calendar programs; a 304 if nothing has changed.

    Calendar programs cannot sign in to read a feed, so the URL of a feed contains a token.
    """

    costly_with = ALWAYS
    renderer_classes = [CalendarRenderer]
    content_negotiation_class = FixedNegotiation
    # Anyone may request a feed; the token grants access.
    permission_classes = [AllowAny]
    action_permissions = {"booking": allowed_by(check_may_read)}
    governed_by = Booking
    object_rows = Booking.objects.select_related("service", "calendar")
    pagination_class = None

    def known_parameters(self) -> frozenset[str]:
        """Return the query parameters that a request may carry. Feeds also have `token`."""
        return super().known_parameters() | (set() if self.action == "booking" else {"token"})

    @extend_schema(
        operation_id="bookings_file_show",
        tags=["Bookings"],
        summary="Download a booking",
        responses=CALENDAR_FILE,
    )
    def booking(self, request: Request, pk: Any) -> Response:
        """Download a booking for a calendar program."""
        return self._file(feeds.booking_file(booking=self.object))

    @extend_schema(
        operation_id="me_calendar_file_show",
        tags=["Bookings"],
        summary="Subscribe to your bookings",
        parameters=[TOKEN],
        responses=CALENDAR_FILE,
        extensions=errors("not_found"),
    )
    def own(self, request: Request) -> Response:
        """Return the bookings of the feed's user; see `GET /me/calendar`.

        The feed starts up to 90 days ago and has at most 5,000 bookings. Holds and cancelled
        or expired bookings are left out.
        """
        return self._file(feeds.own_feed(token=self._token, at=timezone.now()))

    @extend_schema(
        operation_id="calendars_file_show",
        tags=["Bookings"],
        summary="Subscribe to a calendar",
        parameters=[TOKEN],
        responses=CALENDAR_FILE,
    )
    def calendar(self, request: Request, pk: Any) -> Response:
        """Return a calendar's busy times; some tokens show names. See `GET /calendars/{id}/feed`.

        The feed starts up to 90 days ago and has at most 5,000 entries: slots, and bookings
        without a slot, but no holds.
        """
        feed = feeds.calendar_feed(calendar_id=pk, token=self._token, at=timezone.now())
        return self._file(feed)

    @property
    def _token(self) -> str:
        return self.request.query_params.get("token", "")

    def _file(self, file: ical.CalendarFile) -> Response:
        """Respond with a file, or with a 304 if the client already has it."""
        etag = quote_etag(file.version)
        known = parse_etags(self.request.headers.get("If-None-Match", ""))
        is_known = "*" in known or etag in [each.removeprefix("W/") for each in known]
        headers = {"ETag": etag}
        return (
            Response(status=304, headers=headers)
            if is_known
            else Response(file.text(), headers=headers)
        )


class OwnFeedViewSet(RowViewSet):
    """The URL of the user's own feed."""

    with_secrets = {"retrieve", "renew"}
    permission_classes = [IsAuthenticated]
    serializer_class = FeedSerializer  # type: ignore[assignment]
    pagination_class = None

    @extend_schema(tags=["Bookings"], summary="Show the address of your calendar feed")
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return the address at which calendar programs find your bookings."""
        token = feeds.own_token(user=signed_in(request))
        return Response({"address": _address(request, "/me/calendar.ics", token)})

    @extend_schema(
        operation_id="me_calendar_renew",
        tags=["Bookings"],
        summary="Renew the address of your calendar feed",
        request=None,
        responses={200: FeedSerializer},
    )
    def renew(self, request: Request) -> Response:
        """Give your feed a new address.

        The previous address and each `address_with_names` that you requested now return 404.
        """
        feeds.renew(owner_id=signed_in(request).pk)
        return self.retrieve(request)


class CalendarFeedViewSet(RowViewSet):
    """The URLs of the feed of a calendar."""

    with_secrets = {"retrieve", "renew"}
    permission_classes = [KeepsCalendar]
    governed_by = Feed
    needed_permissions = {"renew": "bookings.change_feed"}
    object_rows = Calendar.objects.all()
    serializer_class = CalendarFeedSerializer  # type: ignore[assignment]
    pagination_class = None

    @extend_schema(tags=["Bookings"], summary="Show the addresses of a calendar's feed")
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return two addresses: one for anyone, with only the busy times, and one with names."""
        return self._addresses()

    @extend_schema(
        operation_id="calendars_feed_renew",
        tags=["Bookings"],
        summary="Renew the addresses of a calendar's feed",
        request=None,
        responses={200: CalendarFeedSerializer},
    )
    def renew(self, request: Request, pk: Any) -> Response:
        """Give the feed two new addresses. The previous ones return 404 from now on."""
        feeds.renew(owner_id=pk)
        return self._addresses()

    def _addresses(self) -> Response:
        path = f"/calendars/{self.object.pk}.ics"
        busy, names = feeds.calendar_tokens(calendar=self.object, reader=signed_in(self.request))
        return Response(
            {
                "address": _address(self.request, path, busy),
                "address_with_names": _address(self.request, path, names),
            }
        )


def _address(request: Request, path: str, token: str) -> str:
    return request.build_absolute_uri(f"{path}?{urlencode({'token': token})}")
