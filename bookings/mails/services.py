"""Mails about bookings: who gets which, when, and what it says.

Each event defers a job for each mail. The worker reads what the mail is about and sends it, unless
a limit is reached (`mail_limits`). A mail may come twice, because a worker may die when it has sent
one; its Message-ID follows from the event and the reader, so it can be known for the same.

A booking can be moved again and again. So a move is told a little later, and moves that follow it
until then are told with it: where the booking was before, and where it is now. Nothing else happens
to a booking more than once, and is told at once.

Anybody can name any address as an attendee's, or register with it. An address that nobody has
verified gets nothing that a user wrote: no names, notes or reasons. What providers and admins chose
stays, without anything that a mail program would turn into a link.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.db import connection
from django.template.loader import render_to_string

from accounts.models import has_verified_address, keeps_own
from bookings import ical
from bookings.events import SLOT_CANCELLED
from bookings.mails import limits as mail_limits
from bookings.models import Booking, BookingEvent
from bookit import money
from bookit.times import zone

logger = logging.getLogger(__name__)

ATTENDEE, PROVIDER = "attendee", "provider"

Type = BookingEvent.Type
Status = Booking.Status


@dataclass(frozen=True)
class News:
    """What a kind of mail says: the first word of its subject, and a sentence for each reader.

    Who has none gets no mail.
    """

    label: str
    attendee: str
    provider: str = ""


REQUESTED = News(
    "Requested",
    "We have received your request. It becomes a booking once it is confirmed. Until then, the "
    "time is kept for you.",
    (
        "{name} would like to book. Confirm or cancel the request before the start; otherwise it "
        "expires."
    ),
)
BOOKED = News("Confirmed", "Your booking is confirmed.", "{name} has booked.")
CONFIRMED = News(
    "Confirmed", "Your booking is confirmed.", "The booking for {name} has been confirmed."
)
RESCHEDULED = News(
    "Moved", "Your booking has been moved.", ("The booking for {name} has been moved.")
)
CANCELLED = News(
    "Cancelled",
    "Your booking has been cancelled.",
    "The booking for {name} has been cancelled.",
)
EXPIRED = News(
    "Not confirmed",
    "Sorry, your request was not confirmed before its start, so there is no booking.",
)
REMINDED = News("Reminder", "This is a reminder of your booking.")
OFFERED = News(
    "A seat for you",
    "A seat has become free, and you are next in line. It is kept for you until {until}. Confirm "
    "it by then; otherwise it goes to the next person in line.",
)

UNVERIFIED = (
    "You receive this mail because somebody gave this address when booking. If you do not know "
    "about the booking, you can ignore this mail."
)

# What makes a link of the text after it.
LINKING = re.compile(r"://|//|@|:(?=[^\W\d]|\+)|[.\u2024\u3002\uff0e\uff61](?=[^\W\d])")

# A job's arguments, and when it is to run: None for at once.
Job = tuple[dict[str, Any], datetime | None]

ALWAYS: dict[str, News] = {
    Type.CONFIRMED: CONFIRMED,
    Type.RESCHEDULED: RESCHEDULED,
    Type.CANCELLED: CANCELLED,
    Type.EXPIRED: EXPIRED,
}


@dataclass(frozen=True)
class Occasion:
    """An event, and all that a mail about it says: the booking as it was then.

    Args:
        sequence: how many events of the booking came before.
        is_current: its status and its start are still those of the event.
        is_over: it is cancelled or expired by now, or its time has come.
        user_is_verified: somebody has made sure that the address of its user's account is theirs.
        provider_id: None also where the calendar's provider keeps it no more.
    """

    event_id: int
    type: str
    at: datetime
    actor_id: UUID | None
    sequence: int
    status: str
    start_time: datetime
    end_time: datetime
    hold_expires_at: datetime | None
    was_status: str | None
    was_start_time: datetime | None
    was_end_time: datetime | None
    reason: str | None
    is_offer: bool
    is_current: bool
    is_over: bool
    booking_id: UUID
    attendee_name: str
    attendee_email: str
    notes: str
    price: Decimal
    currency: str
    title: str
    calendar_name: str
    user_id: UUID
    user_name: str
    user_email: str
    user_timezone: str
    user_is_active: bool
    user_is_verified: bool
    provider_id: UUID | None
    provider_name: str | None
    provider_email: str | None
    provider_timezone: str | None

    @property
    def news(self) -> News | None:
        """What there is to say about it, if anybody wants to know."""
        if self.type == Type.CREATED:
            return BOOKED if self.status == Status.CONFIRMED else REQUESTED
        if self.type == Type.HELD:
            return OFFERED if self.is_offer and self.is_current else None
        if self.type == Type.REMINDED:
            return REMINDED if self.is_current else None
        if self.was_status == Status.HELD and not (
            self.is_offer and self.type == Type.CANCELLED and self.actor_id != self.user_id
        ):
            # Of a hold that ends nobody has been told that it began; and of an offer until when.
            return None
        if self.type == Type.RESCHEDULED and self.is_over:
            return None
        return ALWAYS.get(self.type)

    @property
    def audiences(self) -> list[str]:
        """Who gets a mail: the attendee, as a receipt, and the provider of what others did."""
        if self.news is None:
            return []
        asked = {
            ATTENDEE: bool(self.attendee_email) or self.user_is_active,
            PROVIDER: self.news.provider
            and self.provider_id is not None
            and self.provider_id != self.actor_id,
        }
        return [audience for audience, is_told in asked.items() if is_told]

    def is_verified(self, audience: str) -> bool:
        """Return whether the address of a reader is known to be theirs."""
        own = self.attendee_email.lower() in ("", self.user_email)
        return audience == PROVIDER or (own and self.user_is_verified)


# In the order of the fields above.
OCCASIONS = f"""
SELECT event.id, event.type, event.at, event.actor_id, (
        SELECT count(*) FROM bookings_bookingevent AS earlier
        WHERE earlier.booking_id = event.booking_id AND earlier.id < event.id
    ),
    event.data->>'status',
    (event.data->>'start_time')::timestamptz, (event.data->>'end_time')::timestamptz,
    (event.data->>'hold_expires_at')::timestamptz, event.data->'was'->>'status',
    (event.data->'was'->>'start_time')::timestamptz, (event.data->'was'->>'end_time')::timestamptz,
    event.data->>'reason', EXISTS (
        SELECT FROM bookings_bookingevent AS offer
        WHERE offer.booking_id = event.booking_id AND offer.type = 'booking.held'
          AND offer.data->'waitlist' = 'true'
    ),
    booking.status = event.data->>'status'
        AND booking.start_time = (event.data->>'start_time')::timestamptz,
    booking.status NOT IN ('held', 'pending', 'confirmed'),
    booking.id, booking.attendee_name, booking.attendee_email, booking.notes, booking.price,
    booking.currency, service.title, calendar.name,
    attendee.id, attendee.name, attendee.email, attendee.timezone, attendee.is_active,
    {has_verified_address("attendee")},
    provider.id, provider.name, provider.email, provider.timezone
