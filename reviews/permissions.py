"""Permissions on reviews."""

from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request

from accounts.extensions import PERMISSIONS, Permission
from accounts.permissions import signed_in
from bookings.models import Booking
from reviews import services
from reviews.models import Review

for name, permission in {
    "reviews.view_review": Permission(_("see reviews in the admin site")),
    "reviews.add_review": Permission(_("write reviews"), "user", in_roles=False),
    "reviews.change_review": Permission(_("change reviews"), "user", in_roles=False),
    "reviews.delete_review": Permission(_("delete all reviews"), "user"),
}.items():
    PERMISSIONS.add(name)(permission)


class ReviewsBooking(IsAuthenticated):
    """Allows the user whose booking is reviewed."""

    def has_object_permission(self, request: Request, view: Any, obj: Booking) -> bool:
        """Return True.

        Raises:
            Forbidden: the booking belongs to another user.
        """
        services.check_booked(obj, signed_in(request))
        return True


class WroteReview(IsAuthenticated):
    """Allows the author of a review."""

    def has_object_permission(self, request: Request, view: Any, obj: Review) -> bool:
        """Return True.

        Raises:
            Forbidden: the review belongs to another user.
        """
        services.check_wrote(obj, signed_in(request))
        return True


class DeletesReview(IsAuthenticated):
    """Allows the author of a review, admins and permitted staff."""

    def has_object_permission(self, request: Request, view: Any, obj: Review) -> bool:
        """Return True.

        Raises:
            Forbidden: the user is neither the author, nor an admin, nor permitted staff.
        """
        services.check_may_delete(obj, signed_in(request))
        return True
