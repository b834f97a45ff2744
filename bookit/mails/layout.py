"""The layout of all emails: the name or the logo of the business, a text, links and facts."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings
from django.template.loader import render_to_string


@dataclass(frozen=True)
class Link:
    """A link in an email. In HTML, the first link of an email is a button."""

    label: str
    url: str


@dataclass(frozen=True)
class Letter:
    """The content of an email.

    Args:
        heading: the topic in a few words. Plain text leaves it out, because the subject also begins
            with it.
        name: the name of the reader, or empty.
        lead: the text, in which line breaks are kept.
        rows: facts, as pairs of a label and a value.
        key: the most important value in `rows`, which HTML emphasises.
        reference: the value in `rows` that only the support team needs. HTML shows it smaller.
        note: small print.
    """

    subject: str
    heading: str
    name: str
    lead: str
    rows: Sequence[tuple[str, str]] = ()
    key: str = ""
    reference: str = ""
    links: Sequence[Link] = ()
    note: str = ""

    def text(self) -> str:
        """Return the email as plain text."""
        return render_to_string("bookit/mail.txt", self._context())

    def html(self) -> str:
        """Return the email as HTML."""
        return render_to_string("bookit/mail.html", self._context())

    def _context(self) -> dict[str, object]:
        return {
            "letter": self,
            "business": settings.BUSINESS_NAME,
            "logo_url": settings.BUSINESS_LOGO_URL,
        }
