"""Endpoints of reports."""

from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.permissions import IsAdmin
from bookings.models import Booking
from bookings.reports.kinds import REPORTS
from bookings.reports.periods import chosen
from bookings.reports.serializers import (
    CancellationsSerializer,
    CustomersSerializer,
    LeadTimeSerializer,
    PeriodSerializer,
    ReportSerializer,
    RevenueSerializer,
    UtilisationSerializer,
)
from bookit.api.renderers import JSONRenderer
from bookit.api.views import RowViewSet


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
        report = REPORTS[renderer_context["view"].action]
        return "".join(report.csv(data["results"])).encode()


def documented(
    summary: str, serializer: type[ReportSerializer], csv: str
) -> Callable[[Callable[..., Response]], Callable[..., Response]]:
    """Return a decorator that documents a report.

    Args:
        csv: an example of the CSV file.
    """
    return extend_schema(
        tags=["Reports"],
        summary=summary,
        parameters=[PeriodSerializer],
        responses={
            (200, "application/json"): serializer,
            (200, "text/csv"): OpenApiResponse(
                {"type": "string"}, examples=[OpenApiExample("A month as CSV", value=csv)]
            ),
        },
    )


class ReportViewSet(RowViewSet):
    """Numbers about the bookings of a period. The name of the action is the name of the report."""

    costly_with = ()
    permission_classes = [IsAdmin]
    governed_by = Booking
    renderer_classes = [JSONRenderer, CSVRenderer]
    serializer_class = PeriodSerializer  # type: ignore[assignment]
    pagination_class = None

    def known_parameters(self) -> frozenset[str]:
        """Return the query parameters that a request may carry."""
        return super().known_parameters() | PeriodSerializer().fields.keys()

    @documented(
        "Report on utilisation",
        UtilisationSerializer,
        "calendar_id,calendar,bookings,open_minutes,booked_minutes,utilisation\r\n"
        "0199d39e-5b61-7d2c-8c1f-5ad0f8b8a0c1,Rui's chair,61,9600,3150,0.3281\r\n",
    )
    def utilisation(self, request: Request) -> Response:
        """Return how much of its opening hours, minus time off, each calendar is booked."""
        return self.report()

    @documented(
        "Report on revenue",
        RevenueSerializer,
        "month,service_id,service,currency,bookings,revenue,upcoming,expected\r\n"
        "2026-11,0199d3a0-6a3b-7c55-8f0d-1f6f2b7c9d42,Haircut,EUR,24,600.00,6,150.00\r\n",
    )
    def revenue(self, request: Request) -> Response:
        """Return the prices of completed bookings, and of those to come, by month and service."""
        return self.report()

    @documented(
        "Report on customers",
        CustomersSerializer,
        "month,customers,new,returning\r\n2026-11,38,9,29\r\n",
    )
    def customers(self, request: Request) -> Response:
        """Return how many users had bookings in each month, and how many of them were new."""
        return self.report()

    @documented(
        "Report on lead times",
        LeadTimeSerializer,
        "lead_time,bookings,share\r\n1 to 3 days,27,0.4426\r\n",
    )
    def lead_time(self, request: Request) -> Response:
        """Return how long before their start bookings were made, in classes."""
        return self.report()

    @documented(
        "Report on cancellations",
        CancellationsSerializer,
        "month,bookings,cancelled,cancellation_rate,no_show,no_show_rate,expired\r\n"
        "2026-11,61,6,0.0984,2,0.0385,3\r\n",
    )
    def cancellations(self, request: Request) -> Response:
        """Return how many bookings of each month were cancelled, or missed by their customers."""
        return self.report()

    def report(self) -> Response:
        """Return the report with the name of the action."""
        query = self.checked_query()
        tz = getattr(self.request, "zone", UTC)
        period = chosen(from_=query.get("from"), to=query.get("to"), tz=tz, at=timezone.now())
        return Response(REPORTS[self.action].document(period))
