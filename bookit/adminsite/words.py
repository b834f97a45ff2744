"""Times, dates and numbers in the words of the admin site's pages."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.utils.formats import date_format, number_format
from django.utils.translation import gettext as _

from bookit import money
from bookit.times import time_of_day


def hours(start: datetime, end: datetime, zone: ZoneInfo) -> str:
    """Return a period as two times of day, for example `10:00-10:30` with an en dash."""
    return "–".join(time_of_day(each.astimezone(zone)) for each in (start, end))  # noqa: RUF001


def day(of: date) -> str:
    """Return a date without its year, for example `Tue 1 Dec`."""
    return date_format(of, "DAY_OF_YEAR_FORMAT")


def dated(local: datetime, day_format: str) -> str:
    """Return a local time with its date in a format, for example `Tue 1 Dec 2026, 10:00`."""
    return f"{date_format(local, day_format)}, {time_of_day(local)}"


def moment(at: datetime, zone: ZoneInfo) -> str:
    """Return a date and a time of day, for example `Tue 1 Dec, 10:00`."""
    return dated(at.astimezone(zone), "DAY_OF_YEAR_FORMAT")


def period(start: datetime, end: datetime, zone: ZoneInfo) -> str:
    """Return a period in words: `Tue 1 Dec 2026, 10:00-10:30` with an en dash.

    The date of the end is added if it is another day.
    """
    begin, until = start.astimezone(zone), end.astimezone(zone)
    first = dated(begin, "DAY_FORMAT")
    if begin.date() == until.date():
        return f"{first}\N{EN DASH}{time_of_day(until)}"
    return f"{first} \N{EN DASH} {dated(until, 'DAY_FORMAT')}"


def foreign_zone(at: datetime, zone: ZoneInfo, own: ZoneInfo) -> str:
    """Return the name of a zone; empty if its clocks and those of `own` show the same time."""
    is_same = at.astimezone(zone).utcoffset() == at.astimezone(own).utcoffset()
    return "" if is_same else zone.key


def stretch(start: datetime, end: datetime, zone: ZoneInfo) -> str:
    """Return a half-open period in words: a day, a range of days, or a range of times."""
    begin, until = start.astimezone(zone), end.astimezone(zone)
    if begin.time() != time.min or until.time() != time.min:
        texts = moment(start, zone), moment(end, zone)
    else:
        texts = day(begin), day(until - timedelta(days=1))
    return texts[0] if texts[0] == texts[1] else " – ".join(texts)  # noqa: RUF001


def price(amount: Decimal, currency: str) -> str:
    """Return an amount and its currency, for example `12,450.00 EUR`."""
    number = money.in_currency(amount, currency)
    return f"{number_format(number, money.decimals(currency), force_grouping=True)} {currency}"


def change(now: Decimal | int, before: Decimal | int) -> str:
    """Return by how much a number has changed, for example `+12 %`.

    Return the word for "unchanged" if the numbers are equal. `before` must not be 0.
    """
    if now == before:
        return _("unchanged")
    number = number_format(abs(round((now - before) * 100 / before)), force_grouping=True)
    return f"{'+' if now > before else '−'}{number} %"  # noqa: RUF001


def share(part: int, whole: int) -> str:
    """Return a part of a whole in per cent, for example `8.6 %`; empty if the whole is 0."""
    # `number_format` alone would cut off further decimals instead of rounding. The reports compute
    # a share in the same way, so 23 of 80 is rounded in the same way.
    return f"{number_format(round(100 * (part / whole), 1), 1)} %" if whole else ""
