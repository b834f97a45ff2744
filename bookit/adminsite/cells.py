"""HTML for the cells of tables in the admin site: states, people, links and times."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.contrib.humanize.templatetags.humanize import naturaltime
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from bookit.times import time_of_day


def badge(state: str, words: Any = "") -> SafeString:
    """Return a state in words, with a class to which `admin.css` gives a colour."""
    return format_html('<span class="state state-{}">{}</span>', state, words or state)


def person(user: Any) -> SafeString:
    """Return a user's name and email address, or "a former user" if the user is deleted."""
    if user.deleted_at:
        return format_html("{}", _("a former user"))
    return format_html('{} <span class="below">{}</span>', user.name or "—", user.mailbox)


def link(path: str, words: Any) -> SafeString:
    """Return a link, or only its words if `path` is empty."""
    return format_html('<a href="{}">{}</a>', path, words) if path else format_html("{}", words)


def code(text: Any) -> SafeString:
    """Return a text as code, which wraps anywhere."""
    return format_html("<code>{}</code>", text)


def moment(time: datetime | None) -> SafeString | str:
    """Return a time as "3 minutes ago", with the exact time in UTC as its title."""
    if time is None:
        return ""
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        time.isoformat(),
        exactly(time, "UTC"),
        naturaltime(time),
    )


def exactly(time: datetime | None, zone: str) -> str:
    """Return a time in a zone, with the name of the zone: 1 Dec 2026, 10:00:00 (Europe/Lisbon)."""
    if time is None:
        return ""
    local = time.astimezone(ZoneInfo(zone))
    return f"{date_format(local, 'SHORT_DATE_FORMAT')}, {time_of_day(local, '%H:%M:%S')} ({zone})"
