"""Permissions that follow from the user's role and staff roles."""

from collections.abc import Callable
from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request

from accounts.extensions import PERMISSIONS, Permission
from accounts.models import User

for name, permission in {
    "accounts.view_user": Permission(_("list all accounts")),
    # An API key that can change accounts or roles could give itself more rights than it has.
    "accounts.change_user": Permission(_("change accounts and their staff roles"), in_keys=False),
    "accounts.view_role": Permission(_("list staff roles")),
    "accounts.add_role": Permission(_("create staff roles"), in_keys=False),
    "accounts.change_role": Permission(_("change staff roles"), in_keys=False),
    "accounts.delete_role": Permission(_("delete staff roles"), in_keys=False),
}.items():
    PERMISSIONS.add(name)(permission)


def signed_in(request: Request) -> User:
    """Return the signed-in user of a request.

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
    """Allows active providers and admins (`User.is_keeper`)."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return whether the user is an active provider or admin."""
        return request.user.is_authenticated and request.user.is_keeper


class IsPermitted(BasePermission):
    """Allows admins, and users with a staff role that permits what the request does."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return whether the user has the permission that the view needs."""
        return request.user.is_authenticated and request.user.may(view.needed_permission)


def allowed_by(check: Callable[[Any, User], None]) -> type[IsAuthenticated]:
    """Return a permission for signed-in users that `check` does not refuse.

    Args:
        check: gets what the path or the body of the request names (an object or, if
            `RowViewSet.named_in_body` says so, an id) and the user, and raises `Forbidden` to
            refuse the user. A service that makes a change calls the same function again.
    """

    class Checked(IsAuthenticated):
        def has_object_permission(self, request: Request, view: Any, obj: Any) -> bool:
            check(obj, signed_in(request))
            return True

    return Checked
