"""The endpoint of reports."""

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from django.http import Http404
from django.utils import timezone
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
)
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from accounts.permissions import IsAdmin
from bookings.models import Booking
from bookings.reports.kinds import REPORTS
from bookings.reports.periods import chosen
from bookings.reports.serializers import PeriodSerializer, ReportSerializer
from bookit.api.renderers import JSONRenderer
from bookit.api.views import RowViewSet
from bookit.responses import Response
from bookit.runtime.costly import ALWAYS


class CSVRenderer(BaseRenderer):
    """Writes the rows of a report as a CSV file, without the totals."""

    media_type = "text/csv"
    format = "csv"
    charset = "utf-8"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the body, which is empty if there is no content."""
        if data is None or renderer_context is None:
            return b""
        report = REPORTS[renderer_context["kwargs"]["name"]]
        return "".join(report.csv(data["results"])).encode()


class ReportViewSet(RowViewSet):
    """Numbers about the bookings and reviews of a period."""

    costly_with = ALWAYS
    permission_classes = [IsAdmin]
    governed_by = Booking
    renderer_classes = [JSONRenderer, CSVRenderer]
    serializer_class = PeriodSerializer  # type: ignore[assignment]
    pagination_class = None

    @property
    def needed_permission(self) -> str | None:
        """The permission to view what the report counts."""
        report = REPORTS.get(self.kwargs.get("name", ""))
        return report.permission if report else super().needed_permission

    def known_parameters(self) -> frozenset[str]:
        """Return the query parameters that a request may carry."""
        return super().known_parameters() | self.query_fields

    # One operation describes all reports. Schemas for the rows of each report would make up a tenth
    # of the document.
    @extend_schema(
        tags=["Reports"],
        summary="Report",
        parameters=[
            # Other apps add reports after this line runs. Therefore, `enum` is the dictionary
            # itself, and not a list of its current keys.
            OpenApiParameter("name", str, "path", enum=REPORTS),  # type: ignore[arg-type]
            PeriodSerializer,
        ],
        responses={
            (200, "application/json"): ReportSerializer,
            (200, "text/csv"): OpenApiResponse(
                {"type": "string"},
                examples=[
                    OpenApiExample(
                        "Customers of a month",
                        value="month,customers,new,returning\r\n2026-11,38,9,29\r\n",
                    )
                ],
            ),
        },
    )
    def retrieve(self, request: Request, name: str) -> Response:
        """Return numbers about a period; `docs/reports.md` defines them.

        `utilisation` is by calendar, `revenue` by month and service, `lead_time` by range, and
        `customers`, `cancellations` and `reviews` are by month.
        """
        if name not in REPORTS:
            raise Http404
        query = self.checked_query()
        tz = getattr(request, "zone", UTC)
        period = chosen(from_=query.get("from"), to=query.get("to"), tz=tz, at=timezone.now())
        return Response(REPORTS[name].document(period))
