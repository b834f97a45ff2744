"""Occasions: events of which a mail tells, with all that it says, and who gets one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from psycopg.rows import class_row

from accounts.models import has_verified_address, keeps_own
from bookings.models import Booking, BookingEvent
from bookit.database.rows import fetch

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
    "Moved", "Your booking has been moved.", "The booking for {name} has been moved."
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


OCCASIONS = f"""
SELECT event.id AS event_id, event.type, event.at, event.actor_id,
    (
        SELECT count(*) FROM bookings_bookingevent AS earlier
        WHERE earlier.booking_id = event.booking_id AND earlier.id < event.id
    ) AS sequence,
    event.data->>'status' AS status,
    (event.data->>'start_time')::timestamptz AS start_time,
    (event.data->>'end_time')::timestamptz AS end_time,
    (event.data->>'hold_expires_at')::timestamptz AS hold_expires_at,
    event.data->'was'->>'status' AS was_status,
    (event.data->'was'->>'start_time')::timestamptz AS was_start_time,
    (event.data->'was'->>'end_time')::timestamptz AS was_end_time,
    event.data->>'reason' AS reason,
    EXISTS (
        SELECT FROM bookings_bookingevent AS offer
        WHERE offer.booking_id = event.booking_id AND offer.type = 'booking.held'
          AND offer.data->'waitlist' = 'true'
    ) AS is_offer,
    booking.status = event.data->>'status'
        AND booking.start_time = (event.data->>'start_time')::timestamptz AS is_current,
    booking.status NOT IN ('held', 'pending', 'confirmed') AS is_over,
    booking.id AS booking_id, booking.attendee_name, booking.attendee_email, booking.notes,
    booking.price, booking.currency, service.title, calendar.name AS calendar_name,
    attendee.id AS user_id, attendee.name AS user_name, attendee.email AS user_email,
    attendee.timezone AS user_timezone, attendee.is_active AS user_is_active,
    {has_verified_address("attendee")} AS user_is_verified,
    provider.id AS provider_id, provider.name AS provider_name, provider.email AS provider_email,
    provider.timezone AS provider_timezone
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


def occasions(event_ids: Sequence[int]) -> list[Occasion]:
    """Return what there is to tell of events, but of bookings that are gone; one query."""
    return fetch(OCCASIONS, {"event_ids": event_ids}, class_row(Occasion))
