"""The texts of emails: BookIt's own, or the operator's.

The operator's words can be for every language or for one. Each field is taken from the text in the
reader's language, else from the text for every language, else from BookIt's own words.

A text can contain placeholders such as `{service}`. They are replaced one by one, and not by
`str.format`, because `str.format` would read an attribute for `{name.__class__}`.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from bookings.mails.models import MailText
from bookings.mails.occasions import ATTENDEE, LABEL, NEWS, OFFERED, PROVIDER, News
from bookit.database.retries import retried
from bookit.languages import SOURCE, closest, speaking

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def key_of(kind: str, language: str) -> str:
    """Return the key of a text. If `language` is empty, the text is for every language."""
    return f"{kind}.{language}" if language else kind


def is_known(key: str) -> bool:
    """Return whether a key is a known kind of email, alone or with a known language."""
    languages = ["", *dict(settings.LANGUAGES)]
    kind = MailText(key=key).kind
    return kind in NEWS and key in [key_of(kind, language) for language in languages]


def in_use() -> dict[str, MailText]:
    """Return the operator's texts by their keys."""
    return {text.key: text for text in MailText.objects.all()}


def text_of(key: str) -> MailText | None:
    """Return the operator's text with this key, or a text with empty fields if none is stored.

    Return None if no email has this kind, or if BookIt does not speak the language.
    """
    if not is_known(key):
        return None
    return MailText.objects.filter(pk=key).first() or MailText(key=key)


def applied(news: News, texts: Mapping[str, MailText]) -> News:
    """Return the news with the operator's words instead of BookIt's, in the current language.

    Args:
        texts: the operator's texts by their keys.
    """
    language = closest(get_language() or SOURCE)
    for text in (texts.get(news.kind), texts.get(key_of(news.kind, language))):
        news = _replaced(news, text) if text else news
    return news


def _replaced(news: News, text: MailText) -> News:
    return replace(
        news,
        label=text.label or news.label,
        attendee=news.attendee and (text.attendee or news.attendee),
        provider=news.provider and (text.provider or news.provider),
    )


def standard(text: MailText) -> dict[str, str]:
    """Return what is sent in place of each empty field of a text, in the language of the text.

    If the text is for every language, return BookIt's own words in the current language.
    """
    every = MailText.objects.filter(pk=text.kind) if text.language else ()
    with speaking(text.language or get_language() or SOURCE):
        news = applied(NEWS[text.kind], {each.key: each for each in every})
        return {name: str(getattr(news, name)) for name in (LABEL, ATTENDEE, PROVIDER)}


def fields_of(news: News) -> list[str]:
    """Return the fields that the operator can change: the label, and a text for each reader."""
    return [name for name in (LABEL, ATTENDEE, PROVIDER) if getattr(news, name)]


def placeholders(news: News, field: str) -> list[str]:
    """Return the placeholders that a field can contain.

    The text for the customer cannot contain the customer's name. An email to an unverified address
    must not contain it, and every other email already greets its reader by name.
    """
    if field == LABEL:
        return []
    names = ["service", "calendar", "when", "business"]
    names += ["name"] if field == PROVIDER else []
    return names + (["until"] if news is OFFERED else [])


def check(news: News, field: str, text: str) -> None:
    """Check that a field contains only known placeholders.

    Raises:
        ValidationError: the text contains another placeholder, or a brace that belongs to no
            placeholder.
    """
    known = placeholders(news, field)
    unknown = [f"{{{name}}}" for name in PLACEHOLDER.findall(text) if name not in known]
    stray = re.search(r"[{}]", PLACEHOLDER.sub("", text))
    if not unknown and stray:
        unknown = [stray[0]]
    if not unknown:
        return
    if not known:
        raise ValidationError(_("The subject cannot contain placeholders."), "placeholder")
    raise ValidationError(
        _("%(unknown)s is not a placeholder of this text. It can contain %(known)s."),
        "placeholder",
        {"unknown": unknown[0], "known": ", ".join(f"{{{name}}}" for name in known)},
    )


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return a text with its placeholders replaced."""
    return PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), str(text))


@retried
def change(*, key: str, label: str, attendee: str, provider: str, at: datetime) -> None:
    """Store the operator's text for a kind of email, in one language or for every language.

    Empty fields stand for the text for every language, or for BookIt's own words.

    Args:
        key: a key that `is_known`.

    Raises:
        ValidationError: as in `check`.
    """
    words = {LABEL: label, ATTENDEE: attendee, PROVIDER: provider}
    for field, text in words.items():
        check(NEWS[MailText(key=key).kind], field, text)
    MailText.objects.update_or_create(key=key, defaults={**words, "updated_at": at})
