"""Endpoints of calendars, time off and services."""

from collections.abc import Callable
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.permissions import SAFE_METHODS, AllowAny, BasePermission
from rest_framework.request import Request

from accounts.models import User
from accounts.permissions import signed_in
from bookit.api.etags import conditional
from bookit.api.schema import errors
from bookit.api.views import RowViewSet
from bookit.database.prepared import Bound, Prepared
from bookit.errors import Forbidden
from bookit.errors.refusals import refuse
from bookit.idempotency.views import idempotent
from bookit.responses import Response
from catalog import services
from catalog.extensions import FILTERS, Affected
from catalog.filters import CalendarFilter, ServiceFilter, TimeOffFilter
from catalog.models import Calendar, Service, TimeOff
from catalog.permissions import KeepsCalendar
from catalog.serializers import (
    AffectedBookingsSerializer,
    CalendarSerializer,
    ChangedCalendarSerializer,
    CreatedServiceSerializer,
    CreatedTimeOffSerializer,
    PrivateFieldsSerializer,
    ServiceSerializer,
    TimeOffSerializer,
)

ACTIVE_SERVICES = Prepared(lambda: Service.objects.filter(is_active=True))
TIME_OFF = Prepared(
    lambda calendar_id: TimeOff.objects.filter(calendar=calendar_id),
    calendar_id=Calendar._meta.pk,
)


class CatalogViewSet(RowViewSet):
    """Anyone can read. Only the provider of the calendar, admins and permitted staff can write."""

    reads_replicas = True

    def get_permissions(self) -> list[BasePermission]:
        """Return the permissions of this request."""
        return [AllowAny() if self.request.method in SAFE_METHODS else KeepsCalendar()]