FROM bookings_bookingevent AS event
JOIN bookings_booking AS booking ON booking.id = event.booking_id
JOIN catalog_service AS service ON service.id = booking.service_id
JOIN catalog_calendar AS calendar ON calendar.id = booking.calendar_id
JOIN accounts_user AS attendee ON attendee.id = booking.user_id
LEFT JOIN accounts_user AS provider ON provider.id = calendar.provider_id
    AND {keeps_own("provider")}
WHERE event.id = ANY(%(event_ids)s)
ORDER BY event.id
"""  # noqa: S608 - names of columns and roles, no values

# All at once, but for those that wait already. Who enqueues the same at the same moment fails here
# as a whole, and is tried again.
DEFER = """
SELECT enqueue_job('mails', %(task)s, job.args::jsonb, job.queueing_lock, job.scheduled_at)
FROM unnest(%(locks)s::text[], %(args)s::text[], %(times)s::timestamptz[])
    AS job (queueing_lock, args, scheduled_at)
WHERE NOT EXISTS (
    SELECT FROM procrastinate_jobs AS waiting
    WHERE waiting.queueing_lock = job.queueing_lock AND waiting.status = 'todo'
)
"""

# The last move of a booking, and all that has happened since.
SINCE_LAST_MOVE = """
SELECT event.id FROM bookings_bookingevent AS event
WHERE event.booking_id = %(booking_id)s AND event.id >= (
    SELECT max(move.id) FROM bookings_bookingevent AS move
    WHERE move.booking_id = %(booking_id)s AND move.type = 'booking.rescheduled'
)
"""

# The events of a booking that nobody has been told of, with whom, or nothing for all. The job that
# tells of one is there to be seen from the moment at which the event is.
PENDING = """
SELECT event.id, job.args->>'audience'
FROM bookings_bookingevent AS event JOIN procrastinate_jobs AS job ON CASE job.task_name
    WHEN 'bookings.follow_up' THEN job.args->'event_ids' @> to_jsonb(event.id)
    WHEN 'bookings.send_mail' THEN (job.args->>'event_id')::bigint = event.id
