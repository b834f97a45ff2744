"""Rate limits of the API: which limit a request counts towards, and for which client.

DRF's throttles read and write a count in two steps, between which other requests can pass.
`bookit.ratelimits` counts in one step.
"""

from typing import TYPE_CHECKING

from django.http import HttpRequest
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from bookit.api.addresses import client_address, network
from bookit.api.keys import UsedKey
from bookit.errors import LimitExceeded
from bookit.ratelimits.counting import count

if TYPE_CHECKING:
    from rest_framework.views import APIView


def count_request(request: HttpRequest, policy: str, who: str) -> None:
    """Count a request, and store the rate limit headers of its response on the request.

    Raises:
        LimitExceeded: the request is over the limit.
    """
    allowed, headers, seconds = count(policy, who)
    request.rate_limit = headers  # type: ignore[attr-defined]
    if not allowed:
        raise LimitExceeded(seconds)


def origin(request: HttpRequest) -> str:
    """Return the IP address or network that is counted as one client."""
    return network(client_address(request))


class ClientThrottle(BaseThrottle):
    """A limit per user, per API key, or per origin for requests without a token."""

    def scope(self, request: Request) -> tuple[str, str]:
        """Return the name of the limit, and the client for which the request is counted."""
        if isinstance(request.auth, UsedKey):
            return "key", str(request.auth.id)
        if request.user.is_authenticated:
            return "user", str(request.user.pk)
        return "anon", origin(request._request)

    def allow_request(self, request: Request, view: "APIView") -> bool:
        """Count this request.

        Raises:
            LimitExceeded: the request is over the limit.
        """
        count_request(request._request, *self.scope(request))
        return True


class SignInThrottle(ClientThrottle):
    """A limit per origin for signing in and out, for new tokens, and for similar requests.

    Similar requests check a password, use or send the token of an email, or can reveal accounts.
    Requests are counted before any password is hashed.
    """

    def scope(self, request: Request) -> tuple[str, str]:
        """Return the name of the limit, and the client for which the request is counted."""
        return self.client(request._request)

    @staticmethod
    def client(request: HttpRequest) -> tuple[str, str]:
        """Return the same as `scope`, but for a Django request."""
        return "auth", origin(request)
