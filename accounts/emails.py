"""One spelling per mail address, so that an address has one account."""

import re
import unicodedata

import idna
from django.core.exceptions import ValidationError

# The form of an address whose domain is in ASCII. Quoted local parts and address literals are not
# accepted, because the same mailboxes have a plain spelling too.
SPELLING = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~.-]+@[a-z0-9-]+(?:\.[a-z0-9-]+)*")


def canonical(address: str) -> str:
    """Return a mail address as it is stored: in lower case, with its domain in ASCII.

    A domain in other letters and its `xn--` form are the same domain, like upper and lower case.
    Everything else that Unicode normalisation or IDNA would change is refused: a long s, full-width
    letters, zero-width characters. They look like another address, or are invisible.

    Source: Unicode Standard Annex 15 (NFKC), Unicode Technical Standard 46 (IDNA).

    Raises:
        ValidationError: no account can have this address.
    """
    address = address.strip()
    local, _, domain = address.rpartition("@")
    # One letter at a time, as in UTS 46, because Python lowers a sigma differently at a word's end.
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
    """Return an address as it is stored, to look it up.

    If the address is not valid, the result is one that no account can have.
    """
    try:
        return canonical(address)
    except ValidationError:
        # Only ASCII letters are lowered: some other letters, for example the Kelvin sign, become
        # ASCII letters in lower case.
        return "".join(letter.lower() if letter.isascii() else letter for letter in address)


def validate_spelling(address: str) -> None:
    """Refuse an address that no account can have."""
    canonical(address)
