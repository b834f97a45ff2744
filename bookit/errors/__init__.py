"""Categories of errors that BookIt's rules raise, independent of HTTP.

A concrete error is a subclass, defined beside the code that raises it. Clients switch on the
`code` of the error. The first paragraph of its docstring is the default message.
"""

import inspect
import re
from typing import Any, ClassVar

from django.db import InterfaceError, InternalError, OperationalError
from django.utils.translation import gettext, ngettext

from bookit.extensions import Extensions


class ServiceError(Exception):
    """BookIt refuses the request, or cannot handle it at present.

    Args:
        detail: the message for the client; by default the first paragraph of the class's docstring.
        errors: field errors as `{field: [message, ...]}`.

    Attributes:
        members: additional members of the problem document, by name (RFC 9457, section 3.2).
    """

    code: ClassVar[str]

    def __init__(self, detail: str = "", *, errors: dict[str, list[str]] | None = None) -> None:
        self.detail = detail or self.describe()
        self.errors = errors or {}
        self.members: dict[str, Any] = {}
        super().__init__(self.detail)

    @classmethod
    def describe(cls) -> str:
        """Return the default message, translated."""
        return gettext(cls.message())

    @classmethod
    def message(cls) -> str:
        """Return the default message in English, which `manage.py makemessages` collects."""
        return (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")

    @classmethod
    def concrete(cls) -> list[type["ServiceError"]]:
        """Return every subclass that defines its own code, sorted by code."""
        found: dict[str, type[ServiceError]] = {}
        for child in cls.__subclasses__():
            if "code" in vars(child):
                found[child.code] = child
            found |= {error.code: error for error in child.concrete()}
        return [found[code] for code in sorted(found)]


class Invalid(ServiceError):
    """The request is not valid; see `errors`."""

    code = "validation_error"

    @classmethod
    def of(cls, field: str, message: str) -> "Invalid":
        """Return the error of one field."""
        return cls(errors={field: [message]})


class Unauthenticated(ServiceError):
    """The caller could not prove who they are."""


class Forbidden(ServiceError):
    """You do not have permission to perform this action."""

    code = "permission_denied"


class Conflict(ServiceError):
    """The request is valid, but it conflicts with the current state."""


class PreconditionFailed(ServiceError):
    """The resource has changed since you read it. Read it again, then repeat your change."""

    code = "precondition_failed"


class Unprocessable(ServiceError):
    """The request contradicts an earlier one."""


class Unavailable(ServiceError):
    """A service that BookIt needs is not responding. Try again shortly."""

    code = "service_unavailable"


class LimitExceeded(ServiceError):
    """Too many requests. Wait for the number of seconds in Retry-After.

    Args:
        wait: the seconds until the next request can succeed.
        headers: the headers that describe the limit, unless they are already stored on the request.
    """

    code = "throttled"

    def __init__(self, wait: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(
            ngettext(
                "Too many requests. Try again in %(seconds)d second.",
                "Too many requests. Try again in %(seconds)d seconds.",
                wait,
            )
            % {"seconds": wait}
        )
        self.wait = wait
        self.headers = headers or {}


# The error to raise when a constraint is violated, by the name of the constraint.
CONSTRAINT_ERRORS: Extensions[type[ServiceError]] = Extensions()


# Matches the name of a constraint in an error's message or hint. Citus appends the number of the
# shard, which is not part of the name.
_NAMED_CONSTRAINT = re.compile(r'constraint "(\w+?)(?:_\d{6,})?"')


def is_database_unavailable(error: BaseException) -> bool:
    """Return whether `error` means that the database, or one of its servers, is unavailable.

    Every OperationalError counts, for example that of a statement that exceeded its time limit, or
    of a deadlock. If a server closes its connection during a change to a reference table, Citus
    reports an internal error.
    """
    return isinstance(error, OperationalError | InterfaceError) or (
        isinstance(error, InternalError) and "failure on connection" in str(error)
    )


def database_error_facts(error: BaseException) -> tuple[str | None, str | None]:
    """Return the SQLSTATE of a Django database error, and the name of the violated constraint.

    If the error comes from another server of a distributed database, it has no constraint name, or
    a name that ends with the number of a shard. The name is then read from the error's texts.
    """
    cause: Any = error.__cause__
    diagnosis = getattr(cause, "diag", None)
    constraint = getattr(diagnosis, "constraint_name", None)
    if diagnosis is not None and (constraint is None or constraint[-1:].isdigit()):
        texts = f"{diagnosis.message_primary} {diagnosis.message_hint}"
        found = _NAMED_CONSTRAINT.search(texts)
        constraint = found[1] if found else constraint
    return getattr(cause, "sqlstate", None), constraint
