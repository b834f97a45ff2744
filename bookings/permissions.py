"""Who may do what with bookings and places in a queue.

The rules are the services', which ask them again under their locks.
"""

from typing import Any

from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request

from accounts.permissions import signed_in
from bookings import services
from bookings.models import Booking


class ListsBookings(IsAuthenticated):
    """Everybody; those of a certain user only admins."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return whether the user may list what they ask for."""
        return super().has_permission(request, view) and (
            "user_id" not in request.query_params or signed_in(request).is_admin
        )


class BooksForUser(IsAuthenticated):
    """Everybody for themselves; admins for any user."""

    def has_object_permission(self, request: Request, view: Any, obj: Booking) -> bool:
        """Return True.

        Raises:
            Forbidden: the booking would be somebody else's.
        """
        services.check_books_for(obj.user_id, signed_in(request))
        return True


class ReadsBooking(IsAuthenticated):
    """Those whose business a booking is: its user, its provider and admins."""

    def has_object_permission(self, request: Request, view: Any, obj: Booking) -> bool:
        """Return True.

        Raises:
            Forbidden: it is somebody else's.
        """
        services.check_may_read(obj, signed_in(request))
        return True


class ManagesBooking(IsAuthenticated):
    """Those who decide about a booking: its provider and admins."""

    def has_object_permission(self, request: Request, view: Any, obj: Booking) -> bool:
        """Return True.

        Raises:
            Forbidden: somebody else decides about it.
        """
        services.check_manages(obj, signed_in(request))
        return True


class DeletesBooking(IsAuthenticated):
    """Those who may delete a booking: its user, as long as it has not started, and admins."""

    def has_object_permission(self, request: Request, view: Any, obj: Booking) -> bool:
        """Return True.

        Raises:
            Forbidden: it is somebody else's.
        """
        services.check_may_delete(obj, signed_in(request))
        return True
