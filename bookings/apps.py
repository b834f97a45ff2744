"""The bookings app."""

from django.apps import AppConfig


class BookingsConfig(AppConfig):
    """Configuration of the bookings app."""

    name = "bookings"

    def ready(self) -> None:
        """Tell the catalog what only bookings know: what is free, and what is closed out."""
        from bookings import affected
        from bookings.filters import BookableServiceFilter
        from catalog.signals import closed
        from catalog.viewsets import ServiceViewSet

        ServiceViewSet.filterset_class = BookableServiceFilter
        closed.connect(affected.closed_out, dispatch_uid="closed_out")
