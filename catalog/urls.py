"""URLs of calendars, time off, services, categories and providers."""

from typing import Any

from django.urls import path

from catalog.categories.urls import urlpatterns as categories
from catalog.providers.urls import urlpatterns as providers
from catalog.viewsets import CalendarViewSet, ServiceViewSet, TimeOffViewSet

LIST: Any = {"get": "list", "post": "create"}
ONE: Any = {"get": "retrieve", "patch": "partial_update", "delete": "destroy"}

urlpatterns = [
    path("services/<id:pk>", ServiceViewSet.as_view(ONE)),
    path("services", ServiceViewSet.as_view(LIST)),
    path("calendars/<id:pk>", CalendarViewSet.as_view(ONE)),
    path(
        "calendars/<id:calendar_id>/time-off/<id:pk>", TimeOffViewSet.as_view({"delete": "destroy"})
    ),
    path("calendars/<id:calendar_id>/time-off", TimeOffViewSet.as_view(LIST)),
    path("calendars", CalendarViewSet.as_view(LIST)),
    *categories,
    *providers,
]
