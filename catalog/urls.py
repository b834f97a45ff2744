"""Addresses of what is offered."""

from typing import Any

from django.urls import path

from catalog.viewsets import CalendarViewSet, ServiceViewSet

LIST: Any = {"get": "list", "post": "create"}
ONE: Any = {"get": "retrieve", "patch": "partial_update", "delete": "destroy"}

urlpatterns = [
    path("services/<id:pk>", ServiceViewSet.as_view(ONE)),
    path("services", ServiceViewSet.as_view(LIST)),
    path("calendars/<id:pk>", CalendarViewSet.as_view(ONE)),
    path("calendars", CalendarViewSet.as_view(LIST)),
]
