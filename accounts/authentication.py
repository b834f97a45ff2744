"""Authentication with bearer tokens."""

from typing import TYPE_CHECKING
from uuid import UUID

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from accounts.models import User
from bookit.database.prepared import Prepared

if TYPE_CHECKING:
    from accounts.tokens import AccessToken


ACTIVE_USER = Prepared(
    lambda pk: User.objects.order_by().filter(pk=pk, is_active=True), pk=User._meta.pk
)


class BearerAuthentication(BaseAuthentication):
    """Authenticates requests with an `Authorization: Bearer <access_token>` header.

    The account must be active at the time of the request.
    """

    def authenticate(self, request: Request) -> "tuple[User, AccessToken] | None":
        """Return the user and the token, or None if the request has no token.

        Raises:
            AuthenticationFailed: the token is malformed or expired, or its account is not active.
        """
        # This import is local because DRF's settings import this module before models are loaded,
        # and `accounts.tokens` needs the models of simplejwt.
        from accounts.tokens import TOKEN_ERRORS, AccessToken

        scheme, _, credentials = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
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