END
WHERE event.booking_id = %(booking_id)s AND job.status IN ('todo', 'doing')
ORDER BY event.id
"""


@dataclass(frozen=True)
class Mail:
    """A mail as it is sent.

    Args:
        calendar: the booking in iCalendar, or empty.
        method: what the reader's calendar is to do with it.
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

    def limits(self) -> list[mail_limits.Limit]:
        """Return the limits that it counts against."""
        return mail_limits.limits_of(
            booking_id=self.booking_id,
            audience=self.audience,
            address=self.to,
            is_verified=self.is_verified,
            is_last=self.method == "CANCEL",
        )

    def message(self) -> EmailMultiAlternatives:
        """Return it as Django sends it."""
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


def enqueue(events: Iterable[BookingEvent]) -> None:
    """Defer a job for each mail that events ask for, unless it waits already.

    Of the moves of a booking one job waits at a time, that of the first.
    """
    task = "bookings.send_mail"
    jobs: dict[str, Job] = {}
    for occasion in occasions([event.pk for event in events]):
        is_move = occasion.type == Type.RESCHEDULED
        what = occasion.booking_id if is_move else occasion.event_id
        scheduled_at = occasion.at + settings.MAIL_PAUSE if is_move else None
        for audience in occasion.audiences:
            args = {"event_id": occasion.event_id, "audience": audience}
            jobs.setdefault(f"{task}/{what}/{audience}", (args, scheduled_at))
    _defer(task, jobs)


def enqueue_composed(booking: Booking) -> None:
    """Defer the mails about a booking that wait still whole: it will be gone when they are sent."""
    rows = connection.fetch(PENDING, {"booking_id": booking.pk})  # type: ignore[attr-defined]
    waiting = {*rows}
    task = "bookings.send_composed_mail"
    jobs: dict[str, Job] = {}
    for occasion in occasions([event_id for event_id, _ in rows]):
        if occasion.type == Type.RESCHEDULED:
            continue  # Where it was to be is of no interest any more.
        for audience in occasion.audiences:
            if waiting & {(occasion.event_id, None), (occasion.event_id, audience)}:
                mail = {"mail": asdict(compose(occasion, audience))}
                jobs[f"{task}/{occasion.event_id}/{audience}"] = (mail, None)
    _defer(task, jobs)


