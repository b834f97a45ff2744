"""The columns of reports: what they are called, and how people read their values."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.utils.formats import number_format
from django.utils.translation import gettext

from bookings.reports.charts import month, number

HOURS_A_DAY = 24

# Text of Django's lazy translations.
Words = Any


@dataclass(frozen=True)
class Column:
    """A column of the rows of a report, or one of its totals.

    Args:
        label: what people call it; empty if pages do not show the column.
        written: returns a value as people read it.
    """

    label: Words = ""
    written: Callable[[Any], str] = str

    @property
    def is_number(self) -> bool:
        """Whether the values are numbers."""
        return self.written not in (str, gettext, month)

    def text(self, value: Any) -> str:
        """Return a value as people read it, or a dash if there is none."""
        return "-" if value is None else self.written(value)


def amount(value: Decimal) -> str:
    """Return an amount of money. `value` already has the decimals of its currency."""
    return str(number_format(value, force_grouping=True))


def average(value: float) -> str:
    """Return an average."""
    return number(value, 2)


def minutes(value: float) -> str:
    """Return a number of minutes as hours."""
    return gettext("%(hours)s h") % {"hours": number(value / 60, 1)}


def hours(value: float) -> str:
    """Return a duration in hours or, from two days on, in days."""
    if value < 2 * HOURS_A_DAY:
        return gettext("%(hours)s h") % {"hours": number(value, 0 if value == int(value) else 1)}
    return gettext("%(days)s days") % {"days": number(value / HOURS_A_DAY, 1)}
