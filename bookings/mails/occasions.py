"""Occasions: events, with the content and the readers of the emails that they cause, if any."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy
from psycopg.rows import class_row

from accounts.emails import mailbox
from accounts.models import has_verified_address, keeps_own
from bookings.holds import announced_sql
from bookings.models import Booking, BookingEvent
from bookit.database.citus.nodes import is_distributed
from bookit.database.rows import fetch

# The readers of emails. The fields of `News` with the texts for them have the same names.
ATTENDEE, PROVIDER = "attendee", "provider"
# The reader of one kind of email: the attendee of a booking until somebody else was named.
FORMER = "former"
# The field of `News` with the beginning of the subject.
LABEL = "label"

Type = BookingEvent.Type
Status = Booking.Status


@dataclass(frozen=True)
class News:
    """What a kind of email says: the beginning of its subject, and a text for each reader.

    A reader whose text is empty gets no email. The operator can change the words; see
    `bookings.mails.texts`.
    """

    kind: str
    label: Any
    attendee: Any
    provider: Any = ""


REQUESTED = News(
    "requested",
    pgettext_lazy("email", "Requested"),
    _(
        "We have received your request. It becomes a booking once it is confirmed. Until then, "
        "the time is kept for you."
    ),
    _(
        "{name} would like to book. Confirm or cancel the request before the start; otherwise it "
        "expires."
    ),
)
BOOKED = News(
    "booked",
    pgettext_lazy("email", "Confirmed"),
    _("Your booking is confirmed."),
    _("{name} has booked."),
)
CONFIRMED = News(
    "confirmed",
    pgettext_lazy("email", "Confirmed"),
    _("Your booking is confirmed."),
    _("The booking for {name} has been confirmed."),
)
RESCHEDULED = News(
    "moved",
    pgettext_lazy("email", "Moved"),
    _("Your booking has been moved."),
    _("The booking for {name} has been moved."),
)
CANCELLED = News(
    "cancelled",
    pgettext_lazy("email", "Cancelled"),
    _("Your booking has been cancelled."),
    _("The booking for {name} has been cancelled."),
)
EXPIRED = News(
    "not-confirmed",
    pgettext_lazy("email", "Not confirmed"),
    _("Sorry, your request was not confirmed before the start time, so there is no booking."),
)
REMINDED = News(
    "reminder",
    pgettext_lazy("email", "Reminder"),
    _("This is a reminder of your booking."),
)
OFFERED = News(
    "seat-offered",
    pgettext_lazy("email", "A seat for you"),
    _(
        "A seat has become free, and you are next in line. It is kept for you until {until}. "
        "Confirm it by then; otherwise it goes to the next person in line."
    ),
)
LAPSED = News(
    "seat-passed-on",
    pgettext_lazy("email", "Your seat is no longer kept"),
    _(
        "You did not confirm the seat that was kept for you, so it goes to the next person in "
        "line. You are no longer on the waitlist."
    ),
)
WITHDRAWN = News(
    "seat-withdrawn",
    pgettext_lazy("email", "Your seat is no longer kept"),
    _(
        "Sorry, the seat that was kept for you is no longer available. You are no longer on the "
        "waitlist."
    ),
)
WAITLIST_CANCELLED = News(
    "queue-cancelled",
    pgettext_lazy("email", "Cancelled"),
    _(
        "You were waiting for a seat, but this session has been cancelled. There is nothing you "
        "have to do."
    ),
)
WAITLIST_ENDED = News(
    "queue-ended",
    pgettext_lazy("email", "No seat became free"),
    _("Sorry, no seat became free in time. The waitlist of this session has ended."),
)

NEWS = {
    news.kind: news
    for news in (
        REQUESTED,
        BOOKED,
        CONFIRMED,
        RESCHEDULED,
        CANCELLED,
        EXPIRED,
        REMINDED,
        OFFERED,
        LAPSED,
        WITHDRAWN,
        WAITLIST_CANCELLED,
        WAITLIST_ENDED,
    )
}

NEWS_OF_TYPE: dict[str, News] = {
    Type.CONFIRMED: CONFIRMED,
    Type.RESCHEDULED: RESCHEDULED,
    Type.CANCELLED: CANCELLED,
    Type.EXPIRED: EXPIRED,
}


def handover_sql(event: str) -> str:
    """Return the SQL condition that an event has given a booking to another attendee.

    The booking was pending or confirmed, and had not started. A hold does not count, because nobody
    has been told about a booking yet (perhaps about an offered seat). After the start, it is too
    late.

    Args:
        event: the name of the event's row in the statement.
    """
    return (
        f"({event}.type = 'booking.changed' AND {event}.data->'changed' ? 'attendee_email'"
        f" AND {event}.data->>'status' IN ('pending', 'confirmed')"
        f" AND {event}.at < ({event}.data->>'start_time')::timestamptz)"
    )


@dataclass(frozen=True)
class Occasion:
    """An event, and everything that an email about it says.

    `status`, `start_time`, `end_time` and `hold_expires_at` are the values right after the event.

    Args:
        sequence: the number of earlier events of the booking.
        is_announced: False if the event cancels or expires a hold. Webhooks do not report such an
            event, and only for an offered seat is there an email; see `bookings.holds.ANNOUNCED`.
        is_offer: whether the booking began as a seat that was offered to a user on the waitlist.
        is_current: whether the booking still has the status and start time of the event.
        language: the language of the booking or, if it has none, of the user.
        is_over: whether the booking is no longer held, pending or confirmed.
        is_handover: whether the event has given the booking to another attendee.
        handover_id, handed_over_at: the last earlier event that has given the booking to another
            attendee, if any, and its time.
        was_handed_over: whether a later event has given the booking to another attendee. The email
            about that event tells the attendee about the booking, so earlier events tell only the
            provider.
        user_is_verified: whether the email address of the user's account is verified.
        reason: the reason in the event or, if the user cancelled the booking, in the booking.
        provider_id: None if the calendar has no provider, or if its provider is inactive, or is
            now neither a provider nor an admin; see `accounts.models.keeps_own`.
    """

    event_id: UUID
    type: str
    at: datetime
    actor_id: UUID | None
    sequence: int
    status: str
    start_time: datetime
    end_time: datetime
    hold_expires_at: datetime | None
    is_announced: bool
    was_start_time: datetime | None
    was_end_time: datetime | None
    reason: str | None
    is_offer: bool
    is_current: bool
    is_over: bool
    is_handover: bool
    handover_id: UUID | None
    handed_over_at: datetime | None
    was_handed_over: bool
    calendar_id: UUID
    booking_id: UUID
    attendee_name: str
    attendee_email: str
    attendee_phone: str
    notes: str
    price: Decimal
    currency: str
    title: str
    calendar_name: str
    user_id: UUID
    user_name: str
    user_email: str
    user_phone: str
    user_timezone: str
    language: str
    user_is_active: bool
    user_is_verified: bool
    provider_id: UUID | None
    provider_name: str | None
    provider_email: str | None
    provider_timezone: str | None
    provider_language: str | None
    cancellation_notice_minutes: int

    @property
    def news(self) -> News | None:
        """What the email says, or None if the event causes no email."""
        if self.type == Type.CREATED or (
            # `bookings.mails.services` gives an occasion of a handover the status of a later event.
            self.is_handover and not self.is_over and self.status in Booking.EXPECTED
        ):
            return BOOKED if self.status == Status.CONFIRMED else REQUESTED
        if self.type == Type.HELD:
            return OFFERED if self.is_offer and self.is_current else None
        if self.type == Type.REMINDED:
            return REMINDED if self.is_current else None
        if self.is_offer and self.type == Type.EXPIRED and not self.is_announced:
            return LAPSED
        if not self.is_announced:
            return WITHDRAWN if self.withdraws_offer else None
        if self.type == Type.RESCHEDULED and self.is_over:
            return None
        return NEWS_OF_TYPE.get(self.type)

    @property
    def is_changeable(self) -> bool:
        """Whether the booking is not over, and its user could change it right after the event."""
        notice = timedelta(minutes=self.cancellation_notice_minutes)
        return (
            self.status in Booking.EXPECTED
            and not self.is_over
            and self.at + notice < self.start_time
        )

    @property
    def is_covered(self) -> bool:
        """Whether the email about a handover usually tells the attendee about the event, too."""
        given = self.handed_over_at
        return not self.is_handover and given is not None and self.at < given + settings.MAIL_PAUSE

    @property
    def withdraws_offer(self) -> bool:
        """Whether somebody other than the user has cancelled a seat that was offered to the user.

        The email with the offer said until when the seat is kept. If somebody else ends the offer
        earlier, the user needs another email. If the user cancels it, no email is needed.
        """
        return self.is_offer and self.type == Type.CANCELLED and self.actor_id != self.user_id

    @property
    def is_to_user(self) -> bool:
        """Whether emails to the attendee go to the email address of the user who booked."""
        return self.attendee_email.lower() in ("", self.user_email)

    @property
    def audiences(self) -> list[str]:
        """The readers: the attendee, and the provider unless the provider caused the event.

        A reader for whom the email has no text is left out.

        When the booking is given to another attendee, the provider gets no email. The email to the
        former attendee is composed separately (`bookings.mails.services.enqueue_farewell`).

        A provider gets no email when a seat is offered, and therefore none when the offer expires
        or is withdrawn.
        """
        if self.news is None:
            return []
        gets_email = {
            ATTENDEE: self.news.attendee
            and not self.was_handed_over
            and bool(self.attendee_email or (self.user_is_active and mailbox(self.user_email))),
            PROVIDER: self.news.provider
            and not self.is_handover
            and self.provider_id is not None
            and self.provider_id != self.actor_id,
        }
        return [audience for audience, gets_it in gets_email.items() if gets_it]

    def is_verified(self, audience: str) -> bool:
        """Return whether this reader's email address counts as verified. A provider's always does.

        Args:
            audience: the reader, `attendee` or `provider`.
        """
        return audience == PROVIDER or (self.is_to_user and self.user_is_verified)


# Reads the occasions of events, except events whose booking has been deleted.
#
# Parameters: calendar_ids uuid[] (the calendars of the events), event_ids uuid[].
# Columns: the fields of `Occasion`, under the same names.
OCCASIONS = f"""
SELECT event.id AS event_id, event.type, event.at, event.actor_id,
    (
        SELECT count(*) FROM bookings_bookingevent AS earlier
        WHERE earlier.calendar_id = event.calendar_id AND earlier.booking_id = event.booking_id
          AND earlier.id < event.id
    ) AS sequence,
    event.data->>'status' AS status,
    (event.data->>'start_time')::timestamptz AS start_time,
    (event.data->>'end_time')::timestamptz AS end_time,
    (event.data->>'hold_expires_at')::timestamptz AS hold_expires_at,
    {announced_sql("event")} AS is_announced,
    (event.data->'was'->>'start_time')::timestamptz AS was_start_time,
    (event.data->'was'->>'end_time')::timestamptz AS was_end_time,
    COALESCE(
        event.data->>'reason',
        CASE event.type WHEN 'booking.cancelled' THEN NULLIF(booking.cancellation_reason, '') END
    ) AS reason,
    EXISTS (
        SELECT 1 FROM bookings_bookingevent AS offer
        WHERE offer.calendar_id = event.calendar_id AND offer.booking_id = event.booking_id
          AND offer.type = 'booking.held' AND offer.data->'waitlist' = 'true'
    ) AS is_offer,
    booking.status = event.data->>'status'
        AND booking.start_time = (event.data->>'start_time')::timestamptz AS is_current,
    booking.status NOT IN ('held', 'pending', 'confirmed') AS is_over,
    {handover_sql("event")} AS is_handover,
    handover.id AS handover_id, handover.at AS handed_over_at,
    EXISTS (
        SELECT 1 FROM bookings_bookingevent AS later
        WHERE later.calendar_id = event.calendar_id AND later.booking_id = event.booking_id
          AND later.id > event.id AND {handover_sql("later")}
    ) AS was_handed_over,
    booking.calendar_id, booking.id AS booking_id, booking.attendee_name, booking.attendee_email,
    booking.attendee_phone, booking.notes, booking.price, booking.currency, service.title,
    calendar.name AS calendar_name, account.id AS user_id, account.name AS user_name,
    account.email AS user_email, account.phone AS user_phone,
    account.timezone AS user_timezone,
    COALESCE(NULLIF(booking.language, ''), account.language) AS language,
    account.is_active AS user_is_active,
    {has_verified_address("account")} AS user_is_verified,
    provider.id AS provider_id, provider.name AS provider_name, provider.email AS provider_email,
    provider.timezone AS provider_timezone, provider.language AS provider_language,
    service.cancellation_notice_minutes
