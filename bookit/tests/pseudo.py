"""A language that puts every text in brackets, so that tests find text that is never translated.

Text outside brackets did not come from a translation: somebody forgot `gettext`, called it when the
module was imported, or put a sentence together from parts. What users wrote has no brackets either,
so it is removed first; see `leftovers`.
"""

import gettext
import json
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import Group
from django.db import models
from django.utils.translation import trans_real

from bookit import money
from bookit.adminsite.names import OTHER_APPS, OUR_APPS
from bookit.times import zone_names

OPEN, CLOSE = "\u27e6", "\u27e7"
_CONTEXT = "\x04"  # separates the context of a text from the text

# Attributes that people see or hear.
_SPOKEN = frozenset({"title", "alt", "aria-label", "placeholder", "label", "aria-description"})
_BUTTONS = frozenset({"submit", "button", "reset"})
# A text ends where one of these elements begins or ends. Other elements, for example links, can be
# inside a text.
_BLOCKS = frozenset(
    [
        *("p", "div", "li", "ul", "ol", "dl", "dt", "dd", "table", "tr", "td", "th", "caption"),
        *("section", "article", "header", "footer", "nav", "main", "aside", "form", "fieldset"),
        *("h1", "h2", "h3", "h4", "h5", "h6", "legend", "label", "button", "option", "select"),
        *("summary", "details", "pre", "title"),
    ]
)


# Elements whose content needs no translation: scripts, styles, code, and what users have written.
_SILENT = frozenset({"script", "style", "code", "pre", "textarea"})


class Pseudo(gettext.NullTranslations):
    """Translates each text into itself, in brackets."""

    def gettext(self, message: str) -> str:
        """Return a text in brackets."""
        return f"{OPEN}{message.rpartition(_CONTEXT)[2]}{CLOSE}" if message else ""

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        """Return the singular or the plural in brackets."""
        return self.gettext(msgid1 if n == 1 else msgid2)

    def language(self) -> str:
        """Return the language whose formats of dates and numbers are used."""
        return "en"

    to_language = language


def speak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the language `Pseudo` in place of English."""
    pseudo = Pseudo()
    monkeypatch.setitem(trans_real._translations, "en", pseudo)  # type: ignore[attr-defined]
    monkeypatch.setattr(trans_real, "_default", pseudo)


class Texts(HTMLParser):
    """Collects the texts of a page that are outside brackets."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.outside: list[str] = []
        self._depth = 0
        self._silent = 0
        self._json = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Read the attributes."""
        of = {name: value or "" for name, value in attrs}
        if tag in _BLOCKS:
            self._depth = 0
        if tag in _SILENT:
            self._json = of.get("type") == "application/json"
            self._silent += not self._json
        spoken = {name for name in of if name in _SPOKEN}
        # Scripts take their words from data attributes.
        spoken |= {name for name in of if name.startswith("data-") and " " in of[name].strip()}
        if tag == "input" and of.get("type") in _BUTTONS:
            spoken.add("value")
        if not self._depth:
            self.outside += [text for name in spoken for text in outside(of[name])]

    def handle_endtag(self, tag: str) -> None:
        """Leave an element."""
        if tag in _SILENT:
            self._silent -= not self._json
            self._json = False
        if tag in _BLOCKS:
            self._depth = 0

    def handle_data(self, data: str) -> None:
        """Collect the text that is outside brackets."""
        if self._silent:
            return
        if self._json:
            self.outside += [text for value in _values(json.loads(data)) for text in outside(value)]
            return
        kept = ""
        for letter in data:
            self._depth = max(0, self._depth + (letter == OPEN) - (letter == CLOSE))
            kept += " " if self._depth or letter in (OPEN, CLOSE) else letter
        self.outside.append(kept)


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        # Scripts also read keys and states, which are single words.
        if " " in value.strip():
            yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _values(each)
    elif isinstance(value, list):
        for each in value:
            yield from _values(each)


def outside(text: str) -> list[str]:
    """Return the parts of a text that are outside brackets."""
    inner = re.compile(f"{OPEN}[^{OPEN}{CLOSE}]*{CLOSE}")
    while inner.search(text):
        text = inner.sub("\n", text)
    # A text that was cut off has no closing bracket.
    return text.partition(OPEN)[0].split("\n")


# What needs no translation: names, codes, addresses and numbers.
_NEUTRAL = re.compile(
    "|".join(
        [
            r"https?://\S+",
            r"[\w.+-]+@[\w.-]+",
            r"[0-9a-f]{8}-[0-9a-f-]{27}(\.\w+)?",
            r"(?<!\w)/(?:[\w{}.-]+/?)+",  # a path
            r"\b[a-z_:]+(\.[a-z_]+)+\b",  # the type of an event, or the name of a permission
            r"\b[A-Z]{3}\b",  # a currency or a zone
            r"\b[1-5]\d\d( [A-Z][A-Za-z-]*)+",  # a status of HTTP with its name
            r"\b[0-9a-f]{32}\b",
            r"__\w+__",  # a place that a script fills in
            r"\b(BookIt|iCalendar|JSON Lines|CSV|JSON|ID)\b",
            r"^(True|False)$",  # Django's texts for its icons, which have no translation
            r"^(\u203a )?Job \d+",  # the title of a job (`bookit.jobs.admin`)
            r"^\{.*\}$",  # JSON
        ]
    )
)


def data_of_all_rows() -> set[str]:
    """Return the texts that need no translation.

    These are the names of currencies, languages and time zones, and all texts in the database
    except states and other choices.
    """
    found: set[str] = {*money.NAMES.values(), *Group.objects.values_list("name", flat=True)}
    # Each language has its own name for itself.
    found |= {name for _code, name in settings.LANGUAGES}
    for zone in zone_names():
        place = zone.replace("_", " ")
        found |= {zone, place.partition("/")[2], *place.split("/")}
    for model in apps.get_models():
        if model._meta.app_label in OUR_APPS | OTHER_APPS:
            fields = [
                field.attname
                for field in model._meta.concrete_fields
                if isinstance(field, models.CharField | models.TextField | models.JSONField)
                and not field.choices
            ]
            # Without fields, `values_list` would return every column.
            for row in model._default_manager.values_list(*fields) if fields else ():
                found.update(_texts(row))
    return {text for text in found if len(text) > 1}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        yield from value.splitlines()
    elif isinstance(value, dict):
        for each in (*value, *value.values()):
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _without(known: list[str], text: str) -> str:
    for each in known:
        if each in text:
            text = re.sub(rf"(?<!\w){re.escape(each)}(?!\w)", " ", text)
    return text


def leftovers(texts: Iterable[str], data: set[str]) -> set[str]:
    """Return the texts that still contain words after data and neutral parts are removed."""
    known = sorted(data, key=len, reverse=True)
    found = set()
    for text in {" ".join(each.split()) for each in texts}:
        # Try both orders: a name can contain a text like a code, and a code can contain a name.
        rests = [_NEUTRAL.sub(" ", _without(known, text)), _without(known, _NEUTRAL.sub(" ", text))]
        if all(re.search(r"[^\W\d_]{2,}", rest) for rest in rests):
            found.add(text)
    return found
