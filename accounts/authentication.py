"""Authentication with access tokens and API keys."""

from uuid import UUID

from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from accounts.keys import secrets, services
from accounts.models import User
from accounts.sessions.tokens import TOKEN_ERRORS, AccessToken
from bookit.api.keys import UsedKey
from bookit.database.prepared import Prepared
from bookit.database.replicas import with_position

# Finds an active user by id, and reads the position of the primary's log, which decides whether a
# replica may answer the request (see `bookit.database.replicas`).
ACTIVE_USER = Prepared(
    lambda pk: with_position(
        User.objects.all().with_roles().order_by().filter(pk=pk, is_active=True)
    ),
    pk=User._meta.pk,
)


class BearerAuthentication(BaseAuthentication):
    """Authenticates requests with an `Authorization: Bearer <access_token>` header.

    An API key can take the place of the access token.

    The account must be active at the time of the request.
    """

    def authenticate(self, request: Request) -> tuple[User, AccessToken | UsedKey] | None:
        """Return the user and the token or key, or None if the request has neither.

        Raises:
            AuthenticationFailed: the token or key is malformed, unknown or expired, or its account
                is not active.
        """
        scheme, _, credentials = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        if credentials.startswith(secrets.PREFIX):
            found = services.authenticate(key=credentials.strip(), at=timezone.now())
            if found is None:
                raise AuthenticationFailed
            return found
        try:
            token = AccessToken(credentials.strip().encode("ascii"))
            user_id = UUID(token["user_id"])
        except TOKEN_ERRORS:
            raise AuthenticationFailed from None
        user = ACTIVE_USER.get(pk=user_id)
        if user is None:
            raise AuthenticationFailed
        return user, token

    def authenticate_header(self, request: Request) -> str:
        """Return the `WWW-Authenticate` header of a 401 response."""
        return "Bearer"
