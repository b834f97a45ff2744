"""The catalogues of translations are complete, correct and compiled."""

import polib
import pytest

from bookit.runtime.startup import BASE_DIR
from bookit.tools.messages import catalogues
from bookit.tools.messages.collecting import PACKAGES, Message, messages

every_language = pytest.mark.parametrize("language", catalogues.LANGUAGES)


@every_language
def test_every_text_and_no_other_has_a_translation(language):
    """If this fails, run `manage.py makemessages` and translate what is missing."""
    stored = catalogues.read(language)
    texts = {(each.text, each.context) for each in messages()}

    assert texts - {(entry.msgid, entry.msgctxt or "") for entry in stored} == set()
    assert {(entry.msgid, entry.msgctxt or "") for entry in stored} - texts == set()
    assert catalogues.untranslated(stored) == []


@every_language
def test_translations_have_the_same_placeholders(language):
    assert catalogues.wrong_placeholders(catalogues.read(language)) == []


@every_language
def test_the_compiled_catalogue_is_up_to_date(language):
    compiled = catalogues.file_of(language, "mo").read_bytes()

    assert compiled == catalogues.compiled(catalogues.read(language))


@every_language
def test_every_plural_form_has_a_translation(language):
    forms = 3 if language == "ru" else 2
    stored = catalogues.read(language)

    assert stored.metadata["Plural-Forms"].startswith(f"nplurals={forms};")
    plurals = [entry for entry in stored if entry.msgid_plural]
    assert plurals
    assert {len(entry.msgstr_plural) for entry in plurals} == {forms}
    assert all(all(entry.msgstr_plural.values()) for entry in plurals)


def test_texts_are_collected_from_code_templates_errors_and_models():
    found = {(each.text, each.context) for each in messages()}

    assert ("Somebody else made this hold.", "") in found  # in code
    assert ("What", "email") in found  # in code, with a context
    assert ("All errors", "") in found  # in a template
    assert ("This time is already booked.", "") in found  # the docstring of an error
    assert ("start time", "") in found  # the name of a field


def test_the_file_of_every_text_in_our_packages_exists():
    ours = {each.file for each in messages() if each.file.partition("/")[0] in PACKAGES}

    assert "bookit/errors/__init__.py" in ours
    assert [file for file in ours if not (BASE_DIR / file).is_file()] == []


def test_only_jobs_have_a_queue():
    """People have a waitlist, as in the API."""
    files = {each.file for each in messages() if "queue" in each.text.lower()}

    assert files == {"bookit/jobs/admin.py", "procrastinate/contrib/django/models.py"}


def test_a_changed_text_loses_its_translation(monkeypatch):
    old = polib.POFile()
    old.append(polib.POEntry(msgid="Booked for %(start)s", msgstr="Gebucht für %(start)s"))
    monkeypatch.setattr(catalogues, "read", lambda language: old)

    new = catalogues.updated("de", [Message("a.py", "Booked on %(start)s")])

    assert [(entry.msgid, entry.msgstr) for entry in new] == [("Booked on %(start)s", "")]
    assert catalogues.untranslated(new) == ["Booked on %(start)s"]


def test_a_text_that_gets_a_plural_has_no_translation_of_the_plural(monkeypatch):
    old = polib.POFile()
    old.append(polib.POEntry(msgid="One seat", msgstr="Ein Platz"))
    monkeypatch.setattr(catalogues, "read", lambda language: old)

    new = catalogues.updated("de", [Message("a.py", "One seat", "%(n)d seats")])

    assert [entry.msgstr_plural for entry in new] == [{0: "Ein Platz", 1: ""}]
    assert catalogues.untranslated(new) == ["One seat"]


def test_control_a_wrong_placeholder_is_found():
    catalogue = polib.POFile()
    catalogue.append(polib.POEntry(msgid="%(name)s is here", msgstr="%(nombre)s está aquí"))
    catalogue.append(polib.POEntry(msgid="{until}", msgstr="bis"))
    catalogue.append(
        polib.POEntry(
            msgid="%(n)d seat",
            msgid_plural="%(n)d seats",
            msgstr_plural={0: "%(n)d Platz", 1: "Plätze"},
        )
    )

    assert catalogues.wrong_placeholders(catalogue) == ["%(name)s is here", "{until}", "%(n)d seat"]
