"""Emails to users whose waitlist has ended without a seat for them.

As in `bookings.mails.composition`, the user's name never contains a link. An email to an unverified
address leaves out this name, and contains no link in the title or the name of the calendar.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.utils.translation import gettext_lazy, pgettext

from bookings.mails import texts as mail_texts
from bookings.mails.composition import (
    Mail,
    line,
    message_id,
    period,
    placeholder_values,
    subject_of,
    unlinked,
)
from bookings.mails.models import MailText
from bookings.mails.occasions import ATTENDEE, WAITLIST_CANCELLED, WAITLIST_ENDED
from bookit.languages import speaking
from bookit.mails.layout import Letter
from bookit.mails.sending import send_within_limits

UNVERIFIED = gettext_lazy(
    "You receive this email because somebody joined a waitlist with this address. If you do not "
    "know about it, you can ignore this email."
)


@dataclass(frozen=True)
class Place:
    """A place on a waitlist, and everything that the email about the end of the waitlist says.

    Args:
        is_cancelled: True if the session was cancelled, False if it can no longer be booked.
    """

    entry_id: UUID
    user_name: str
    user_email: str
    user_timezone: str
    user_language: str
    user_is_verified: bool
    title: str
    calendar_name: str
    start_time: datetime
    end_time: datetime
    is_cancelled: bool


def compose_end(place: Place, texts: Mapping[str, MailText]) -> Mail:
    """Return the email that tells a user that they no longer wait for a seat, in their language.

    Args:
        texts: the operator's own texts by their keys; see `bookings.mails.texts.applied`.
    """
    with speaking(place.user_language):
        return _composed(place, texts)


def _composed(place: Place, texts: Mapping[str, MailText]) -> Mail:
    news = mail_texts.applied(WAITLIST_CANCELLED if place.is_cancelled else WAITLIST_ENDED, texts)
    title, calendar_name = line(place.title), line(place.calendar_name)
    if not place.user_is_verified:
        title, calendar_name = unlinked(title), unlinked(calendar_name)
    when = period(place.start_time, place.end_time, place.user_timezone)
    rows = {
        pgettext("email", "What"): title,
        pgettext("email", "With"): calendar_name if calendar_name != title else "",
        pgettext("email", "When"): when,
    }
    letter = Letter(
        subject=subject_of(news, title, place.start_time, place.user_timezone),
        heading=str(news.label),
        name=unlinked(line(place.user_name)) if place.user_is_verified else "",
        lead=mail_texts.filled(news.attendee, placeholder_values(title, calendar_name, when)),
        rows=[(label, value) for label, value in rows.items() if value],
        key=when,
        note="" if place.user_is_verified else str(UNVERIFIED),
    )
    return Mail(
        to=place.user_email,
        subject=letter.subject,
        text=letter.text(),
        html=letter.html(),
        calendar="",
        method="",
        message_id=message_id("queue", place.entry_id),
        booking_id="",
        audience=ATTENDEE,
        is_verified=place.user_is_verified,
    )


def send_end(*, place: Place, at: datetime) -> None:
    """Send the email about the end of a waitlist, unless the limit of its address has been reached.

    Raises:
        OSError: the mail server did not accept the email. `smtplib.SMTPException` is an `OSError`.
    """
    mail = compose_end(place, mail_texts.in_use())
    send_within_limits(
        mail.message(),
        limits=mail.limits(),
        at=at,
        entry_id=str(place.entry_id),
    )
