"""Money: the currencies of prices, and the decimals of each currency."""

from decimal import Decimal

from django.core.exceptions import ValidationError
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from iso4217 import Currency, raw_xml

# The decimals and the total digits of a price column.
DECIMALS = 3
DIGITS = 12 + DECIMALS

# The unit of account of the Arab Monetary Fund. It is not a means of payment.
_ACCOUNTING_UNITS = {"XAD"}
_FUNDS = {
    entry.findtext("Ccy")
    for entry in raw_xml.iter("CcyNtry")
    if (name := entry.find("CcyNm")) is not None and name.get("IsFund")
}

# The number of decimals of each currency, by code. The library provides the ISO's list of
# currencies in use. Its entries that are not means of payment are left out: funds, which the list
# marks; entries without a number of decimals, such as metals, bonds and test codes; the Uruguayan
# unit of account UYW, which has more decimals than `DECIMALS`; and `_ACCOUNTING_UNITS`.
CURRENCIES: dict[str, int] = {
    each.code: each.exponent
    for each in sorted(Currency, key=lambda currency: currency.code)
    if each.exponent is not None
    and each.exponent <= DECIMALS
    and each.code not in _FUNDS | _ACCOUNTING_UNITS
}
NAMES: dict[str, str] = {each.code: each.currency_name for each in Currency}

# The smallest amount of each currency, by code.
_LAST_PLACES = {code: Decimal(1).scaleb(-decimals) for code, decimals in CURRENCIES.items()}
# Used for stored prices whose currency is no longer on the list.
_FALLBACK_DECIMALS = 2
_FALLBACK_PLACE = Decimal(1).scaleb(-_FALLBACK_DECIMALS)


def decimals(currency: str) -> int:
    """Return the number of decimals of a currency."""
    return CURRENCIES.get(currency, _FALLBACK_DECIMALS)


def is_plain(number: str) -> bool:
    """Return whether a number is written only in ASCII and without underscores.

    Python's `Decimal` also accepts digits of any script, and underscores between digits.
    """
    return number.isascii() and "_" not in number


def in_currency(amount: Decimal, currency: str) -> Decimal:
    """Return the amount, rounded to the decimals of its currency."""
    return amount.quantize(_LAST_PLACES.get(currency, _FALLBACK_PLACE))


def written(amount: Decimal, currency: str) -> str:
    """Return the amount and its currency in the current language, for example `25.00 EUR`."""
    number = in_currency(amount, currency)
    # Some languages, for example Spanish, do not group the digits of numbers below 10,000. Such
    # numbers are easy to read anyway, so they have no groups in any language.
    text = number_format(number, decimals(currency), force_grouping=number >= 10_000)
    return f"{text} {currency}"


def fits(amount: Decimal, currency: str) -> bool:
    """Return whether the currency has enough decimals for the amount."""
    return in_currency(amount, currency) == amount


def validate_currency(code: str) -> None:
    """Accept only the codes of currencies in use.

    Raises:
        ValidationError: `code` is not the code of a currency in use.
    """
    if code not in CURRENCIES:
        raise ValidationError(_("Must be the ISO 4217 code of a currency in use, for example EUR."))
