"""Money: the currencies that prices can have, each with its decimals."""

from decimal import Decimal

from django.core.exceptions import ValidationError
from iso4217 import Currency, raw_xml

# What a column of prices has room for.
DECIMALS = 3
DIGITS = 12 + DECIMALS

# The Arab Monetary Fund counts in it, and nobody pays with it.
_NOT_PAID = {"XAD"}
_FUNDS = {
    entry.findtext("Ccy")
    for entry in raw_xml.iter("CcyNtry")
    if (name := entry.find("CcyNm")) is not None and name.get("IsFund")
}

# From their codes to how many decimals they have. The library brings the ISO's list of currencies
# in use, which names more than people pay with: funds, which it marks; metals, bonds and tests,
# which have no number of decimals; and an index with four.
CURRENCIES: dict[str, int] = {
    each.code: each.exponent
    for each in sorted(Currency, key=lambda currency: currency.code)
    if each.exponent is not None
    and each.exponent <= DECIMALS
    and each.code not in _FUNDS | _NOT_PAID
}
NAMES: dict[str, str] = {each.code: each.currency_name for each in Currency}

# A stored price may be in a currency that has left the list since.
_CENTS = 2
_LAST_PLACES = {code: Decimal(1).scaleb(-decimals) for code, decimals in CURRENCIES.items()}
_CENT = Decimal(1).scaleb(-_CENTS)


def decimals(currency: str) -> int:
    """Return how many decimals a currency has."""
    return CURRENCIES.get(currency, _CENTS)


def in_currency(amount: Decimal, currency: str) -> Decimal:
    """Return the amount with the decimals of its currency."""
    return amount.quantize(_LAST_PLACES.get(currency, _CENT))


def written(amount: Decimal, currency: str) -> str:
    """Return the amount and its currency, such as `25.00 EUR`."""
    return f"{in_currency(amount, currency)} {currency}"


def fits(amount: Decimal, currency: str) -> bool:
    """Return whether the currency has enough decimals for the amount."""
    return in_currency(amount, currency) == amount


def validate_currency(code: str) -> None:
    """Let pass the codes of currencies in use.

    Raises:
        ValidationError: it is none.
    """
    if code not in CURRENCIES:
        raise ValidationError("Must be the ISO 4217 code of a currency in use, for example EUR.")
