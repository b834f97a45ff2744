"""Signing in to the admin site."""

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from accounts.models import User
from bookit.throttles import client_address, count


class AdminSiteBackend(ModelBackend):
    """Django's own, with the rate limit of `/auth/login`, whatever case an address is in."""

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> User | None:
        """Return the user; None when address or password is wrong.

        Raises:
            PermissionDenied: too many have been tried; counted before anything is hashed.
        """
        if request is not None and not count("auth", str(client_address(request))).allowed:
            raise PermissionDenied
        name = (username or kwargs.get(User.USERNAME_FIELD) or "").lower()
        user = super().authenticate(request, username=name, password=password)
        return user if isinstance(user, User) else None
