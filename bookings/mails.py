"""Mails about bookings: who gets which, when, and what it says.

Each event defers a job for each mail. The worker reads what the mail is about in one query and
sends it. A mail may come twice, for a worker may die when it has sent one; by its Message-ID, which
follows from the event and the reader, it is known for the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
from django.core.mail import EmailMultiAlternatives
from django.db import connection
from django.template.loader import render_to_string

from accounts.models import keeps_own
from bookings import ical
from bookings.models import Booking, BookingEvent
from bookit.times import zone

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
    "Your request has arrived. It becomes a booking once it is confirmed; until then the time is"
    " kept for you.",
    "{name} would like to book. Confirm or cancel it before it starts; after that it expires.",
)
BOOKED = News("Confirmed", "Your booking is confirmed.", "{name} has booked.")
CONFIRMED = News(
    "Confirmed", "Your booking is confirmed.", "The booking of {name} has been confirmed."
)
RESCHEDULED = News("Moved", "Your booking has been moved.", "The booking of {name} has been moved.")
CANCELLED = News(
    "Cancelled",
    "Your booking has been cancelled.",
    "The booking of {name} has been cancelled.",
)
EXPIRED = News(
    "Not confirmed",
    "Nobody confirmed your request before its time came, so there is no booking. Sorry.",
)
REMINDED = News("Reminder", "This is to remind you of your booking.")
OFFERED = News(
    "A seat for you",
    "You are next in line, and a seat has become free. It is kept for you until {until}: confirm it"
    " by then, or it goes to whoever comes after you.",
)

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
    booking.id, booking.attendee_name, booking.attendee_email, booking.notes, booking.price,
    booking.currency, service.title, calendar.name,
    attendee.id, attendee.name, attendee.email, attendee.timezone, attendee.is_active,
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
SELECT procrastinate_defer_jobs_v1(array_agg(ROW(
    'default', %(task)s, 0, NULL, job.queueing_lock, job.args::jsonb, NULL
)::procrastinate_job_to_defer_v1))
FROM unnest(%(locks)s::text[], %(args)s::text[]) AS job (queueing_lock, args)
WHERE NOT EXISTS (
    SELECT FROM procrastinate_jobs AS waiting
    WHERE waiting.queueing_lock = job.queueing_lock AND waiting.status = 'todo'
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
    """Defer a job for each mail that events ask for, unless it waits already."""
    ids = [event.pk for event in events]
    _defer(
        "bookings.send_mail",
        [
            (occasion, audience, {"event_id": occasion.event_id, "audience": audience})
            for occasion in occasions(ids)
            for audience in occasion.audiences
        ],
    )


def enqueue_composed(booking: Booking) -> None:
    """Defer the mails about a booking that wait still whole: it will be gone when they are sent."""
    rows = connection.fetch(PENDING, {"booking_id": booking.pk})  # type: ignore[attr-defined]
    waiting = {*rows}
    _defer(
        "bookings.send_composed_mail",
        [
            (occasion, audience, {"mail": asdict(compose(occasion, audience))})
            for occasion in occasions([event_id for event_id, _ in rows])
            for audience in occasion.audiences
            if waiting & {(occasion.event_id, None), (occasion.event_id, audience)}
        ],
    )


def send(*, event_id: int, audience: str) -> None:
    """Send the mail about an event, unless the booking is gone or nobody wants to know any more.

    Raises:
        OSError: the mail server does not take it (`smtplib.SMTPException` is one).
    """
    for occasion in occasions([event_id]):
        if audience in occasion.audiences:
            compose(occasion, audience).message().send()


def occasions(event_ids: Sequence[int]) -> list[Occasion]:
    """Return what there is to tell of events, but of bookings that are gone; one query."""
    rows = connection.fetch(OCCASIONS, {"event_ids": event_ids})  # type: ignore[attr-defined]
    return [Occasion(*row) for row in rows]


def compose(occasion: Occasion, audience: str) -> Mail:
    """Return the mail to one of those whom an event concerns, in their own time zone."""
    news = occasion.news
    assert news is not None  # noqa: S101 - else it has no audiences
    attendee_name = _line(occasion.attendee_name or occasion.user_name)
    if audience == ATTENDEE:
        reader = ical.Party(attendee_name, occasion.attendee_email or occasion.user_email)
        tz_name, lead = occasion.user_timezone, news.attendee
    else:
        reader = ical.Party(_line(occasion.provider_name or ""), occasion.provider_email or "")
        tz_name, lead = occasion.provider_timezone or "UTC", news.provider
    title, calendar_name = _line(occasion.title), _line(occasion.calendar_name)
    until = occasion.hold_expires_at
    lead = lead.format(name=attendee_name, until=until and _moment(until, tz_name))
    if news is RESCHEDULED and occasion.status == Status.PENDING:
        lead += " It is still to be confirmed."
    rows = {
        "What": title,
        "With": calendar_name if calendar_name != title else "",
        "When": _period(occasion.start_time, occasion.end_time, tz_name),
        "Before": (
            _period(occasion.was_start_time, occasion.was_end_time, tz_name)
            if occasion.was_start_time and occasion.was_end_time
            else ""
        ),
        # No more of the attendee than the booking shows: not the address of their account.
        "Who": ", ".join(filter(None, [attendee_name, occasion.attendee_email])),
        "Price": f"{occasion.price} {occasion.currency}" if occasion.price else "",
        "Notes": _indented(occasion.notes),
        "Reason": _indented(occasion.reason or ""),
        "Booking": str(occasion.booking_id),
    }
    local = occasion.start_time.astimezone(zone(tz_name))
    subject = f"{news.label}: {title}, {local:%a} {local.day} {local:%b %Y}, {_clock(local)}"
    words = {
        "subject": subject,
        "name": reader.name,
        "lead": lead,
        "rows": [(label, value) for label, value in rows.items() if value],
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
    )


def _defer(task: str, jobs: list[tuple[Occasion, str, dict[str, Any]]]) -> None:
    if not jobs:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            DEFER,
            {
                "task": task,
                "locks": [
                    f"{task}/{occasion.event_id}/{audience}" for occasion, audience, _ in jobs
                ],
                "args": [orjson.dumps(args).decode() for _, _, args in jobs],
            },
        )


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