class PrivateFieldsViewSet(CatalogViewSet):
    """Only callers who may change a row see its private fields.

    The response to the creation of a row also contains its private fields.
    """

    serializer_class: type[PrivateFieldsSerializer]
    # The permission that lets a user change a row, and see its private fields.
    private_to: str

    @property
    def may_see_private(self) -> bool:
        """Whether the caller may see the private fields of some rows."""
        user = self.request.user
        if not isinstance(user, User) or not self.key_permits(self.private_to):
            return False
        return user.is_keeper or user.may(self.private_to)

    @property
    def columns(self) -> Callable[[QuerySet[Any]], QuerySet[Any, dict[str, Any]]]:
        """The function that selects the columns to read.

        Private columns are read if the caller may see them in some rows. `represent` removes them
        from the other rows.
        """
        resource = self.serializer_class
        return resource.private_rows if self.may_see_private else resource.rows

    def represent(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row as the caller sees it."""
        shown = self.serializer_class.represent(row)
        # Without `metadata`, the row was read without its private fields.
        if "metadata" in shown and not signed_in(self.request).may(
            self.private_to, shown["provider_id"]
        ):
            for name in self.serializer_class.private_fields:
                del shown[name]
        return shown

    def represent_instance(self, instance: Any) -> dict[str, Any]:
        """Return an instance with its private fields, for the caller who created or changed it."""
        return self.serializer_class.represent_private(instance)


@extend_schema_view(
    list=extend_schema(tags=["Catalog"], summary="List calendars"),
    retrieve=extend_schema(tags=["Catalog"], summary="Show a calendar"),
)
class CalendarViewSet(PrivateFieldsViewSet):
    """The endpoints of calendars."""

    serializer_class = CalendarSerializer
    private_to = "catalog.change_calendar"
    filterset_class = CalendarFilter
    ordering_fields = {"name": "name", "created_at": "created_at"}
    default_ordering = ["name"]
    queryset = Calendar.objects.all()
    # If the body names a provider, permissions are also checked for a calendar of that provider.
    named_in_body = dict.fromkeys(
        ["create", "partial_update"], ("provider_id", lambda pk: Calendar(provider_id=pk))
    )

    @extend_schema(tags=["Catalog"], summary="Create a calendar")
    @idempotent
    def create(self, request: Request) -> Response:
        """Create a calendar. Admins and permitted staff may create it for any provider or none."""
        return self.created(
            services.create_calendar(actor=signed_in(request), at=timezone.now(), **self.checked())
        )

    @extend_schema(
        tags=["Catalog"], summary="Change a calendar", responses=ChangedCalendarSerializer
    )
    @conditional
    def partial_update(self, request: Request, pk: Any) -> Response:
        """Change a calendar. `opening_hours` replaces all existing opening hours.

        Existing bookings stay as they are. The response lists those that are now outside the open
        times.
        """
        calendar, affected = services.update_calendar(
            calendar_id=pk,
            actor=signed_in(request),
            changes=self.checked(partial=True),
            at=timezone.now(),
        )
        return _with_affected(self.shown(calendar), affected)

    @extend_schema(
        tags=["Catalog"], summary="Delete a calendar", extensions=errors("service_in_use")
    )
    @conditional
    def destroy(self, request: Request, pk: Any) -> Response:
        """Delete a calendar that has no services."""
        services.delete_calendar(calendar_id=pk, actor=signed_in(request))
        return Response(status=204)


@extend_schema_view(
    list=extend_schema(tags=["Catalog"], summary="List a calendar's time off"),
)
class TimeOffViewSet(RowViewSet):
    """Time off, which only the calendar's provider, admins and permitted staff see."""

    permission_classes = [KeepsCalendar]
    governed_by = Calendar
    needed_permissions = dict.fromkeys(["create", "destroy"], "catalog.change_calendar")
    object_rows = Calendar.objects.all()
    object_lookup = {"pk": "calendar_id"}
    serializer_class = TimeOffSerializer
    filterset_class = TimeOffFilter
    ordering_fields = {"start_time": "start_time"}
    default_ordering = ["start_time"]
    queryset = TimeOff.objects.all()

    def listed(self) -> Bound:
        """Return the time off of the calendar that the path names."""
        return TIME_OFF(calendar_id=self.object.pk)

    @extend_schema(
        tags=["Catalog"],
        summary="Close a calendar for a period",
        responses={201: CreatedTimeOffSerializer},
    )
    @idempotent
    def create(self, request: Request, calendar_id: Any) -> Response:
        """Add time off. Bookings in the period stay as they are; the response lists them."""
        time_off, affected = services.create_time_off(
            calendar_id=calendar_id, actor=signed_in(request), at=timezone.now(), **self.checked()
        )
        return _with_affected(self.created(time_off), affected)

    @extend_schema(tags=["Catalog"], summary="Delete time off")
    def destroy(self, request: Request, calendar_id: Any, pk: Any) -> Response:
        """Reopen a calendar for a period in which it was closed."""
        services.delete_time_off(calendar_id=calendar_id, time_off_id=pk, actor=signed_in(request))
        return Response(status=204)


def _with_affected(response: Response, affected: Affected) -> Response:
    """Add the affected bookings to a response."""
    response.data["affected_bookings"] = AffectedBookingsSerializer.represent(affected)
    return response


@extend_schema_view(
    list=extend_schema(tags=["Catalog"], summary="Find services"),
    retrieve=extend_schema(tags=["Catalog"], summary="Show a service"),
)
class ServiceViewSet(PrivateFieldsViewSet):
    """The endpoints of services."""

    costly_with = ("q", "available_from", "available_to")
    serializer_class = ServiceSerializer
    private_to = "catalog.change_service"
    filterset_class = property(lambda view: FILTERS.get("services", ServiceFilter))
    ordering_fields = {
        "title": "title",
        "price": "price",
        "duration_minutes": "duration_minutes",
        "rating": "rating_average",
        "created_at": "created_at",
        "relevance": "relevance",
    }
    queryset = Service.objects.all()
    object_rows = Service.objects.select_related("calendar")
    named_in_body = dict.fromkeys(
        ["create", "partial_update"],
        ("calendar_id", lambda pk: Calendar.objects.get(pk=pk)),
    )

    @property
    def default_ordering(self) -> list[str]:
        """By relevance if `q` is not blank, otherwise by title."""
        return ["-relevance"] if self._q() else ["title"]

    def listed(self) -> Bound:
        """Return the active services, or all services if the request filters by `active`."""
        return super().listed() if "active" in self.request.query_params else ACTIVE_SERVICES()

    def filter_queryset(self, queryset: Any) -> Any:
        """Filter and order the services. Ordering by relevance requires `q`."""
        if not self._q() and "relevance" in self.request.query_params.get("ordering", ""):
            raise refuse("ordering", _("Ordering by relevance requires q."))
        return super().filter_queryset(queryset)

    def _q(self) -> str:
        return self.request.query_params.get("q", "").strip()

    @extend_schema(
        tags=["Catalog"], summary="Create a service", responses={201: CreatedServiceSerializer}
    )
    @idempotent
    def create(self, request: Request) -> Response:
        """Create a service. Without `calendar_id`, it gets a calendar of its own.

        That calendar is always open until it gets opening hours. The response includes the
        calendar.
        """
        actor, content = signed_in(request), self.checked()
        if "calendar_id" not in content and not self.key_permits("catalog.add_calendar"):
            raise Forbidden(str(services.NO_NEW_CALENDAR))
        service = services.create_service(actor=actor, at=timezone.now(), **content)
        response = self.created(service)
        calendar, permission = service.calendar, CalendarViewSet.private_to
        # Staff or a key may create services on an existing calendar that they may not change.
        may_change = actor.may(permission, calendar.provider_id) and self.key_permits(permission)
        if may_change:
            shown = CalendarSerializer.represent_private(calendar)
        else:
            shown = CalendarSerializer.represent_instance(calendar)
        response.data["calendar"] = shown
        return response

    @extend_schema(
        tags=["Catalog"], summary="Change a service", extensions=errors("service_in_use")
    )
    @conditional
    def partial_update(self, request: Request, pk: Any) -> Response:
        """Change a service. Existing bookings keep their prices and seats."""
        return self.shown(
            services.update_service(
                service_id=pk, actor=signed_in(request), changes=self.checked(partial=True)
            )
        )

    @extend_schema(
        tags=["Catalog"], summary="Delete a service", extensions=errors("service_in_use")
    )
    @conditional
    def destroy(self, request: Request, pk: Any) -> Response:
        """Delete a service without bookings, slots or reviews. Others can only be deactivated."""
        services.delete_service(service_id=pk, actor=signed_in(request))
        return Response(status=204)
