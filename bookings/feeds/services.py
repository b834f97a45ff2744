"""Calendar feeds: addresses that calendar programs follow, which cannot sign in.

An address holds a signed token that says whose feed it is and which of its addresses. The address
with names also says who asked for it, and answers only while that person keeps the calendar.
Nothing is stored of an address until it is renewed; then those before it are no longer valid.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.core import signing
from django.db import transaction
from django.db.models import F

from accounts.models import User
from bookings import ical
from bookings.feeds.models import Feed
from bookings.models import Booking
from bookit.database.rows import fetch
from catalog.models import Calendar

signer = signing.Signer(salt="bookings.feed", sep=".")

OWN, BUSY, NAMES = "own", "busy", "names-for"

# Nothing that began before is in a feed, and no more than so many entries, the earliest first.
PAST = timedelta(days=90)
MOST_ENTRIES = 5000

# Programs take a feed for all there is: what is left out of it is gone. So what was cancelled or
# expired is not there, and holds, which are for minutes, never are.
SHOWN = [
    *(Booking.Status.PENDING, Booking.Status.CONFIRMED),
    *(Booking.Status.COMPLETED, Booking.Status.NO_SHOW),
]

OWN_BOOKINGS = """
SELECT booking.id, booking.start_time, booking.end_time, booking.updated_at, booking.status,
    service.title, calendar.name
FROM bookings_booking AS booking
JOIN catalog_service AS service ON service.id = booking.service_id
JOIN catalog_calendar AS calendar ON calendar.id = booking.calendar_id
WHERE booking.user_id = %(user_id)s AND booking.status = ANY(%(shown)s)
    AND booking.start_time >= %(from)s
ORDER BY booking.start_time, booking.id LIMIT %(most)s
"""

# A slot keeps its time whether it is booked or not, and stands for all who are in it.
OF_CALENDAR = """
(
    SELECT slot.id, slot.start_time, slot.end_time,
        greatest(slot.created_at, (
            SELECT max(updated_at) FROM bookings_booking WHERE slot_id = slot.id
        )), 'confirmed', service.title, slot.capacity, ARRAY(
            SELECT coalesce(nullif(booking.attendee_name, ''), attendee.name)
            FROM bookings_booking AS booking JOIN accounts_user AS attendee
                ON attendee.id = booking.user_id
            WHERE booking.slot_id = slot.id AND booking.status = ANY(%(shown)s)
            ORDER BY booking.seat, booking.id
        )
    FROM bookings_slot AS slot JOIN catalog_service AS service ON service.id = slot.service_id
    WHERE slot.calendar_id = %(calendar_id)s AND slot.status = 'scheduled'
        AND slot.start_time >= %(from)s
    ORDER BY slot.start_time, slot.id LIMIT %(most)s
) UNION ALL (
    SELECT booking.id, booking.start_time, booking.end_time, booking.updated_at, booking.status,
        service.title, NULL, ARRAY[coalesce(nullif(booking.attendee_name, ''), attendee.name)]
    FROM bookings_booking AS booking
    JOIN catalog_service AS service ON service.id = booking.service_id
    JOIN accounts_user AS attendee ON attendee.id = booking.user_id
    WHERE booking.calendar_id = %(calendar_id)s AND booking.slot_id IS NULL
        AND booking.status = ANY(%(shown)s) AND booking.start_time >= %(from)s
    ORDER BY booking.start_time, booking.id LIMIT %(most)s
)
ORDER BY 2, 1 LIMIT %(most)s
"""


def own_token(*, user: User) -> str:
    """Return the token of a user's feed."""
    return signer.sign_object(_own(user))


def calendar_tokens(*, calendar: Calendar, reader: User) -> tuple[str, str]:
    """Return the tokens of a calendar's feed: of the busy times, and with names for `reader`."""
    busy, names = _of_calendar(calendar, None), _of_calendar(calendar, reader)
    return signer.sign_object(busy), signer.sign_object(names)


@transaction.atomic
def renew(*, owner_id: UUID) -> None:
    """Give the feed of a user or of a calendar another address, and let none before it be valid."""
    Feed.objects.get_or_create(pk=owner_id)
    Feed.objects.filter(pk=owner_id).update(version=F("version") + 1)


