"""Messages for forms and actions of the admin site that a rule or the database refuses."""

from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import DataError, IntegrityError
from django.db.models import ProtectedError, RestrictedError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from bookit.errors import CONSTRAINT_ERRORS, ServiceError, database_error_facts, problems

GONE = gettext_lazy("It no longer exists, because somebody has deleted it.")
REFERENCED = gettext_lazy("Other rows refer to it, so it cannot be deleted.")


class Refused(Exception):
    """Something cannot be done; the message says why."""


#: Errors that are caused by users' mistakes, or by changes that other users made in the meantime.
REFUSALS = (
    Refused,
    ServiceError,
    ObjectDoesNotExist,
    ValidationError,
    IntegrityError,
    DataError,
)


def messages_of(error: Exception) -> dict[str | None, list[str]]:
    """Return the messages for one of the `REFUSALS` by field; None stands for the whole form."""
    if isinstance(error, ServiceError) and error.errors:
        return {field or None: texts for field, texts in error.errors.items()}
    return {None: [_message_for_the_form(error)]}


def message_of(error: Exception) -> str:
    """Return the message for one of the `REFUSALS` in one line."""
    return " ".join(text for texts in messages_of(error).values() for text in texts)


def _message_for_the_form(error: Exception) -> str:
    if isinstance(error, ServiceError):
        return error.detail
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, ObjectDoesNotExist):
        return str(GONE)
    if isinstance(error, ProtectedError | RestrictedError):
        return str(REFERENCED)
    if isinstance(error, IntegrityError):
        state, constraint = database_error_facts(error)
        known = CONSTRAINT_ERRORS.get(constraint or "")
        if known:
            return known.describe()
        if state == "23503":  # foreign_key_violation
            return _("It refers to a row that no longer exists, or other rows refer to it.")
        return _("It conflicts with existing data (constraint %(constraint)s).") % {
            "constraint": constraint
        }
    # A `DataError`, or a `ValidationError` of a value that Django cannot convert, such as an id.
    # Forms handle the errors of their own fields.
    return str(problems.BAD_VALUE)
