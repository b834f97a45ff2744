"""Signing in to the admin site."""

from datetime import timedelta
from typing import Any

from django.contrib.auth import user_logged_in, user_logged_out
from django.contrib.auth.backends import ModelBackend
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils import timezone

from accounts.models import User
from accounts.sessions import services as sessions
from accounts.sessions.clients import client_of
from bookit.api.addresses import client_address


class AdminSiteBackend(ModelBackend):
    """Django's own backend, but passwords are checked as in the API."""

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> User | None:
        """Return the user, or None if they are inactive, or gave a wrong email address or password.

        Raises:
            LimitExceeded: too many wrong passwords were tried.
        """
        try:
            user = sessions.authenticate(
                email=username or kwargs.get(User.USERNAME_FIELD) or "",
                password=password or "",
                address=client_address(request) if request else None,
            )
        except sessions.InvalidCredentials:
            return None
        if request is not None:
            # Keep the id of the browser's previous `Session`, which `record_login` ends. If the
            # browser was signed in as another user, `login` empties `request.session` before it
            # sends the signal for `record_login`.
            request.replaced_session = (  # type: ignore[attr-defined]
                request.session.get(sessions.SESSION_KEY)
            )
        return user


# `record_login` stores `last_login` instead. With Django's own receiver, logins would fail if one
# of the servers of a distributed database is down.
user_logged_in.disconnect(dispatch_uid="update_last_login")


@receiver(user_logged_in)
def record_login(sender: Any, *, request: HttpRequest, user: User, **signal: Any) -> None:
    """Record a login to the admin site, with the IP address and the browser of the user.

    If the browser was signed in already, the earlier session ends.
    """
    replaced_id = getattr(request, "replaced_session", None)
    if replaced_id:
        sessions.record_admin_logout(session_id=replaced_id, at=timezone.now())
    session = sessions.record_admin_login(
        user=user,
        client=client_of(request),
        lifetime=timedelta(seconds=request.session.get_expiry_age()),
        at=timezone.now(),
    )
    request.session[sessions.SESSION_KEY] = str(session.pk)


@receiver(user_logged_out)
def record_logout(sender: Any, *, request: HttpRequest, **signal: Any) -> None:
    """Record a logout from the admin site."""
    session_id = request.session.get(sessions.SESSION_KEY)
    if session_id:
        sessions.record_admin_logout(session_id=session_id, at=timezone.now())
