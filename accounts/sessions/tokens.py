"""Access tokens authenticate requests. Refresh tokens are exchanged for the next pair of tokens."""

from functools import lru_cache
from typing import Any

from rest_framework_simplejwt import tokens
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.settings import api_settings

from bookit.errors import Unauthenticated

# The errors that reading a token can raise. simplejwt does not catch all errors that a signed token
# with unusual claims causes.
TOKEN_ERRORS = (
    TokenError,
    AttributeError,
    KeyError,
    OSError,
    OverflowError,
    TypeError,
    UnicodeError,
    ValueError,
)


class TokenInvalid(Unauthenticated):
    """The token is invalid, expired or revoked."""

    code = "token_invalid"


class CachingTokenBackend(TokenBackend):
    """Caches verified tokens, so that most requests do not verify the signature again.

    Two checks are still made in each request: `AccessToken` checks the expiry, and
    `BearerAuthentication` queries whether the account is active.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._verified = lru_cache(maxsize=1024)(super().decode)

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:
        """Return the claims of a token. If `verify` is true, the signature must be valid."""
        # The claims are copied, because a token can change its own claims.
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
        """Return our own backend, which has the same settings as the backend of simplejwt."""
        return _BACKEND


class SessionToken(tokens.RefreshToken):
    """A refresh token. It is exchanged, once, for the next pair of tokens of its session."""

    def check_blacklist(self) -> None:
        """Do nothing: the services check under the session's lock whether the token was used."""
