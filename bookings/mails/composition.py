"""Composes emails, with times in the time zone of the user who booked or of the provider.

Anybody can enter any email address for an attendee, or register with it. Therefore, an email to an
unverified address contains no names, phone numbers or notes, and no reasons that people wrote. It
does contain the title of the service and the name of the calendar, but without anything that an
email client would turn into a link. Only the operator's own words (`bookings.mails.texts`,
BUSINESS_NAME) and links to the operator's front end are left as they are.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext

from accounts.emails import mailbox
from bookings import ical
from bookings.events import SLOT_CANCELLED
from bookings.mails import texts as mail_texts
from bookings.mails.models import MailText
from bookings.mails.occasions import (
    ATTENDEE,
    FORMER,
    LAPSED,
    OFFERED,
    RESCHEDULED,
    WITHDRAWN,
    News,
    Occasion,
    Status,
    Type,
)
from bookings.models import Booking
from bookit import money
from bookit.languages import SOURCE, speaking
from bookit.mails.layout import Letter, Link
from bookit.mails.limits import Limit, hashed
from bookit.times import time_of_day, zone

UNVERIFIED = gettext_lazy(
    "You receive this email because somebody gave this address when booking. If you do not know "
    "about the booking, you can ignore this email."
)

# Matches the characters that make email clients turn the text around them into a link.
LINKING = re.compile(r"://|//|@|:(?=[^\W\d]|\+)|[.\u2024\u3002\uff0e\uff61](?=[^\W\d])")


@dataclass(frozen=True)
class Mail:
    """An email as it is sent.

    Args:
        calendar: the booking in iCalendar format, or empty.
        method: the iCalendar method, which tells the reader's calendar client what to do with the
            booking: `REQUEST` adds or updates it, and `CANCEL` removes it.
    """

    to: str
    subject: str
    text: str
    html: str
    calendar: str
    method: str
    message_id: str
    booking_id: str
    audience: str
    is_verified: bool

    def limits(self) -> list[Limit]:
        """Return the limits that the email counts towards."""
        most = (
            settings.MAILS_PER_VERIFIED_ADDRESS if self.is_verified else settings.MAILS_PER_ADDRESS
        )
        of_address = Limit("address", f"address/{hashed(self.to)}", most)
        if not self.booking_id:  # The email is about the end of a waitlist.
            return [of_address]
        # An email about the end of a booking may exceed the limit of the booking by one, so that
        # readers learn of a cancellation even after many moves. An email to a former attendee may
        # not, or else it could use up this one email.
        is_to_former = self.audience == FORMER
        most = settings.MAILS_PER_BOOKING + (self.method == "CANCEL" and not is_to_former)
        # All attendees share a limit, so that nobody can use a booking to write to many people.
        audience = ATTENDEE if is_to_former else self.audience
        return [Limit("booking", f"booking/{self.booking_id}/{audience}", most), of_address]

    def message(self) -> EmailMultiAlternatives:
        """Return the email as a Django message."""
        message = EmailMultiAlternatives(
            self.subject,
            self.text,
            to=[self.to],
            headers={"Message-ID": self.message_id, "Auto-Submitted": "auto-generated"},
        )
        message.attach_alternative(self.html, "text/html")
        if self.calendar:
            message.attach("booking.ics", self.calendar, f"text/calendar; method={self.method}")
        return message


def compose(occasion: Occasion, audience: str, texts: Mapping[str, MailText]) -> Mail:
    """Return the email that tells the attendee or the provider about an event, in their language.

    Args:
        texts: the operator's own texts by their keys; see `bookings.mails.texts.applied`.
    """
    is_attendee = audience == ATTENDEE
    with speaking(occasion.language if is_attendee else occasion.provider_language or SOURCE):
        return _composed(occasion, audience, texts)


def compose_farewell(handover: Occasion, texts: Mapping[str, MailText]) -> Mail:
    """Return the email that tells the attendee that they no longer have the booking.

    Args:
        handover: the event that gives the booking to another attendee, read before the booking
            changes.
        texts: the operator's own texts by their keys; see `bookings.mails.texts.applied`.
    """
    cancellation = replace(
        handover,
        type=Type.CANCELLED,
        status=Status.CANCELLED,
        # If both attendees have the same calendar, the entry of the new attendee counts as newer.
        at=handover.at - timedelta(seconds=1),
        is_handover=False,
        is_current=False,
        is_over=True,
    )
    mail = compose(cancellation, ATTENDEE, texts)
    # The Message-ID must differ from that of the email to the new attendee.
    own_id = message_id(handover.event_id, FORMER, handover.booking_id)
    return replace(mail, audience=FORMER, message_id=own_id)


def _composed(occasion: Occasion, audience: str, texts: Mapping[str, MailText]) -> Mail:
    kind = occasion.news
    assert kind is not None  # noqa: S101 - the callers skip events without news
    news = mail_texts.applied(kind, texts)
    is_verified = occasion.is_verified(audience)
    # This name never contains a link, because it stands in BookIt's own sentences. The name of a
    # user who has deleted their account is empty.
    attendee_name = unlinked(
        line(occasion.attendee_name or occasion.user_name or _("A former user"))
    )
    attendee_email = occasion.attendee_email or mailbox(occasion.user_email)
    who = [attendee_name, attendee_email, occasion.attendee_phone or occasion.user_phone]
    if audience == ATTENDEE:
        reader = ical.Party(attendee_name if is_verified else "", attendee_email)
        tz_name, lead = occasion.user_timezone, news.attendee
    else:
        reader = ical.Party(line(occasion.provider_name or ""), occasion.provider_email or "")
        tz_name, lead = occasion.provider_timezone or "UTC", news.provider
    title, calendar_name = line(occasion.title), line(occasion.calendar_name)
    reason = occasion.reason or ""
    if not is_verified:
        title, calendar_name = unlinked(title), unlinked(calendar_name)
        reason = reason if reason == SLOT_CANCELLED else ""
    if reason == SLOT_CANCELLED:
        reason = _(SLOT_CANCELLED)
    when = period(occasion.start_time, occasion.end_time, tz_name)
    until = occasion.hold_expires_at
    values = {
        **placeholder_values(title, calendar_name, when),
        "name": attendee_name,
        "until": _moment(until, tz_name) if until else "",
    }
    lead = mail_texts.filled(lead, values)
    if kind is RESCHEDULED and occasion.status == Status.PENDING and occasion.is_current:
        lead += " " + _("It still has to be confirmed.")
    before = (
        period(occasion.was_start_time, occasion.was_end_time, tz_name)
        if occasion.was_start_time and occasion.was_end_time
        else ""
    )
    rows = {
        pgettext("email", "What"): title,
        pgettext("email", "With"): calendar_name if calendar_name != title else "",
        pgettext("email", "When"): when,
        pgettext("email", "Before"): before if before != when else "",
        pgettext("email", "Who"): ", ".join(filter(None, who)) if is_verified else "",
        pgettext("email", "Price"): money.written(occasion.price, occasion.currency)
        if occasion.price
        else "",
        pgettext("email", "Notes"): _indented(occasion.notes) if is_verified else "",
        pgettext("email", "Reason"): _indented(reason),
        pgettext("email", "Booking"): str(occasion.booking_id),
    }
    letter = Letter(
        subject=subject_of(news, title, occasion.start_time, tz_name),
        heading=str(news.label),
        name=reader.name,
        lead=lead,
        rows=[(label, value) for label, value in rows.items() if value],
        key=when,
        reference=str(occasion.booking_id),
        links=_links(occasion, audience),
        note="" if is_verified else str(UNVERIFIED),
    )
    method = "CANCEL" if occasion.status in (Status.CANCELLED, Status.EXPIRED) else "REQUEST"
    is_offer = kind in (OFFERED, LAPSED, WITHDRAWN)
    entry = ical.Entry(
        uid=occasion.booking_id,
        start_time=occasion.start_time,
        end_time=occasion.end_time,
        updated_at=occasion.at,
        summary=title if audience == ATTENDEE else f"{title}: {attendee_name}",
        status=ical.STATUSES[occasion.status],
        description="{}\n{}".format(
            calendar_name, _("Booking %(id)s") % {"id": occasion.booking_id}
        ),
        sequence=occasion.sequence,
        organizer=ical.platform(calendar_name),
        attendee=reader,
    )
    return Mail(
        to=reader.email,
        subject=letter.subject,
        text=letter.text(),
        html=letter.html(),
        # Emails about an offer, and about its end, have no calendar file. Otherwise, the entry of
        # an offer that has expired could stay in the reader's calendar.
        calendar="" if is_offer else ical.CalendarFile([entry], method=method).text(),
        method=method,
        message_id=message_id(occasion.event_id, audience, occasion.booking_id),
        booking_id=str(occasion.booking_id),
        audience=audience,
        is_verified=is_verified,
    )


def _links(occasion: Occasion, audience: str) -> list[Link]:
    """Return the links to the booking in the operator's front end.

    The front end asks its readers to sign in. Therefore, an attendee who is not the user who booked
    gets no links. A booking that is over gets none either, because there is nothing left to do.
    """
    is_open = occasion.status in Booking.UNFINISHED
    if (
        not settings.PUBLIC_URL
        or (audience == ATTENDEE and not occasion.is_to_user)
        or not is_open
        or occasion.is_over
    ):
        return []
    page = f"{settings.PUBLIC_URL}/bookings/{occasion.booking_id}"
    if occasion.status == Status.HELD:
        return [Link(_("Confirm your seat"), page)]
    links = [Link(_("See the booking"), page)]
    if audience == ATTENDEE and occasion.is_changeable:
        links += [Link(_("Move it"), f"{page}/move"), Link(_("Cancel it"), f"{page}/cancel")]
    return links


def message_id(*parts: object) -> str:
    """Return a Message-ID with the domain of the platform's email address."""
    domain = ical.platform("").email.rpartition("@")[2] or "bookit"
    return f"<{'.'.join(map(str, parts))}@{domain}>"


