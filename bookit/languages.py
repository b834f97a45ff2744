"""The languages of BookIt's own texts, and the choice of a language for a reader.

A language is named by a BCP 47 tag, such as `pt-BR`. Only the first part of a tag counts: all
readers of Portuguese get the same Portuguese.
"""

from functools import lru_cache

from django.conf import settings
from django.utils import translation
from django.utils.formats import number_format
from django.utils.translation.trans_real import parse_accept_lang_header

# The language of the texts in the code, for readers whose own language BookIt does not know.
SOURCE = "en"


def known(tag: str) -> str | None:
    """Return the language of a tag, or None if BookIt does not know the language."""
    language = tag.lower().replace("_", "-").partition("-")[0]
    return language if language in dict(settings.LANGUAGES) else None


def closest(tag: str) -> str:
    """Return the language of a tag, or English if BookIt does not know the language."""
    return known(tag) or SOURCE


@lru_cache(maxsize=1000)
def accepted(header: str) -> str | None:
    """Return the known language that an `Accept-Language` header prefers, or None.

    Results are cached, because most browsers send one of a few common headers.
    """
    found = (known(tag) for tag, weight in parse_accept_lang_header(header.lower()) if weight)
    return next((language for language in found if language), None)


def grouped(number: int) -> str:
    """Return a whole number as the current language writes it: `10,000` in English."""
    return number_format(number, 0, force_grouping=True)


def speaking(tag: str) -> translation.override:
    """Translate into the language of a tag, or into English, inside a `with` block."""
    return translation.override(closest(tag))
