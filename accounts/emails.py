"""A single spelling for each email address, so that each address has at most one account."""

import re
import unicodedata

import idna
from django.core.exceptions import ValidationError

# The form of an address whose domain is in ASCII. Quoted local parts and address literals are not
# accepted, because such a mailbox also has a plain spelling.
SPELLING = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~.-]+@[a-z0-9-]+(?:\.[a-z0-9-]+)*")


def canonical(address: str) -> str:
    """Return an email address as it is stored: in lower case, with its domain in ASCII.

    A domain with non-ASCII letters is the same as its `xn--` form, and upper case is the same as
    lower case. An address with anything else that Unicode normalisation or IDNA would change is
    refused, for example a long s, full-width letters or zero-width characters: it would look like a
    different address, or contain something invisible.

    Source: Unicode Standard Annex 15 (NFKC), Unicode Technical Standard 46 (IDNA).

    Raises:
        ValidationError: no account can have this address.
    """
    address = address.strip()
    local, _, domain = address.rpartition("@")
    # Letter by letter, as in UTS 46, because Python lowers a sigma differently at a word's end.
    lower = "".join(letter.lower() for letter in domain)
    try:
        mapped = idna.uts46_remap(lower, std3_rules=True, transitional=False)
        spelled = f"{local.lower()}@{idna.encode(mapped, std3_rules=True).decode()}"
    except idna.IDNAError:
        mapped = spelled = ""
    is_plain = mapped == lower and unicodedata.is_normalized("NFKC", address)
    if not is_plain or not SPELLING.fullmatch(spelled):
        raise ValidationError(
            "The address must be written in plain letters, without invisible characters.",
            "spelling",
        )
    return spelled


def lookup_form(address: str) -> str:
    """Return the form of an address under which it can be looked up.

    If the address is not valid, return one that no account can have.
    """
    try:
        return canonical(address)
    except ValidationError:
        # Only ASCII letters are lowered: a few others, for example the Kelvin sign, would turn into
        # ASCII letters.
        return "".join(letter.lower() if letter.isascii() else letter for letter in address)


def validate_spelling(address: str) -> None:
    """Refuse an address that no account can have."""
    canonical(address)