def send(*, event_id: int, audience: str, at: datetime) -> None:
    """Send the mail about an event, unless the booking is gone or nobody wants to know any more.

    Raises:
        OSError: the mail server does not take it (`smtplib.SMTPException` is one).
    """
    for occasion in occasions([event_id]):
        is_move = occasion.type == Type.RESCHEDULED
        told = _with_later_moves(occasion, audience) if is_move else occasion
        if told is not None and audience in told.audiences:
            deliver(compose(told, audience), at=at)


def deliver(mail: Mail, *, at: datetime) -> None:
    """Send a mail, unless one of its limits is reached.

    Raises:
        OSError: the mail server does not take it (`smtplib.SMTPException` is one).
    """
    limits = mail.limits()
    reached = mail_limits.take(limits, at=at)
    if reached:
        logger.warning(
            "mail withheld: the limit of its %s has been reached",
            reached[0].name,
            extra={"booking_id": mail.booking_id, "audience": mail.audience},
        )
        return
    try:
        mail.message().send()
    except BaseException:
        # It is tried again, and counted then.
        mail_limits.give_back(limits, at=at)
        raise


def _with_later_moves(first: Occasion, audience: str) -> Occasion | None:
    """Return the last move of a booking as one from where it was before the first.

    None where the booking is gone, or where it was confirmed since: the mail about that says when
    it is.
    """
    rows = connection.fetch(  # type: ignore[attr-defined]
        SINCE_LAST_MOVE, {"booking_id": first.booking_id}
    )
    found = occasions([event_id for (event_id,) in rows])
    if any(each.type == Type.CONFIRMED and audience in each.audiences for each in found):
        return None
    return next(
        (
            replace(last, was_start_time=first.was_start_time, was_end_time=first.was_end_time)
            for last in found[:1]
        ),
        None,
    )


def occasions(event_ids: Sequence[int]) -> list[Occasion]:
    """Return what there is to tell of events, but of bookings that are gone; one query."""
    rows = connection.fetch(OCCASIONS, {"event_ids": event_ids})  # type: ignore[attr-defined]
    return [Occasion(*row) for row in rows]


def compose(occasion: Occasion, audience: str) -> Mail:
    """Return the mail to one of those whom an event concerns, in their own time zone."""
    news = occasion.news
    assert news is not None  # noqa: S101 - else it has no audiences
    is_verified = occasion.is_verified(audience)
    attendee_name = unlinked(_line(occasion.attendee_name or occasion.user_name))
    if audience == ATTENDEE:
        address = occasion.attendee_email or occasion.user_email
        reader = ical.Party(attendee_name if is_verified else "", address)
        tz_name, lead = occasion.user_timezone, news.attendee
    else:
        reader = ical.Party(_line(occasion.provider_name or ""), occasion.provider_email or "")
        tz_name, lead = occasion.provider_timezone or "UTC", news.provider
    title, calendar_name = _line(occasion.title), _line(occasion.calendar_name)
    reason = occasion.reason or ""
    if not is_verified:
        title, calendar_name = unlinked(title), unlinked(calendar_name)
        reason = reason if reason == SLOT_CANCELLED else ""
    until = occasion.hold_expires_at
    lead = lead.format(name=attendee_name, until=until and _moment(until, tz_name))
    if news is RESCHEDULED and occasion.status == Status.PENDING and occasion.is_current:
        lead += " It still has to be confirmed."
    before = (
        _period(occasion.was_start_time, occasion.was_end_time, tz_name)
        if occasion.was_start_time and occasion.was_end_time
        else ""
    )
    when = _period(occasion.start_time, occasion.end_time, tz_name)
    rows = {
        "What": title,
        "With": calendar_name if calendar_name != title else "",
        "When": when,
        "Before": before if before != when else "",
        # No more of the attendee than the booking shows: not the address of their account.
        "Who": (
            ", ".join(filter(None, [attendee_name, occasion.attendee_email])) if is_verified else ""
        ),
        "Price": money.written(occasion.price, occasion.currency) if occasion.price else "",
        "Notes": _indented(occasion.notes) if is_verified else "",
        "Reason": _indented(reason),
        "Booking": str(occasion.booking_id),
    }
    local = occasion.start_time.astimezone(zone(tz_name))
    subject = f"{news.label}: {title}, {local:%a} {local.day} {local:%b %Y}, {_clock(local)}"
    words = {
        "subject": subject,
        "name": reader.name,
        "lead": lead,
        "rows": [(label, value) for label, value in rows.items() if value],
        "note": "" if is_verified else UNVERIFIED,
    }
    is_over = occasion.status in (Status.CANCELLED, Status.EXPIRED)
    method = "CANCEL" if is_over else "REQUEST"
    organizer = ical.platform(calendar_name)
    entry = ical.Entry(
        uid=occasion.booking_id,
        start_time=occasion.start_time,
        end_time=occasion.end_time,
        updated_at=occasion.at,
        summary=title if audience == ATTENDEE else f"{title}: {attendee_name}",
        status=ical.STATUSES[occasion.status],
        description=f"{calendar_name}\nBooking {occasion.booking_id}",
        sequence=occasion.sequence,
        organizer=organizer,
        attendee=reader,
    )
    return Mail(
        to=reader.email,
        subject=subject,
        text=render_to_string("bookings/mails/mail.txt", words),
        html=render_to_string("bookings/mails/mail.html", words),
        # Not of an offer: nothing would take it out of a diary again if it passes on.
        calendar="" if news is OFFERED else ical.Calendar([entry], method=method).text(),
        method=method,
        message_id=(
            f"<{occasion.event_id}.{audience}.{occasion.booking_id}"
            f"@{organizer.email.rpartition('@')[2] or 'bookit'}>"
        ),
        booking_id=str(occasion.booking_id),
        audience=audience,
        is_verified=is_verified,
    )


