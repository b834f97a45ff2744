"""The bookings app."""

from django.apps import AppConfig


class BookingsConfig(AppConfig):
    """Configuration of the bookings app."""

    name = "bookings"

    def ready(self) -> None:
        """Let services be found by what bookings know of them: whether there is a free time."""
        from bookings.filters import BookableServiceFilter
        from catalog.viewsets import ServiceViewSet

        ServiceViewSet.filterset_class = BookableServiceFilter
