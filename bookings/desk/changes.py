"""Changes to a booking that somebody asks for on a page that shows the booking."""

from collections.abc import Callable
from typing import TypeVar

from django.db import IntegrityError
from django.utils.translation import gettext as _

from bookings.models import Booking
from bookit.adminsite.refusals import Refused
from bookit.database.versions import if_unchanged, is_outdated

Result = TypeVar("Result")


def change_as_shown(booking: Booking, change: Callable[[], Result], *, is_as_shown: bool) -> Result:
    """Change a booking, unless somebody has changed it since the page was opened.

    The write itself compares the versions again, because the booking can change after it was read.

    Args:
        booking: the booking as it was read for this request.
        is_as_shown: whether the page showed this version of the booking.

    Raises:
        Refused: somebody has changed the booking.
    """
    refusal = Refused(
        _(
            "Somebody has changed this booking since you opened the page. Check what the page shows"
            " now, and try again."
        )
    )
    if not is_as_shown:
        raise refusal
    try:
        return if_unchanged(booking, change)
    except IntegrityError as error:
        if is_outdated(error):
            raise refusal from None
        raise
