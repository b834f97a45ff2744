"""An error of the HTTP layer that DRF does not define, and a shortcut for one that it defines."""

from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import APIException, ValidationError


class PayloadTooLarge(APIException):
    """The body is larger than the server accepts."""

    status_code = 413
    default_detail = _("The body is larger than 1 MiB.")
    default_code = "payload_too_large"


def refuse(field: str, message: str, code: str = "invalid") -> ValidationError:
    """Return the validation error for one field or parameter."""
    return ValidationError({field: [message]}, code=code)
