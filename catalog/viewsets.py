"""Endpoints of what is offered."""

from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.permissions import SAFE_METHODS, AllowAny, BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.permissions import IsProviderOrAdmin, signed_in
from bookit.exceptions import refuse
from bookit.prepared import Bound, Prepared
from bookit.schema import errors
from bookit.views import GenericViewSet
from catalog import services
from catalog.filters import CalendarFilter, ServiceFilter
from catalog.models import Calendar, Service
from catalog.serializers import CalendarSerializer, ServiceSerializer

ACTIVE_SERVICES = Prepared(
    lambda: Service.objects.filter(is_active=True).order_by("title", "id"), ServiceSerializer.rows
)


class CatalogViewSet(GenericViewSet):
    """Read by anyone, changed by those whose time it is, and by admins."""

    def get_permissions(self) -> list[BasePermission]:
        """Return who may do this."""
        return [AllowAny() if self.request.method in SAFE_METHODS else IsProviderOrAdmin()]


@extend_schema_view(
    list=extend_schema(tags=["Catalog"], summary="List calendars"),
    retrieve=extend_schema(tags=["Catalog"], summary="Show a calendar"),
)
class CalendarViewSet(CatalogViewSet):
    """Whose time is sold."""

    serializer_class = CalendarSerializer
    filterset_class = CalendarFilter
    ordering_fields = {"name": "name", "created_at": "created_at"}
    default_ordering = ["name"]
    queryset = Calendar.objects.all()

    @extend_schema(tags=["Catalog"], summary="Make a calendar")
    def create(self, request: Request) -> Response:
        """Make a calendar: a provider's own, or, by an admin, anybody's."""
        return self.created(
            services.create_calendar(actor=signed_in(request), at=timezone.now(), **self.checked())
        )

    @extend_schema(tags=["Catalog"], summary="Change a calendar")
    def partial_update(self, request: Request, pk: Any) -> Response:
        """Change a calendar. `opening_hours` replace those it has."""
        return self.shown(
            services.update_calendar(
                calendar_id=pk,
                actor=signed_in(request),
                changes=self.checked(partial=True),
                at=timezone.now(),
            )
        )

    @extend_schema(
        tags=["Catalog"], summary="Delete a calendar", extensions=errors("service_in_use")
    )
    def destroy(self, request: Request, pk: Any) -> Response:
        """Delete a calendar that no service is sold on."""
        services.delete_calendar(calendar_id=pk, actor=signed_in(request))
        return Response(status=204)


@extend_schema_view(
    list=extend_schema(tags=["Catalog"], summary="Find services"),
    retrieve=extend_schema(tags=["Catalog"], summary="Show a service"),
)
class ServiceViewSet(CatalogViewSet):
    """What is sold."""

    serializer_class = ServiceSerializer
    filterset_class = ServiceFilter
    ordering_fields = {
        "title": "title",
        "price": "price",
        "duration_minutes": "duration_minutes",
        "rating": "rating_average",
        "created_at": "created_at",
        "relevance": "relevance",
    }
    nullable_ordering_columns = ["rating_average"]
    queryset = Service.objects.all()

    def prepared_list(self) -> Bound:
        """Return the services that can be booked, by title."""
        return ACTIVE_SERVICES()

    @property
    def default_ordering(self) -> list[str]:
        """The best match first where words are searched for, else by title."""
        return ["-relevance"] if self._words() else ["title"]

    def get_queryset(self) -> QuerySet[Service]:
        """Return all services; a list has inactive ones only when asked for."""
        if self.action == "list" and not self.request.query_params.get("active"):
            return self.queryset.filter(is_active=True)
        return self.queryset.all()

    def filter_queryset(self, queryset: Any) -> Any:
        """Filter and order; relevance needs words to be relevant to."""
        if not self._words() and "relevance" in self.request.query_params.get("ordering", ""):
            raise refuse("ordering", "Ordering by relevance needs q.")
        return super().filter_queryset(queryset)

    def _words(self) -> str:
        return self.request.query_params.get("q", "").strip()

    @extend_schema(tags=["Catalog"], summary="Make a service")
    def create(self, request: Request) -> Response:
        """Offer something. Without `calendar_id` it gets a calendar of its own."""
        return self.created(
            services.create_service(actor=signed_in(request), at=timezone.now(), **self.checked())
        )

    @extend_schema(
        tags=["Catalog"], summary="Change a service", extensions=errors("service_in_use")
    )
    def partial_update(self, request: Request, pk: Any) -> Response:
        """Change a service. What was booked before keeps its price and its seat."""
        return self.shown(
            services.update_service(
                service_id=pk, actor=signed_in(request), changes=self.checked(partial=True)
            )
        )

    @extend_schema(
        tags=["Catalog"], summary="Delete a service", extensions=errors("service_in_use")
    )
    def destroy(self, request: Request, pk: Any) -> Response:
        """Delete a service that was never booked; deactivate others."""
        services.delete_service(service_id=pk, actor=signed_in(request))
        return Response(status=204)
