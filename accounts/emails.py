"""Gives each email address one canonical spelling, so that it has at most one account."""

import re
import unicodedata
from uuid import UUID

import idna
from django.core.exceptions import ValidationError
from django.core.validators import EmailValidator
from django.utils.translation import gettext as _

from bookit.mailboxes import NOWHERE

# The pattern of canonical addresses, which are in ASCII and in lower case. It excludes quoted local
# parts and address literals, because they can be another spelling of a plain address.
SPELLING = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~.-]+@[a-z0-9-]+(?:\.[a-z0-9-]+)*")

# The size of the column. No mailbox has a longer address (RFC 5321).
MAX_LENGTH = 254


def canonical(address: str) -> str:
    """Return an email address as it is stored: in lower case, with its domain in ASCII.

    A domain with non-ASCII letters is the same as its `xn--` form, and upper case is the same as
    lower case. The address is refused if Unicode normalisation or IDNA would change anything else
    in it, for example a long s, full-width letters or zero-width characters. Such an address looks
    like a different address, or contains invisible characters.

    Source: Unicode Standard Annex 15 (NFKC), Unicode Technical Standard 46 (IDNA).

    Raises:
        ValidationError: no account can have this address.
    """
    address = address.strip()
    local, _at, domain = address.rpartition("@")
    # Each letter is lowercased on its own, as in UTS 46, because Python lowercases a sigma
    # differently at the end of a word.
    lower = "".join(letter.lower() for letter in domain)
    try:
        mapped = idna.uts46_remap(lower, std3_rules=True, transitional=False)
        spelled = f"{local.lower()}@{idna.encode(mapped, std3_rules=True).decode()}"
    except idna.IDNAError:
        mapped = spelled = ""
    is_plain = mapped == lower and unicodedata.is_normalized("NFKC", address)
    if not is_plain or not SPELLING.fullmatch(spelled):
        raise ValidationError(
            _("The address must be written in plain letters, without invisible characters."),
            "spelling",
        )
    if len(spelled) > MAX_LENGTH:  # The `xn--` form can be longer than the domain.
        raise ValidationError(EmailValidator.message, EmailValidator.code)
    return spelled


def lookup_form(address: str) -> str:
    """Return the spelling under which an email address can be looked up.

    If the address is not valid, return a spelling that no account can have.
    """
    try:
        return canonical(address)
    except ValidationError:
        # Only ASCII letters are lowercased. The lower case of a few non-ASCII letters, for example
        # the Kelvin sign, is an ASCII letter, so the address of another account could result.
        return "".join(letter.lower() if letter.isascii() else letter for letter in address)


def validate_spelling(address: str) -> None:
    """Raise a `ValidationError` if no account can have this email address."""
    canonical(address)


def mailbox(address: str) -> str:
    """Return an email address, or an empty text if no mailbox can have this address."""
    return "" if address.endswith(NOWHERE) else address


def no_mailbox(pk: UUID) -> str:
    """Return the address that an account has if its owner has no email address."""
    return f"{pk}@customer{NOWHERE}"
