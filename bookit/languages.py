"""The languages of BookIt's own words, and which of them a reader gets.

A language is named by a BCP 47 tag, such as `pt-BR`. Only the first part of a tag counts: all who
read Portuguese get the same Portuguese.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from django.conf import settings
from django.utils import translation
from django.utils.formats import number_format
from django.utils.translation.trans_real import parse_accept_lang_header

# The language in which the code is written. It is used if a reader's language is not known.
SOURCE = "en"


def known(tag: str) -> str | None:
    """Return the language of a tag, or None if BookIt does not know the language."""
    language = tag.lower().replace("_", "-").partition("-")[0]
    return language if language in dict(settings.LANGUAGES) else None


def closest(tag: str) -> str:
    """Return the language for a reader with this tag. It is English if the tag's is not known."""
    return known(tag) or SOURCE


@lru_cache(maxsize=1000)
def accepted(header: str) -> str | None:
    """Return the known language that an `Accept-Language` header prefers, or None.

    The result is cached, because browsers send one of few headers with each request.
    """
    found = (known(tag) for tag, weight in parse_accept_lang_header(header.lower()) if weight)
    return next((language for language in found if language), None)


def grouped(number: int) -> str:
    """Return a whole number as the current language writes it: `10,000` in English."""
    return number_format(number, 0, force_grouping=True)


@contextmanager
def speaking(tag: str) -> Iterator[None]:
    """Translate into the language for a reader with this tag, for the length of the block."""
    with translation.override(closest(tag)):
        yield
