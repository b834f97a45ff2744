"""One spelling per mail address, so that an address has one account."""

import re
import unicodedata

import idna
from django.core.exceptions import ValidationError

# What is left once the domain is in ASCII. Quoted local parts and address literals are not
# accepted: they are further spellings of mailboxes that have a plain one.
SPELLING = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~.-]+@[a-z0-9-]+(?:\.[a-z0-9-]+)*")


def canonical(address: str) -> str:
    """Return a mail address as it is stored: in lower case, with its domain in ASCII.

    A domain in other letters and its `xn--` form are one domain, as upper and lower case are.
    Everything else that Unicode normalisation or IDNA would change looks like another address, or
    like nothing at all, and is refused: a long s, full-width letters, zero-width characters.

    Source: Unicode Standard Annex 15 (NFKC), Unicode Technical Standard 46 (IDNA).

    Raises:
        ValidationError: it is refused.
    """
    address = address.strip()
    local, _, domain = address.rpartition("@")
    # One letter at a time, as UTS 46 does it: Python writes a sigma differently at a word's end.
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


def sought(address: str) -> str:
    """Return the address to look for; one that no account can have, if it is not a mail address."""
    try:
        return canonical(address)
    except ValidationError:
        # Other letters stay: in lower case some of them are plain ones, such as the Kelvin sign.
        return "".join(letter.lower() if letter.isascii() else letter for letter in address)


def validate_spelling(address: str) -> None:
    """Refuse an address that no account can have."""
    canonical(address)
