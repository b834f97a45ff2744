"""Times, dates and numbers in the words of the admin site's pages."""

from datetime import date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.utils.formats import date_format
from django.utils.translation import gettext as _

from bookit import money


def hours(start: datetime, end: datetime, zone: ZoneInfo) -> str:
    """Return a period as two times of day, for example `10:00-10:30` with an en dash."""
    return "–".join(f"{each.astimezone(zone):%H:%M}" for each in (start, end))  # noqa: RUF001


def day(of: date) -> str:
    """Return a date without its year, for example `Tue 1 Dec`."""
    return date_format(of, "DAY_OF_YEAR_FORMAT")


def moment(at: datetime, zone: ZoneInfo) -> str:
    """Return a date and a time of day, for example `Tue 1 Dec, 10:00`."""
    return date_format(at.astimezone(zone), "DAY_OF_YEAR_TIME_FORMAT")


def price(amount: Decimal, currency: str) -> str:
    """Return an amount and its currency, for example `12,450.00 EUR`."""
    return f"{money.in_currency(amount, currency):,} {currency}"


def change(now: Decimal | int, before: Decimal | int) -> str:
    """Return by how much a number has changed, for example `+12 %`."""
    if not before:
        return _("none before") if now else _("as before")
    per_cent = round((now - before) * 100 / before)
    return _("as before") if not per_cent else f"{per_cent:+,} %".replace("-", "−")  # noqa: RUF001
