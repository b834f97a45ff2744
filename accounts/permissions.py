"""Who may do what, by role."""

from typing import Any

from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from accounts.models import User


def signed_in(request: Request) -> User:
    """Return who asks, in a view whose permissions let nobody in without an account."""
    if not isinstance(request.user, User):
        raise NotAuthenticated
    return request.user


class IsAdmin(BasePermission):
    """Admins."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return whether the user is an admin."""
        return request.user.is_authenticated and request.user.is_admin


class IsProviderOrAdmin(BasePermission):
    """Providers and admins."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return whether the user publishes time or runs the platform."""
        return request.user.is_authenticated and request.user.is_keeper
