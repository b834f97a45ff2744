"""Endpoints that search for free times."""

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from typing import Any

import orjson
from django.http import Http404
from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny, BasePermission
from rest_framework.request import Request

from bookings.availability.json import write, write_free_times
from bookings.availability.search import Search, search, window
from bookings.availability.serializers import (
    AvailabilitiesSerializer,
    AvailabilitySerializer,
    ServiceSearchSerializer,
    ServicesSearchSerializer,
)
from bookings.availability.terms import Terms
from bookit.api.schema import errors
from bookit.api.views import RowViewSet
from bookit.errors.refusals import refuse
from bookit.languages import grouped
from bookit.responses import Response
from bookit.runtime.costly import ALWAYS
from catalog.models import Service
from catalog.opening import DAY
from catalog.permissions import KeepsCalendar

# The maximum number of free times in a response. The times of one service always fit, even if its
# grid has a step of one minute.
MAX_TIMES = 90_000
# The maximum number of refused times, which are counted separately. It is lower, because it takes
# longer to find their reasons.
MAX_REFUSED = 10_000
# A search of several services is split into parts, so that only the rows of one part are in memory.
# A part covers at most this number of days, summed over its services.
SERVICE_DAYS = 500


class AvailabilityViewSet(RowViewSet):
    """Times that can be booked."""

    reads_replicas = True
    costly_with = ALWAYS
    object_rows = Service.objects.select_related("calendar")
    serializer_class = AvailabilitySerializer  # type: ignore[assignment]
    input_classes = {"retrieve": ServiceSearchSerializer, "many": ServicesSearchSerializer}
    queryset = Service.objects.all()

    def get_permissions(self) -> list[BasePermission]:
        """Return the permissions. `explain` is for the provider, admins and permitted staff."""
        explained = self.request.query_params.get("explain") == "true"
        return [KeepsCalendar() if self.action == "retrieve" and explained else AllowAny()]

    def known_parameters(self) -> frozenset[str]:
        """Return the query parameters that a request may carry, including the search parameters."""
        return super().known_parameters() | self.query_fields

    def may_repeat(self, name: str) -> bool:
        """Return whether a request may carry this query parameter several times."""
        return name == "service_id"

    @extend_schema(
        tags=["Catalog"],
        summary="Find free times of a service",
        parameters=[ServiceSearchSerializer],
        responses=AvailabilitySerializer,
        extensions=errors("not_authenticated", "permission_denied"),
    )
    def retrieve(self, request: Request, pk: Any) -> Response:
        """Find free times of a service. Every time offered here fits the rules of the service.

        The response has slots and, in mode `open`, times on a grid that starts at the opening time,
        or at midnight if the calendar never closes. `POST /bookings` also accepts other times that
        fit.
        """
        query = self.checked_query()
        from_, until, at = self._window(query)
        found = search([pk], from_, until, at=at)
        if not found.services:
            raise Http404
        [terms] = found.services
        shown, _left = self._shown(found, terms, MAX_TIMES)
        if query.get("explain", False):
            refused = write(found.refusals(terms), self._zone)
            shown["refused"], _left = self._collected(refused, MAX_REFUSED, most=MAX_REFUSED)
        return Response(shown)

    @extend_schema(
        tags=["Catalog"],
        summary="Find free times of several services",
        parameters=[ServicesSearchSerializer],
        responses=AvailabilitiesSerializer,
    )
    def many(self, request: Request) -> Response:
        """Find the free times of up to 50 services. The results are in the order of the request."""
        query = self.checked_query()
        wanted = [*dict.fromkeys(query["service_id"])]
        from_, until, at = self._window(query)
        results: list[dict[str, Any]] = []
        left = MAX_TIMES
        size = max(1, SERVICE_DAYS // ((until - from_) // DAY + 1))
        for first in range(0, len(wanted), size):
            some = wanted[first : first + size]
            found = search(some, from_, until, at=at)
            by_id = {terms.service_id: terms for terms in found.services}
            for service_id in some:
                if service_id not in by_id:
                    raise refuse(
                        "service_id",
                        _("There is no service with the id %(service_id)s.")
                        % {"service_id": service_id},
                    )
                shown, left = self._shown(found, by_id[service_id], left)
                results.append(shown)
        return Response({"results": results})

    def _window(self, query: dict[str, Any]) -> tuple[datetime, datetime, datetime]:
        """Return the start and the end of the search, and the current time."""
        at = timezone.now()
        return *window(query.get("from"), query.get("to"), self._zone, at), at

    @cached_property
    def _zone(self) -> tzinfo:
        return getattr(self.request, "zone", UTC)

    def _shown(self, found: Search, terms: Terms, limit: int) -> tuple[dict[str, Any], int]:
        """Return the free times of a service, and how many more times fit into the response."""
        times, left = self._collected(write_free_times(found, terms, self._zone), limit)
        return {
            "service_id": terms.service_id,
            "timezone": str(self._zone),
            "times": times,
        }, left

    def _collected(
        self, times: Iterator[tuple[int, bytes]], left: int, *, most: int = MAX_TIMES
    ) -> tuple[orjson.Fragment, int]:
        """Return times as a JSON list, and how many more times fit into the response.

        Args:
            times: parts of the list, each with the number of its times; see `write_free_times`.
            left: the number of times for which the response still has room.
            most: the maximum number of such times in a response.

        Raises:
            ValidationError: there are more than `left` times.
        """
        written: list[bytes] = []
        separator = b"["
        for count, some in times:
            left -= count
            if left < 0:
                text = (
                    _(
                        "The response would contain more than %(most)s times. Request fewer days or"
                        " services."
                    )
                    if self.action == "many"
                    else _(
                        "The response would contain more than %(most)s times. Request fewer days."
                    )
                )
                raise refuse("to", text % {"most": grouped(most)})
            written += separator, some
            separator = b","
        written.append(b"]" if written else b"[]")
        return orjson.Fragment(b"".join(written)), left
