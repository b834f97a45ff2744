"""URLs of reports. The name of the action is the name of the report."""

from django.urls import path

from bookings.reports.viewsets import ReportViewSet

urlpatterns = [
    path("reports/utilisation", ReportViewSet.as_view({"get": "utilisation"})),
    path("reports/revenue", ReportViewSet.as_view({"get": "revenue"})),
    path("reports/customers", ReportViewSet.as_view({"get": "customers"})),
    path("reports/lead_time", ReportViewSet.as_view({"get": "lead_time"})),
    path("reports/cancellations", ReportViewSet.as_view({"get": "cancellations"})),
]
