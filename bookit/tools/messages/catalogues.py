"""Reads and writes the catalogues of translations, `bookit/locale/<language>/LC_MESSAGES`."""

import re
from collections.abc import Iterable
from pathlib import Path

import polib
from django.conf import settings

from bookit.languages import SOURCE
from bookit.tools.messages.collecting import Message

LANGUAGES = [code for code, _name in settings.LANGUAGES if code != SOURCE]

_TWO_FORMS = "nplurals=2; plural=(n != 1);"
# Russian has a form for 1, 21, 31 ..., one for 2 to 4, 22 to 24 ..., and one for all other numbers.
_PLURALS = {
    "ru": (
        "nplurals=3; plural=(n%10==1 && n%100!=11 ? 0 : "
        "n%10>=2 && n%10<=4 && (n%100<12 || n%100>14) ? 1 : 2);"
    )
}
# Matches the placeholders of `%`, of `str.format`, and of the email texts that operators write.
_PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|%[sd%]|\{\w+\}")


def file_of(language: str, suffix: str) -> Path:
    """Return the path of a catalogue: people edit the `po`, and Django reads the `mo`."""
    return Path(settings.LOCALE_PATHS[0]) / language / "LC_MESSAGES" / f"django.{suffix}"


def read(language: str) -> polib.POFile:
    """Return the catalogue of a language, which is empty if it has no file yet."""
    path = file_of(language, "po")
    return polib.pofile(str(path)) if path.exists() else polib.POFile()


def updated(language: str, messages: Iterable[Message]) -> polib.POFile:
    """Return the catalogue of a language with exactly these messages and their translations.

    Texts that are no longer used are dropped. A text that has changed is a new text without a
    translation: the translation of a similar text could be wrong.
    """
    known = {(entry.msgid, entry.msgctxt or ""): entry for entry in read(language)}
    catalogue = polib.POFile(wrapwidth=100)
    plurals = _PLURALS.get(language, _TWO_FORMS)
    catalogue.metadata = {
        "Project-Id-Version": "BookIt",
        "Language": language,
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=UTF-8",
        "Content-Transfer-Encoding": "8bit",
        "Plural-Forms": plurals,
    }
    entries: dict[tuple[str, str], polib.POEntry] = {}
    for message in messages:
        key = message.text, message.context
        if key not in entries:
            entry = polib.POEntry(msgid=message.text, msgctxt=message.context or None)
            old = known.get(key)
            if old is not None:
                entry.msgstr, entry.flags = old.msgstr, old.flags
                entry.msgstr_plural = old.msgstr_plural
            entries[key] = entry
        entry = entries[key]
        if message.plural:
            entry.msgid_plural = message.plural
        if (message.file, "") not in entry.occurrences:
            entry.occurrences.append((message.file, ""))
    forms = int(plurals[len("nplurals=")])
    for entry in entries.values():
        if entry.msgid_plural:
            # If the text had no plural before, only its first form has a translation.
            before = {0: entry.msgstr, **entry.msgstr_plural}
            entry.msgstr_plural = {number: before.get(number, "") for number in range(forms)}
            entry.msgstr = ""
        elif entry.msgstr_plural:
            entry.msgstr, entry.msgstr_plural = entry.msgstr_plural[0], {}
        catalogue.append(entry)
    return catalogue


def write(language: str, catalogue: polib.POFile) -> None:
    """Store a catalogue, and compile it."""
    path = file_of(language, "po")
    path.parent.mkdir(parents=True, exist_ok=True)
    catalogue.save(str(path))
    file_of(language, "mo").write_bytes(compiled(catalogue))


def compiled(catalogue: polib.POFile) -> bytes:
    """Return the content of the `mo` file of a catalogue."""
    content: bytes = catalogue.to_binary()
    return content


def untranslated(catalogue: polib.POFile) -> list[str]:
    """Return the texts of a catalogue whose translation is missing or marked as fuzzy."""
    return [entry.msgid for entry in catalogue if entry.fuzzy or not all(_strings(entry))]


def wrong_placeholders(catalogue: polib.POFile) -> list[str]:
    """Return the texts whose translation does not have the same placeholders.

    If only the English singular or only the English plural has a placeholder, a translation may
    leave it out: the singular often has no number ("One seat").
    """
    return [
        entry.msgid
        for entry in catalogue
        if entry.translated()
        and any(
            not _names(string) <= _names(entry.msgid) | _names(entry.msgid_plural)
            or not _names(string) >= _names(entry.msgid) & _names(entry.msgid_plural or entry.msgid)
            for string in _strings(entry)
        )
    ]


def _strings(entry: polib.POEntry) -> list[str]:
    return [*entry.msgstr_plural.values()] if entry.msgid_plural else [entry.msgstr]


def _names(text: str) -> set[str]:
    # The pattern matches `%%`, too. Otherwise, it would find the placeholder `%s` in `%%s`.
    return {*_PLACEHOLDER.findall(text)} - {"%%"}
