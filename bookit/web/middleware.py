"""Most of the middleware, and responses to requests that fail outside the views of the API."""

import logging
import re
from collections.abc import Callable
from functools import cache
from time import monotonic, perf_counter
from typing import Any

from django.conf import settings
from django.contrib.admin.exceptions import (
    DisallowedModelAdminLookup,
    DisallowedModelAdminToField,
)
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import DisallowedHost, RequestDataTooBig
from django.db import DataError, Error
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, StreamingHttpResponse
from django.urls import is_valid_path, reverse
from django.utils.deprecation import MiddlewareMixin
from django.utils.translation import gettext as _
from uuid_utils import uuid7

from bookit import deadlines
from bookit.adminsite import errors
from bookit.adminsite.csrf import csrf_page
from bookit.adminsite.refusals import REFUSALS, message_of
from bookit.api.addresses import client_address
from bookit.api.routes import routed_views
from bookit.api.throttles import SignInThrottle, count_request, origin
from bookit.errors import LimitExceeded, is_database_unavailable, pending, problems
from bookit.metrics import process, views
from bookit.ratelimits.counting import refused
from bookit.request_id import request_id
from bookit.tracing import start as tracing
from bookit.web import pages
from bookit.web.headers import protect

logger = logging.getLogger("bookit.request")

# In each process, at least this many seconds pass between two log lines about refused hosts.
REFUSALS_PAUSE = 60.0

TRACED = tracing.is_on()

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


