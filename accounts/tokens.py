"""The two kinds of token: what requests carry, and what is exchanged for the next pair."""

from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken

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


class SessionToken(RefreshToken):
    """A refresh token: belongs to a session, and is good once."""

    def check_blacklist(self) -> None:
        """Do nothing: whether it was used before is asked under its session's lock."""


__all__ = ["UNREADABLE", "AccessToken", "SessionToken"]
