"""Turns an exception in a DRF view into problem+json.

Unlike DRF's own handler, this handler marks no transaction for rollback. ATOMIC_REQUESTS is off:
each service that writes has its own transaction, which ends before this handler runs.
`RequestMiddleware` handles the exceptions in other views.
"""

import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.db import DataError, IntegrityError
from django.http import Http404
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import exceptions
from rest_framework.settings import api_settings

from bookit.errors import (
    CONSTRAINT_ERRORS,
    Forbidden,
    Invalid,
    LimitExceeded,
    ServiceError,
    database_error_facts,
    is_database_unavailable,
    pending,
    problems,
)
from bookit.responses import Response

logger = logging.getLogger(__name__)

# A response lists at most this many field errors, so that a large request does not get an even
# larger response.
MAX_FIELD_ERRORS = 100
MAX_MESSAGE_LENGTH = 500

# The message for an unavailable database, by SQLSTATE. None stands for all other errors, with or
# without an SQLSTATE.
UNAVAILABLE = {
    "57014": gettext_lazy(
        "The database took too long to process this request. Request less at a time, or try "
        "again shortly."
    ),
    None: gettext_lazy("The database is not available. Try again shortly."),
}


# The exceptions that `_translate` can turn into responses with a status below 500.
# `bookit.idempotency.views` can keep the responses to these exceptions.
REFUSALS = (
    ServiceError,
    exceptions.APIException,
    Http404,
    ObjectDoesNotExist,
    PermissionDenied,
    DataError,
    IntegrityError,
)


class _Problem(NamedTuple):
    """The arguments of `problems.body`; `more` are the additional members."""

    status: int
    code: str
    detail: str
    errors: list[dict[str, str]] | None = None
    more: Mapping[str, Any] = MappingProxyType({})


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Return the response to `error`, or None for a bug, which Django logs and turns into a 500."""
    problem = _translate(error)
    if problem is None:
        return None
    response = Response(
        problems.body(problem.status, problem.code, problem.detail, problem.errors, **problem.more),
        status=problem.status,
        content_type=problems.CONTENT_TYPE,
    )
    # Problem documents are JSON even if the view renders another format.
    renderer: Any = api_settings.DEFAULT_RENDERER_CLASSES[0]
    response.write_with(renderer(), {"request": context["request"]})
    if problem.status == 503:
        response["Retry-After"] = "2"
    elif problem.status == 401:
        response["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, LimitExceeded):
        response["Retry-After"] = str(error.wait)
        for name, value in error.headers.items():
            response[name] = value
    return response


def _translate(error: Exception) -> _Problem | None:
    """Return the problem that an exception means to the client, or None for a bug."""
    if isinstance(error, ServiceError):
        return _from_service(error)
    if isinstance(error, IntegrityError):
        _state, constraint = database_error_facts(error)
        known = CONSTRAINT_ERRORS.get(constraint or "")
        return _from_service(known()) if known else None
    if is_database_unavailable(error):
        state, _constraint = database_error_facts(error)
        logger.error("database unavailable: %s %s", type(error.__cause__ or error).__name__, state)
        return _Problem(503, "service_unavailable", str(UNAVAILABLE.get(state, UNAVAILABLE[None])))
    if pending.is_cause(error):
        return _Problem(503, "service_unavailable", str(problems.UPDATING))
    if isinstance(error, DataError):
        # Serializers and filters check ranges first; this handles the values that they miss.
        logger.warning("value refused by the database: %s", database_error_facts(error)[0])
        return _Problem(400, "validation_error", str(problems.BAD_VALUE))
    if isinstance(error, exceptions.ValidationError):
        return _Problem(
            400,
            "validation_error",
            Invalid.describe(),
            [*islice(_fields(error.detail), MAX_FIELD_ERRORS)],
        )
    if isinstance(error, Http404 | ObjectDoesNotExist):
        return _Problem(404, "not_found", _("There is nothing at this address."))
    if isinstance(error, PermissionDenied):
        return _from_service(Forbidden())
    if isinstance(error, exceptions.AuthenticationFailed):
        return _Problem(401, "token_invalid", _("The token is invalid, expired or revoked."))
    if isinstance(error, exceptions.UnsupportedMediaType):
        # The message of DRF quotes the header, but does not say what it should be.
        return _Problem(415, "unsupported_media_type", str(problems.NOT_JSON))
    if isinstance(error, exceptions.APIException):
        code = error.get_codes()
        return _Problem(
            error.status_code, code if isinstance(code, str) else "error", str(error.detail)
        )
    return None


def _from_service(error: ServiceError) -> _Problem:
    errors = [
        {"field": field, "code": "invalid", "message": message}
        for field, messages in error.errors.items()
        for message in messages
    ]
    return _Problem(
        problems.status_of(type(error)), error.code, error.detail, errors or None, error.members
    )


def _fields(detail: Any, path: str = "") -> Iterator[dict[str, str]]:
    """Yield DRF's nested error details as a flat list.

    The path of a nested field is dotted; `""` stands for the whole body.
    """
    if isinstance(detail, dict):
        for name, inner in detail.items():
            yield from _fields(
                inner, f"{path}.{name}" if path and name != "" else path or str(name)
            )
    elif isinstance(detail, list):
        for index, inner in enumerate(detail):
            if isinstance(inner, dict | list):
                yield from _fields(inner, f"{path}.{index}" if path else str(index))
            else:
                yield from _fields(inner, path)
    else:
        # Some messages quote the value, which can be as long as 1 MiB.
        message = str(detail)[:MAX_MESSAGE_LENGTH]
        yield {"field": path, "code": getattr(detail, "code", "invalid"), "message": message}
