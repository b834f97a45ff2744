"""URLs of calendar files and feeds."""

from django.urls import path

from bookings.feeds.viewsets import CalendarFeedViewSet, CalendarFileViewSet, OwnFeedViewSet

urlpatterns = [
    path("bookings/<id:pk>.ics", CalendarFileViewSet.as_view({"get": "booking"})),
    path("me/calendar.ics", CalendarFileViewSet.as_view({"get": "own"})),
    path("me/calendar", OwnFeedViewSet.as_view({"get": "retrieve", "post": "renew"})),
    path("calendars/<id:pk>.ics", CalendarFileViewSet.as_view({"get": "calendar"})),
    path(
        "calendars/<id:pk>/feed", CalendarFeedViewSet.as_view({"get": "retrieve", "post": "renew"})
    ),
]
