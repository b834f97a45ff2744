"""What catalog tells and asks the apps above, inside of the transaction of a change."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.dispatch import Signal


@dataclass(frozen=True)
class Affected:
    """The upcoming bookings that a change leaves outside.

    Args:
        count: how many there are.
        first: id and start of the first hundred, in order.
    """

    count: int = 0
    first: tuple[tuple[UUID, datetime], ...] = ()


# A calendar is closed at times at which it was open, perhaps. Sent with `calendar`, `period` (a new
# time off; None: its hours or its zone have changed) and `at`; answered with what is `Affected`.
closed = Signal()
