"""The texts of emails: BookIt's own, or the operator's.

A text can contain placeholders such as `{service}`. They are replaced one by one and never
formatted, because a format such as `{name.__class__}` would read attributes.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from bookings.mails.models import MailText
from bookings.mails.occasions import ATTENDEE, LABEL, NEWS, OFFERED, PROVIDER, News

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class UnknownKind(Exception):
    """No email has this kind."""


def in_use() -> dict[str, MailText]:
    """Return the operator's texts by the kind of email."""
    return {text.kind: text for text in MailText.objects.all()}


def text_of(kind: str) -> MailText | None:
    """Return the operator's text for a kind of email, with empty fields if there is none.

    Return None if no email has this kind.
    """
    if kind not in NEWS:
        return None
    return MailText.objects.filter(pk=kind).first() or MailText(kind=kind)


def applied(news: News, texts: Mapping[str, MailText]) -> News:
    """Return the news with the operator's words instead of BookIt's."""
    text = texts.get(news.kind)
    if text is None:
        return news
    return replace(
        news,
        label=text.label or news.label,
        attendee=news.attendee and (text.attendee or news.attendee),
        provider=news.provider and (text.provider or news.provider),
    )


def fields_of(news: News) -> list[str]:
    """Return the fields that the operator can change: the label, and a text for each reader."""
    return [name for name in (LABEL, ATTENDEE, PROVIDER) if getattr(news, name)]


def placeholders(news: News, field: str) -> list[str]:
    """Return the placeholders that a field can contain.

    The text for the customer cannot contain a name. An email to an unverified address contains
    nothing that a user wrote, and every other email already greets its reader by name.
    """
    if field == LABEL:
        return []
    names = ["service", "calendar", "when", "business"]
    names += ["name"] if field == PROVIDER else []
    return names + (["until"] if news is OFFERED else [])


def check(news: News, field: str, text: str) -> None:
    """Check that a field contains only known placeholders.

    Raises:
        ValidationError: the text contains another placeholder, or a single brace.
    """
    known = placeholders(news, field)
    unknown = [f"{{{name}}}" for name in PLACEHOLDER.findall(text) if name not in known]
    if not unknown and re.search(r"[{}]", PLACEHOLDER.sub("", text)):
        unknown = ["{"]
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


def change(*, kind: str, label: str, attendee: str, provider: str, at: datetime) -> MailText:
    """Store the operator's text for a kind of email. Empty fields stand for BookIt's own words.

    Raises:
        UnknownKind: no email has this kind.
        ValidationError: a text contains an unknown placeholder.
    """
    news = NEWS.get(kind)
    if news is None:
        raise UnknownKind
    words = {LABEL: label, ATTENDEE: attendee, PROVIDER: provider}
    for field, text in words.items():
        check(news, field, text)
    row, _is_new = MailText.objects.update_or_create(
        kind=kind, defaults={**words, "updated_at": at}
    )
    return row
