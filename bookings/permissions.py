"""Permissions for bookings.

The rules are functions in `bookings.services`. The service calls check them again after they have
locked the rows.
"""

from typing import Any

from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request

from accounts.permissions import signed_in
from bookings import services
from bookings.models import Booking


class ListsBookings(IsAuthenticated):
    """Every user may list bookings; only admins may filter them by user."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return whether the user may list bookings with the filters of the request."""
        return super().has_permission(request, view) and (
            "user_id" not in request.query_params or signed_in(request).is_admin
        )


class BooksForUser(IsAuthenticated):
    """Users may book for themselves; admins may book for any user."""

    def has_object_permission(self, request: Request, view: Any, obj: Booking) -> bool:
        """Return True.

        Raises:
            Forbidden: the user is not an admin and books for another user.
        """
        services.check_books_for(obj.user_id, signed_in(request))
        return True


class ReadsBooking(IsAuthenticated):
    """The user of a booking, its provider and admins may see it."""

    def has_object_permission(self, request: Request, view: Any, obj: Booking) -> bool:
        """Return True.

        Raises:
            Forbidden: the booking belongs to somebody else.
        """
        services.check_may_read(obj, signed_in(request))
        return True


class ManagesBooking(IsAuthenticated):
    """The provider of a booking and admins may manage it."""

    def has_object_permission(self, request: Request, view: Any, obj: Booking) -> bool:
        """Return True.

        Raises:
            Forbidden: the user is neither the provider nor an admin.
        """
        services.check_manages(obj, signed_in(request))
        return True


class DeletesBooking(IsAuthenticated):
    """The user of a booking may delete it until it starts; admins may delete it at any time."""

    def has_object_permission(self, request: Request, view: Any, obj: Booking) -> bool:
        """Return True.

        Raises:
            Forbidden: the booking belongs to somebody else.
        """
        services.check_may_delete(obj, signed_in(request))
        return True
