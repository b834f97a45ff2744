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
    """`Authorization: Bearer <access_token>`. The account must be active at that moment."""

    def authenticate(self, request: Request) -> "tuple[User, AccessToken] | None":
        """Return the user and the token, or None if there is no token.

        Raises:
            AuthenticationFailed: the token is malformed or expired, or its account is not active.
        """
        # Not at the top: DRF's settings import this class before the models that simplejwt's tokens
        # need are loaded.
        from accounts.tokens import UNREADABLE, AccessToken

        scheme, _, credentials = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        try:
            token = AccessToken(credentials.strip().encode("ascii"))
            user_id = UUID(token["user_id"])
        except UNREADABLE:
            raise AuthenticationFailed from None
        user = ACTIVE_USER.get(pk=user_id)
        if user is None:
            raise AuthenticationFailed
        return user, token

    def authenticate_header(self, request: Request) -> str:
        """Return the `WWW-Authenticate` header of a 401."""
        return "Bearer"
