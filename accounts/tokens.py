"""The two kinds of token: access tokens in requests, and refresh tokens to get the next pair."""

from functools import lru_cache
from typing import Any

from rest_framework_simplejwt import tokens
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.settings import api_settings

# The errors that reading a token can raise. simplejwt does not catch all errors that a signed token
# with unusual claims causes.
UNREADABLE = (
    TokenError,
    AttributeError,
    KeyError,
    OSError,
    OverflowError,
    TypeError,
    UnicodeError,
    ValueError,
)


class CachingTokenBackend(TokenBackend):
    """Verifies the signature of a token once, not in each request with that token.

    The expiry is still checked in each request, by the token. A query checks whether the account is
    active.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._verified = lru_cache(maxsize=1024)(super().decode)

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:
        """Return the claims of a token, once its signature is verified."""
        return dict(self._verified(token)) if verify else super().decode(token, verify)


_BACKEND = CachingTokenBackend(
    api_settings.ALGORITHM,
    api_settings.SIGNING_KEY,
    api_settings.VERIFYING_KEY,
    api_settings.AUDIENCE,
    api_settings.ISSUER,
    api_settings.JWK_URL,
    api_settings.LEEWAY,
    api_settings.JSON_ENCODER,
)


class AccessToken(tokens.AccessToken):
    """The token that authenticates a request."""

    @property
    def token_backend(self) -> CachingTokenBackend:
        """Return our backend, which has the same settings as simplejwt's own."""
        return _BACKEND


class SessionToken(tokens.RefreshToken):
    """A refresh token, which belongs to a session and can be used once."""

    def check_blacklist(self) -> None:
        """Do nothing: the services check under the session's lock whether it was used before."""