class RequestMiddleware:
    """Gives each request an id, and handles errors that no view handles.

    It also adds headers to the response, updates the metrics, and logs one line.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Handle a request."""
        started = perf_counter()
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        name = given if REQUEST_ID.fullmatch(given) else str(uuid7())
        token = request_id.set(name)
        queued = deadlines.queued()
        try:
            response = self.get_response(request)
            response["X-Request-ID"] = name
            protect(request, response)
            for header, value in getattr(request, "rate_limit", {}).items():
                # The response has this header already if the request exceeds another limit.
                other = response.get(header)
                response[header] = f"{value}, {other}" if other else value
            if not (response.streaming or response.status_code in (204, 304)):
                response["Content-Length"] = str(len(response.content))
            if request.method == "HEAD":
                # gunicorn would drop the body, too, but would log a warning without a request id.
                _empty(response)
            seconds = perf_counter() - started
            process.record(request, response, seconds=seconds, queued=queued)
            if TRACED:
                match = request.resolver_match
                view = process.view_name(match.route if match else None)
                tracing.name_request(str(request.method), view, name)
            self.log(request, response, seconds)
            return response
        finally:
            deadlines.end()
            request_id.reset(token)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Return a response if a view outside DRF raised an exception that is not a bug."""
        if is_database_unavailable(exception):
            return database_failure(request, exception)
        if isinstance(exception, LimitExceeded):
            return too_many(request, exception.wait, exception.headers)
        if pending.is_cause(exception):
            return refuse(request, "service_unavailable", str(problems.UPDATING))
        if isinstance(exception, DataError):
            # A parameter of the admin site contains a null character or a number out of range.
            logger.warning("value refused by the database: %s", type(exception.__cause__).__name__)
            return refuse(request, "validation_error", str(problems.BAD_VALUE))
        if errors.is_admin_page(request) and isinstance(exception, REFUSALS):
            # No form or list has shown this refusal to the user, so an error page shows it. In the
            # API, DRF's exception handler responds to refusals.
            return errors.page(request, 400, message_of(exception))
        return None

    def log(self, request: HttpRequest, response: HttpResponse, seconds: float) -> None:
        """Write the log line of a finished request."""
        # Health checks and scrapes come every few seconds, so they are logged at the info level
        # only if they fail. A flood of sign-ins must not fill the disk, so its requests are logged
        # at the info level only until the client is refused.
        is_quiet = _is_good_health(request, response) or hasattr(request, "is_flood")
        level = logging.DEBUG if is_quiet else logging.INFO
        if not logger.isEnabledFor(level):
            return
        match = request.resolver_match
        # The user of the token. In the admin site, the user of the session, if Django has loaded
        # this user.
        user = getattr(request, "signed_in", None) or getattr(
            getattr(request, "_cached_user", None), "pk", None
        )
        logger.log(
            level,
            "%s %s %s",
            request.method,
            request.path,
            response.status_code,
            extra={
                "method": request.method,
                "path": request.path,
                "route": match.route if match else None,
                "status": response.status_code,
                "duration_ms": round(seconds * 1000, 2),
                "user_id": user and str(user),
                "client": client_address(request),
            },
        )


def _empty(response: HttpResponse | StreamingHttpResponse) -> None:
    if isinstance(response, StreamingHttpResponse):
        response.streaming_content = ()
    else:
        response.content = b""


def _is_good_health(request: HttpRequest, response: HttpResponse) -> bool:
    return response.status_code == 200 and request.path_info in tracing.MONITORED


class RefusalMiddleware:
    """Refuses requests that no time is left for, and gives a body to a 405 that has none.

    `CorsMiddleware` comes before it, so scripts of other origins can read these responses.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Handle a request."""
        if not deadlines.begin():
            return refuse(
                request,
                "service_unavailable",
                _("The server is too busy to process the request in time. Try again shortly."),
            )
        response = self.get_response(request)
        if isinstance(response, HttpResponseNotAllowed) or (
            response.status_code == 405 and response.streaming
        ):
            # Django's own views and WhiteNoise, whose responses are always streams, return an empty
            # response for a method that they do not allow.
            allowed = response["Allow"]
            response = refuse(request, "method_not_allowed")
            response["Allow"] = allowed
        return response


class HostMiddleware:
    """Refuses requests to hosts that are not in ALLOWED_HOSTS, except health checks and scrapes.

    Health checks and scrapes come from the internal network and may use any host name. WhiteNoise
    comes before this middleware, so it serves static files under any host name, too.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self._refused_at = float("-inf")

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Handle a request."""
        if request.path_info not in tracing.MONITORED:
            try:
                request.get_host()
            except DisallowedHost:
                return self.refuse(request)
        return self.get_response(request)

    def refuse(self, request: HttpRequest) -> HttpResponse:
        """Refuse the request. In each process, log at most one refusal a minute.

        Without this limit, internet scanners could fill the log with made-up host names.
        """
        if monotonic() - self._refused_at >= REFUSALS_PAUSE:
            self._refused_at = monotonic()
            logger.warning(
                "refused a request to host %r, which is not in ALLOWED_HOSTS (%s)",
                request.META.get("HTTP_HOST", "")[:100],
                ", ".join(settings.ALLOWED_HOSTS),
            )
        message = _(
            "This server does not accept requests for this host name. Its operator can add the "
            "name to the ALLOWED_HOSTS setting."
        )
        field = {"field": "Host", "code": "invalid", "message": message}
        return problems.response("validation_error", message, errors=[field])


# This view is never limited. It is cheap, and an orchestrator restarts a server whose health check
# fails.
UNLIMITED = {pages.health}
# These views have separate counts. With a shared count, other requests from the orchestrator's IP
# address could make the server seem unready, or hide its metrics.
COUNTED_SEPARATELY = {pages.ready, views.metrics}
PASSWORD_FORMS = {"admin:login", "admin:password_change"}


class ThrottleMiddleware:
    """Counts requests that no API endpoint counts, and refuses floods of sign-ins early.

    It counts requests to pages and to the admin site, and requests that are refused before they
    reach an endpoint.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Handle a request."""
        if request.method == "POST" and request.path_info in sign_in_paths():
            # A flood of sign-ins must not slow down other clients, so it is refused before any view
            # runs.
            refusal = refused(*SignInThrottle.client(request))
            if refusal is not None:
                request.rate_limit = refusal.headers  # type: ignore[attr-defined]
                request.is_flood = True  # type: ignore[attr-defined]
                return too_many(request, refusal.seconds)
        response = self.get_response(request)
        if not hasattr(request, "rate_limit"):
            # No view has counted the request if, for example, its path is unknown, its method is
            # not allowed, its token is invalid or it is malformed.
            try:
                count_request(request, "anon", origin(request))
            except LimitExceeded as error:
                response = too_many(request, error.wait)
        return response

    def process_view(
        self, request: HttpRequest, view: Callable[..., HttpResponse], *arguments: Any
    ) -> HttpResponse | None:
        """Count a request before its view runs."""
        if hasattr(view, "cls"):
            return None  # A DRF view counts the request itself once it knows the user.
        if view in UNLIMITED:
            request.rate_limit = {}  # type: ignore[attr-defined]
            return None
        try:
            count_request(request, *self.scope(request, view))
        except LimitExceeded as error:
            return too_many(request, error.wait)
        except Error as error:  # `scope` reads the user of a session.
            if not is_database_unavailable(error):
                raise
            return database_failure(request, error)
        return None

    def scope(self, request: HttpRequest, view: Callable[..., HttpResponse]) -> tuple[str, str]:
        """Return the name of the limit, and the key under which the request is counted."""
        if view in COUNTED_SEPARATELY:
            return "anon", f"{origin(request)} {request.path_info}"
        match = request.resolver_match
        if request.method == "POST" and match and match.view_name in PASSWORD_FORMS:
            return "auth", origin(request)
        user = getattr(request, "user", None)
        if user is not None and user.is_authenticated:
            return "user", str(user.pk)
        return "anon", origin(request)


@cache
def sign_in_paths() -> frozenset[str]:
    """Return the paths whose POST requests count towards the limit of `SignInThrottle`."""
    endpoints = (
        f"/{pattern.pattern}"
        for pattern, view in routed_views()
        if SignInThrottle in getattr(view, "throttle_classes", ())
    )
    return frozenset(endpoints) | {reverse(name) for name in PASSWORD_FORMS}


class InAdminSite(MiddlewareMixin):
    """Restricts a middleware of Django to the admin site, because the API uses no cookies."""

    def __call__(self, request: HttpRequest) -> Any:
        """Handle a request."""
        if request.path_info.startswith("/admin/"):
            return super().__call__(request)
        return self.get_response(request)


class AdminSessionMiddleware(InAdminSite, SessionMiddleware):
    """Loads and saves sessions, but only in the admin site."""


class AdminAuthenticationMiddleware(InAdminSite, AuthenticationMiddleware):
    """Sets the user from the session, but only in the admin site."""


class AdminMessageMiddleware(InAdminSite, MessageMiddleware):
    """Stores messages for the next page, but only in the admin site."""


def database_failure(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the response to a request during which PostgreSQL was unavailable."""
    logger.error("database unavailable: %s", type(exception.__cause__ or exception).__name__)
    return refuse(request, "service_unavailable")


