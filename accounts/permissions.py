"""Permissions that follow from the user's role."""

from typing import Any

from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from accounts.models import User


def signed_in(request: Request) -> User:
    """Return the user of a request to a view that only signed-in users may call.

    Raises:
        NotAuthenticated: the request is anonymous.
    """
    if not isinstance(request.user, User):
        raise NotAuthenticated
    return request.user


class IsAdmin(BasePermission):
    """Allows admins."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return whether the user is an admin."""
        return request.user.is_authenticated and request.user.is_admin


class IsProviderOrAdmin(BasePermission):
    """Allows providers and admins."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return whether the user is a provider or an admin."""
        return request.user.is_authenticated and request.user.is_keeper