FROM bookings_bookingevent AS event
LEFT JOIN LATERAL (
    SELECT id, at FROM bookings_bookingevent AS earlier
    WHERE earlier.calendar_id = event.calendar_id AND earlier.booking_id = event.booking_id
      AND earlier.id < event.id AND {handover_sql("earlier")}
    ORDER BY id DESC LIMIT 1
) AS handover ON true
JOIN bookings_booking AS booking
    ON booking.calendar_id = event.calendar_id AND booking.id = event.booking_id
JOIN catalog_service AS service ON service.id = booking.service_id
JOIN catalog_calendar AS calendar ON calendar.id = booking.calendar_id
JOIN accounts_user AS account ON account.id = booking.user_id
LEFT JOIN accounts_user AS provider ON provider.id = calendar.provider_id
    AND {keeps_own("provider")}
WHERE event.calendar_id = ANY(%(calendar_ids)s::uuid[])
  AND event.id = ANY(%(event_ids)s::uuid[])
ORDER BY event.id
"""  # noqa: S608 - only our own SQL conditions are interpolated, no values


# Reads the occasions of events on one calendar, if the database is distributed. Citus runs this
# statement on the calendar's server only if each part of the statement names the calendar.
#
# Parameters: calendar_id uuid, event_ids uuid[].
# Columns: as in OCCASIONS.
OCCASIONS_ON_CALENDAR = OCCASIONS.replace(" = event.calendar_id", " = %(calendar_id)s").replace(
    "ANY(%(calendar_ids)s::uuid[])", "%(calendar_id)s"
)


def occasions(calendar_ids: Iterable[UUID], event_ids: Iterable[UUID]) -> list[Occasion]:
    """Return the occasions of events on these calendars, ordered by the ids of the events.

    Events of deleted bookings have no occasion. This is one query or, in a distributed database,
    one query for each calendar.
    """
    ids = [*event_ids]
    if is_distributed():
        found = [
            occasion
            for calendar_id in {*calendar_ids}
            for occasion in fetch(
                OCCASIONS_ON_CALENDAR,
                {"calendar_id": calendar_id, "event_ids": ids},
                class_row(Occasion),
            )
        ]
        return sorted(found, key=lambda occasion: occasion.event_id)
    named = {"calendar_ids": [*calendar_ids], "event_ids": ids}
    return fetch(OCCASIONS, named, class_row(Occasion))
