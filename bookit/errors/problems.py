"""Errors as clients see them: RFC 9457 `application/problem+json`."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

from django.http import HttpResponse
from django.utils.translation import gettext_lazy as _

from bookit.errors import (
    Conflict,
    Forbidden,
    Invalid,
    LimitExceeded,
    PreconditionFailed,
    ServiceError,
    Unauthenticated,
    Unavailable,
    Unprocessable,
)
from bookit.json import dumps
from bookit.request_id import request_id

CONTENT_TYPE = "application/problem+json"

UPDATING = _("BookIt is being updated. Try again shortly.")
# PostgreSQL, or psycopg, refuses numbers out of range and null characters.
BAD_VALUE = _("A value is out of range or contains characters that cannot be stored.")
NOT_JSON = _("The body must be JSON, sent with the header `Content-Type: application/json`.")


# The reason phrases of RFC 9110 and, for 429, of RFC 6585. `HTTPStatus` is used only for other
# statuses, because its phrases differ between versions of Python, and are not translated.
TITLES = {
    400: _("Bad Request"),
    401: _("Unauthorized"),
    403: _("Forbidden"),
    404: _("Not Found"),
    405: _("Method Not Allowed"),
    406: _("Not Acceptable"),
    408: _("Request Timeout"),
    409: _("Conflict"),
    412: _("Precondition Failed"),
    413: _("Content Too Large"),
    415: _("Unsupported Media Type"),
    422: _("Unprocessable Content"),
    429: _("Too Many Requests"),
    500: _("Internal Server Error"),
    503: _("Service Unavailable"),
}


class Problem(NamedTuple):
    """A type of problem, as `/errors/{code}` explains it."""

    code: str
    status: int
    meaning: Any

    @property
    def title(self) -> str:
        """The reason phrase of the status, translated."""
        return str(TITLES[self.status])


# Problems that can arise without a `ServiceError`, for example in HTTP or in the database. If a
# subclass of `ServiceError` has the same code, `catalogue` uses the text from here.
PLUMBING = [
    Problem(
        "validation_error",
        400,
        _("The request lacks a value or contains an invalid one; `errors` names the fields."),
    ),
    Problem("parse_error", 400, _("The body could not be parsed as JSON.")),
    Problem(
        "not_authenticated",
        401,
        _("This request requires authentication. Send `Authorization: Bearer <access_token>`."),
    ),
    Problem(
        "token_invalid",
        401,
        _(
            "The token is malformed, expired or revoked, or its account is not active. Refresh the "
            "token or sign in again."
        ),
    ),
    Problem(
        "permission_denied",
        403,
        _("You are signed in but do not have permission to perform this action."),
    ),
    Problem("not_found", 404, _("There is nothing at this address.")),
    Problem(
        "method_not_allowed",
        405,
        _(
            "This address does not support the method of the request. The `Allow` header lists the "
            "methods that it supports."
        ),
    ),
    Problem(
        "not_acceptable",
        406,
        _("BookIt cannot respond in any format that the `Accept` header allows."),
    ),
    Problem(
        "request_timeout",
        408,
        _("The request did not arrive in full within the time limit. Send it again."),
    ),
    Problem("payload_too_large", 413, _("The body is larger than 1 MiB.")),
    Problem("unsupported_media_type", 415, NOT_JSON),
    Problem(
        "throttled", 429, _("Too many requests. Wait for the number of seconds in `Retry-After`.")
    ),
    Problem(
        "internal_error", 500, _("This is a bug in BookIt. It has been logged with the request id.")
    ),
    Problem(
        "service_unavailable",
        503,
        _(
            "BookIt cannot do this now, for example because the database cannot be reached or is "
            "too busy, or because BookIt is being updated. Try again after the number of seconds "
            "in `Retry-After`."
        ),
    ),
]

STATUS_OF: dict[type, int] = {
    Invalid: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    Conflict: 409,
    PreconditionFailed: 412,
    Unprocessable: 422,
    LimitExceeded: 429,
    Unavailable: 503,
}


def status_of(error: type[ServiceError]) -> int:
    """Return the HTTP status for a class of errors."""
    return next(STATUS_OF[base] for base in error.__mro__ if base in STATUS_OF)


def catalogue() -> dict[str, Problem]:
    """Return every problem that a response can report, by code."""
    domain = [
        Problem(error.code, status_of(error), error.describe()) for error in ServiceError.concrete()
    ]
    problems = {problem.code: problem for problem in [*domain, *PLUMBING]}
    return dict(sorted(problems.items(), key=lambda item: (item[1].status, item[0])))


def plumbing(code: str) -> Problem:
    """Return the problem of `PLUMBING` with this code."""
    return next(problem for problem in PLUMBING if problem.code == code)


def body(
    status: int, code: str, detail: str, errors: Iterable[dict[str, str]] | None = None, **more: Any
) -> dict[str, Any]:
    """Return the members of a problem document."""
    content: dict[str, Any] = {
        "type": f"/errors/{code}",
        "title": str(TITLES[status]) if status in TITLES else HTTPStatus(status).phrase,
        "status": status,
        "detail": str(detail),
        "code": code,
    }
    if errors is not None:
        content["errors"] = list(errors)
    return {**content, **more, "request_id": request_id.get()}


def response(
    code: str, detail: str = "", errors: Iterable[dict[str, str]] | None = None
) -> HttpResponse:
    """Return a problem as a response, for errors outside DRF's views."""
    problem = plumbing(code)
    # Only the pages below `/errors` show the words between backticks as code.
    detail = detail or str(problem.meaning).replace("`", "")
    result = HttpResponse(
        dumps(body(problem.status, code, detail, errors)),
        content_type=CONTENT_TYPE,
        status=problem.status,
    )
    if problem.status == 503:
        result["Retry-After"] = "2"
    return result
