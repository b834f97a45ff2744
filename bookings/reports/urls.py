"""URLs of reports."""

from django.urls import path

from bookings.reports.viewsets import ReportViewSet

urlpatterns = [path("reports/<slug:name>", ReportViewSet.as_view({"get": "retrieve"}))]