def too_many(
    request: HttpRequest, seconds: int, headers: dict[str, str] | None = None
) -> HttpResponse:
    """Return the response to a request that exceeds a rate limit.

    Args:
        seconds: the time until the next request can succeed.
    """
    response = refuse(request, "throttled", LimitExceeded(seconds).detail)
    response["Retry-After"] = str(seconds)
    for name, value in (headers or {}).items():
        response[name] = value
    return response


def refuse(request: HttpRequest, code: str, detail: str = "") -> HttpResponse:
    """Return a problem document or, in the admin site, a page."""
    if errors.is_admin_page(request):
        return errors.page(request, problems.plumbing(code).status, detail)
    return problems.response(code, detail)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the response to a request that Django refused (`handler400`)."""
    if isinstance(exception, RequestDataTooBig):
        return refuse(request, "payload_too_large")
    if isinstance(exception, DisallowedModelAdminLookup | DisallowedModelAdminToField):
        return refuse(request, "validation_error", str(exception).rstrip(".") + ".")
    return refuse(request, "validation_error", _("The request is malformed."))


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the response to a request that a Django view did not permit (`handler403`)."""
    return refuse(request, "permission_denied")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the response to a request for a URL that does not exist (`handler404`)."""
    bare = request.path_info.rstrip("/")
    if bare == request.path_info or errors.is_admin_page(request) or not is_valid_path(bare):
        return refuse(request, "not_found")
    return refuse(
        request,
        "not_found",
        _(
            "There is nothing at this address, because it ends with a slash. Send the request to "
            "%(address)s."
        )
        % {"address": request.path.rstrip("/")},
    )


def server_error(request: HttpRequest) -> HttpResponse:
    """Return the response after a bug (`handler500`). The log has the traceback and request id."""
    return refuse(request, "internal_error")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Return the response to a request without a valid CSRF token (`CSRF_FAILURE_VIEW`)."""
    if errors.is_admin_page(request):
        return csrf_page(request, reason)
    return problems.response(
        "permission_denied",
        _("CSRF check failed: %(reason)s Reload the page and try again.") % {"reason": reason},
    )
