"""Endpoints of slots."""

from typing import Any
from urllib.parse import urlencode

from django.utils import timezone
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
)
from rest_framework.request import Request

from accounts.permissions import signed_in
from bookings.models import Slot
from bookings.serializers import EXAMPLE_SLOT
from bookings.slots import services as slots
from bookings.slots.filters import SlotFilter
from bookings.slots.serializers import (
    SLOT_EXPANSIONS,
    SlotChangeSerializer,
    SlotPublishSerializer,
    SlotSerializer,
)
from bookit.api.etags import conditional
from bookit.api.schema import errors
from bookit.idempotency.views import idempotent
from bookit.responses import Response
from catalog.models import Service
from catalog.viewsets import CatalogViewSet

SERIES = {"count": 1, "next": None, "previous": None, "results": [EXAMPLE_SLOT]}


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
    expandable = SLOT_EXPANSIONS
    object_rows = Slot.objects.select_related("calendar")
    named_in_body = {
        "create": ("service_id", lambda pk: Service.objects.select_related("calendar").get(pk=pk))
    }

    @extend_schema(
        tags=["Catalog"],
        summary="Publish a slot or a series",
        responses={
            201: OpenApiResponse(
                {
                    "oneOf": [
                        {"$ref": "#/components/schemas/Slot"},
                        {"$ref": "#/components/schemas/PaginatedSlotList"},
                    ]
                },
                examples=[
                    OpenApiExample("A slot", value=EXAMPLE_SLOT),
                    OpenApiExample("A series", value=SERIES),
                ],
            )
        },
        extensions=errors("service_inactive", "slot_conflict"),
    )
    @idempotent
    def create(self, request: Request) -> Response:
        """Publish a slot of a service, or a series of slots with `rrule`.

        The response to a series is the list of its slots. If one of them overlaps another slot or
        booking of its calendar, none is created.
        """
        content = self.checked()
        published = slots.publish_slots(actor=signed_in(request), at=timezone.now(), **content)
        if "rrule" not in content:
            return self.created(published[0])
        rows = SlotSerializer.represent_many(published)
        # `Location` leads to all slots of the service in the period of the series.
        parameters = {
            "service_id": content["service_id"],
            "from": _instant(rows[0]["start_time"]),
            "to": _instant(rows[-1]["end_time"]),
        }
        return Response(
            {"count": len(rows), "next": None, "previous": None, "results": rows},
            status=201,
            headers={
                "Location": request.build_absolute_uri(f"{request.path}?{urlencode(parameters)}")
            },
        )

    @extend_schema(
        tags=["Catalog"],
        summary="Change a slot",
        responses=SlotSerializer,
        extensions=errors("slot_conflict", "invalid_transition"),
    )
    @conditional
    def partial_update(self, request: Request, pk: Any) -> Response:
        """Change the capacity of a slot, or cancel the slot together with its bookings."""
        slot, _has_changed = slots.change_slot(
            slot_id=pk, actor=signed_in(request), at=timezone.now(), **self.checked()
        )
        return self.shown(slot)

    @extend_schema(tags=["Catalog"], summary="Delete a slot", extensions=errors("slot_conflict"))
    @conditional
    def destroy(self, request: Request, pk: Any) -> Response:
        """Delete a slot that has no bookings of any status."""
        slots.delete_slot(slot_id=pk, actor=signed_in(request), at=timezone.now())
        return Response(status=204)


def _instant(value: Any) -> str:
    """Return a UTC time as the value of a query parameter."""
    return value.isoformat().replace("+00:00", "Z")