def own_feed(*, token: str, at: datetime) -> ical.CalendarFile:
    """Return the bookings of the user whose token this is.

    Raises:
        ObjectDoesNotExist: it is nobody's token, or not any more.
    """
    content = _content(token)
    user = User.objects.get(pk=content[1], is_active=True)
    if content != _own(user):
        raise User.DoesNotExist
    rows = _rows(OWN_BOOKINGS, at, user_id=user.pk)
    return ical.CalendarFile(
        [
            ical.Entry(
                uid=uid,
                start_time=start_time,
                end_time=end_time,
                updated_at=updated_at,
                summary=title,
                status=ical.STATUSES[status],
                description=f"{calendar_name}\nBooking {uid}",
            )
            for uid, start_time, end_time, updated_at, status, title, calendar_name in rows
        ],
        name="BookIt",
    )


def calendar_feed(*, calendar_id: UUID, token: str, at: datetime) -> ical.CalendarFile:
    """Return what a calendar's time is taken by; with names if the token says for whom.

    Raises:
        ObjectDoesNotExist: there is no such calendar, the token is not valid for it, or the
            person who asked for the names keeps the calendar no more.
    """
    content = _content(token)
    calendar = Calendar.objects.get(pk=calendar_id)
    reader = User.objects.get(pk=content[-1]) if content[0] == NAMES else None
    may_read = reader is None or reader.keeps(calendar.provider_id)
    if not may_read or content != _of_calendar(calendar, reader):
        raise Calendar.DoesNotExist
    rows = _rows(OF_CALENDAR, at, calendar_id=calendar_id)
    entry = _with_names if reader else _busy
    return ical.CalendarFile([entry(*row) for row in rows], name=calendar.name)


def booking_file(*, booking: Booking) -> ical.CalendarFile:
    """Return one booking as a calendar of its own."""
    return ical.CalendarFile(
        [
            ical.Entry(
                uid=booking.pk,
                start_time=booking.start_time,
                end_time=booking.end_time,
                updated_at=booking.updated_at,
                summary=booking.service.title,
                status=ical.STATUSES[booking.status],
                description=f"{booking.calendar.name}\nBooking {booking.pk}",
                sequence=max(0, booking.events.count() - 1),
                organizer=ical.platform(booking.calendar.name),
            )
        ],
        method="PUBLISH",
    )


def _busy(
    uid: UUID, start_time: datetime, end_time: datetime, updated_at: datetime, *_personal: Any
) -> ical.Entry:
    """Return the entry of a booking or a slot that says only when it is."""
    return ical.Entry(uid, start_time, end_time, updated_at, summary="Busy")


def _with_names(
    uid: UUID,
    start_time: datetime,
    end_time: datetime,
    updated_at: datetime,
    status: str,
    title: str,
    capacity: int | None,
    names: list[str],
) -> ical.Entry:
    """Return the entry of a booking or, if it has a capacity, of a slot, with who comes."""
    return ical.Entry(
        uid,
        start_time,
        end_time,
        updated_at,
        summary=(
            f"{title}: {', '.join(names)}"
            if capacity is None
            else f"{title} ({len(names)} of {capacity})"
        ),
        status=ical.STATUSES[status],
        description=f"Booking {uid}" if capacity is None else "\n".join(names),
    )


def _rows(text: str, at: datetime, **whose: UUID) -> list[Any]:
    parameters = {**whose, "shown": SHOWN, "from": at - PAST, "most": MOST_ENTRIES}
    return fetch(text, parameters)


def _own(user: User) -> list[Any]:
    return [OWN, str(user.pk), _version(user.pk)]


def _of_calendar(calendar: Calendar, reader: User | None) -> list[Any]:
    """Return what the token of a calendar says: of its busy times, or of its names for a reader."""
    pk, version = str(calendar.pk), _version(calendar.pk)
    return [NAMES, pk, version, str(reader.pk)] if reader else [BUSY, pk, version]


def _version(owner_id: UUID) -> int:
    return Feed.objects.filter(pk=owner_id).values_list("version", flat=True).first() or 0


def _content(token: str) -> list[Any]:
    """Return what a token says, if we have signed it; it is compared in constant time.

    Raises:
        Feed.DoesNotExist: we have not.
    """
    try:
        content: list[Any] = signer.unsign_object(token)
    except signing.BadSignature:
        raise Feed.DoesNotExist from None
    return content