def placeholder_values(title: str, calendar_name: str, when: str) -> dict[str, str]:
    """Return the values of the placeholders that every text can contain."""
    return {
        "service": title,
        "calendar": calendar_name,
        "when": when,
        "business": settings.BUSINESS_NAME,
    }


def subject_of(news: News, title: str, start_time: datetime, tz_name: str) -> str:
    """Return the subject of an email: `Confirmed: Haircut, Tue 1 Dec 2026, 10:00`."""
    local = start_time.astimezone(zone(tz_name))
    day = date_format(local, "DAY_FORMAT")
    return f"{line(str(news.label))}: {title}, {day}, {time_of_day(local)}"


def unlinked(text: str) -> str:
    """Return a text without anything that email clients turn into a link.

    Clients look for a scheme, an at sign, or a dot before a letter. A space after each of these,
    and after characters that some clients treat as a dot, is enough to prevent a link.
    """
    return " ".join(LINKING.sub(r"\g<0> ", text).split())


def line(text: str) -> str:
    """Return a text as a single line, because it may be used in a header."""
    return " ".join(text.split())


def _indented(text: str) -> str:
    """Indent all lines except the first, so that they do not look like BookIt's own lines."""
    return "\n    ".join(text.strip().splitlines())


def period(start_time: datetime, end_time: datetime, tz_name: str) -> str:
    """Return a period in words: `Tuesday, 1 December 2026, 10:00-11:00 (Europe/Lisbon)`."""
    start, end = (moment.astimezone(zone(tz_name)) for moment in (start_time, end_time))
    if start.date() == end.date():
        return f"{_day(start)}, {time_of_day(start)}-{time_of_day(end)} ({tz_name})"
    return f"{_day(start)}, {time_of_day(start)} - {_day(end)}, {time_of_day(end)} ({tz_name})"


def _moment(moment: datetime, tz_name: str) -> str:
    local = moment.astimezone(zone(tz_name))
    return f"{_day(local)}, {time_of_day(local)} ({tz_name})"


def _day(local: datetime) -> str:
    return date_format(local, "LONG_DAY_FORMAT")
