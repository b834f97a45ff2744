"""Who may do what with reviews."""

from typing import Any

from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request

from accounts.permissions import signed_in
from bookings.models import Booking
from reviews import services
from reviews.models import Review


class ReviewsBooking(IsAuthenticated):
    """Those who booked what is reviewed."""

    def has_object_permission(self, request: Request, view: Any, obj: Booking) -> bool:
        """Return True.

        Raises:
            Forbidden: it is somebody else's booking.
        """
        services.check_booked(obj, signed_in(request))
        return True


class WroteReview(IsAuthenticated):
    """Those who wrote a review."""

    def has_object_permission(self, request: Request, view: Any, obj: Review) -> bool:
        """Return True.

        Raises:
            Forbidden: it is somebody else's.
        """
        services.check_wrote(obj, signed_in(request))
        return True


class DeletesReview(IsAuthenticated):
    """Those who may delete a review: whoever wrote it, and admins."""

    def has_object_permission(self, request: Request, view: Any, obj: Review) -> bool:
        """Return True.

        Raises:
            Forbidden: it is somebody else's.
        """
        services.check_may_delete(obj, signed_in(request))
        return True
