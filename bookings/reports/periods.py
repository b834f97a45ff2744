"""The periods of reports, and their months."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from functools import cached_property
from typing import Any

from dateutil.relativedelta import relativedelta
from django.utils.translation import gettext as _

from bookit.errors import Invalid
from bookit.languages import grouped
from bookit.times import begin, day_start, end, is_longer

# Three years. A longer report could exceed the time limit of a statement.
LONGEST = timedelta(days=3 * 366)
# A report covers this number of calendar months by default, the current month included.
MONTHS = 12


@dataclass(frozen=True)
class Period:
    """A half-open period, and the time zone in which its months begin."""

    start: datetime
    end: datetime
    tz: tzinfo

    @cached_property
    def months(self) -> list[tuple[str, datetime]]:
        """The months that overlap the period: the name of each (`2026-12`), and when it begins.

        The first month begins with the period.
        """
        local = self.start.astimezone(self.tz)
        months = [(f"{local:%Y-%m}", self.start)]
        following = date(local.year, local.month, 1)
        while True:
            following += relativedelta(months=1)
            begins = day_start(following, self.tz)
            if begins >= self.end:
                return months
            months.append((f"{following:%Y-%m}", begins))

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters `start`, `end` and `months` of SQL statements.

        `width_bucket(time, months)` is the number of the month of `time`, counted from 1.
        """
        return {
            "start": self.start,
            "end": self.end,
            "months": [begins for _name, begins in self.months],
        }


def chosen(
    *, from_: date | datetime | None, to: date | datetime | None, tz: tzinfo, at: datetime
) -> Period:
    """Return the period between two dates or instants; a date means the whole day.

    Without `to`, the period ends with the current day. Without `from_`, it has twelve months: its
    last month and the eleven months before.

    Raises:
        Invalid: the end is not after the start, or the period is too long.
    """
    today = at.astimezone(tz).date()
    last = end(to or today, tz)
    if from_ is None:
        # The last instant of the period decides which month is its last month.
        local = (last - timedelta(microseconds=1)).astimezone(tz)
        from_ = date(local.year, local.month, 1) - relativedelta(months=MONTHS - 1)
    first = begin(from_, tz)
    if last <= first:
        raise Invalid.of("to", _("The end must be after the start."))
    if is_longer(first, last, LONGEST, tz):
        raise Invalid.of(
            "to", _("A report can cover at most %(days)s days.") % {"days": grouped(LONGEST.days)}
        )
    return Period(first, last, tz)