def _defer(task: str, jobs: dict[str, Job]) -> None:
    """Defer jobs, each under its queueing lock."""
    if not jobs:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            DEFER,
            {
                "task": task,
                "locks": [*jobs],
                "args": [orjson.dumps(args).decode() for args, _ in jobs.values()],
                "times": [scheduled_at for _, scheduled_at in jobs.values()],
            },
        )


def unlinked(text: str) -> str:
    """Return a text with nothing in it that mail programs turn into a link.

    They do so with what has a scheme, an at sign, or a dot before a letter. A blank after each of
    these, and after what some of them take for a dot, is enough.
    """
    return " ".join(LINKING.sub(r"\g<0> ", text).split())


def _line(text: str) -> str:
    """Return a text as one line, for it may stand in a header."""
    return " ".join(text.split())


def _indented(text: str) -> str:
    """Return a text whose lines, but for the first, cannot be taken for those of the mail."""
    return "\n    ".join(text.strip().splitlines())


def _period(start_time: datetime, end_time: datetime, tz_name: str) -> str:
    """Return a period in words: `Tuesday, 1 December 2026, 10:00-11:00 (Europe/Lisbon)`."""
    start, end = (moment.astimezone(zone(tz_name)) for moment in (start_time, end_time))
    if start.date() == end.date():
        return f"{_day(start)}, {_clock(start)}-{_clock(end)} ({tz_name})"
    return f"{_day(start)}, {_clock(start)} - {_day(end)}, {_clock(end)} ({tz_name})"


def _moment(moment: datetime, tz_name: str) -> str:
    local = moment.astimezone(zone(tz_name))
    return f"{_day(local)}, {_clock(local)} ({tz_name})"


def _day(local: datetime) -> str:
    return f"{local:%A}, {local.day} {local:%B %Y}"


def _clock(local: datetime) -> str:
    """Return the time of day; of one that the clocks show twice also which of the two it is."""
    shown_twice = local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
    return f"{local:%H:%M %Z}" if shown_twice else f"{local:%H:%M}"
