"""The two kinds of token: what requests carry, and what is exchanged for the next pair."""

from functools import lru_cache
from typing import Any

from rest_framework_simplejwt import tokens
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.settings import api_settings

# What reading a token can raise: simplejwt lets through what a signed token with odd claims causes.
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


class RememberingBackend(TokenBackend):
    """Checks the signature of a token once, not with each request that carries it.

    When it expires is looked at each time, by the token; whether its account is active, by a query.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._verified = lru_cache(maxsize=1024)(super().decode)

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:
        """Return the claims of a token whose signature is ours."""
        return dict(self._verified(token)) if verify else super().decode(token, verify)


_BACKEND = RememberingBackend(
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
    """What requests carry."""

    @property
    def token_backend(self) -> RememberingBackend:
        """Return what signs and checks it, in place of simplejwt's own with the same settings."""
        return _BACKEND


class SessionToken(tokens.RefreshToken):
    """A refresh token: belongs to a session, and is good once."""

    def check_blacklist(self) -> None:
        """Do nothing: whether it was used before is asked under its session's lock."""
