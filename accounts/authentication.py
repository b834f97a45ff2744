"""Who is asking: bearer tokens."""

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
    """`Authorization: Bearer <access_token>`; the account must be active at this very moment."""

    def authenticate(self, request: Request) -> "tuple[User, AccessToken] | None":
        """Return the user and the token; None when there is no token.

        Raises:
            AuthenticationFailed: the token is malformed, expired, or its account is not active.
        """
        # Not at the top: simplejwt's tokens need the models, this class is named by DRF's settings.
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
        """Return the challenge of a 401."""
        return "Bearer"
