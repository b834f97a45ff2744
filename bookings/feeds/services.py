"""Calendar feeds: URLs for calendar programs, which cannot sign in.

The URL of a feed contains a signed token. The token names the kind of URL, the owner of the feed (a
user or a calendar), and how often the URL was renewed (`Feed.version`). If the URL shows the names
of attendees, the token also names the user who requested the URL. Such a URL works only while that
user may see the names (`User.may`). It also becomes invalid when that user renews the URL of their
own feed.

Nothing is stored about a URL until it is renewed. Renewing a URL makes earlier URLs invalid.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.core import signing
from django.db import transaction
from django.db.models import DateTimeField, F, QuerySet
from psycopg.rows import namedtuple_row

from accounts.extensions import ON_NEW_OWNER
from accounts.models import User
from bookings import ical
from bookings.booked import own_bookings
from bookings.feeds.models import Feed
from bookings.models import Booking
from bookit.database.prepared import Change
from bookit.database.retries import retried
from bookit.database.rows import fetch
from catalog.models import Calendar

signer = signing.Signer(salt="bookings.feed", sep=".")

OWN, BUSY, NAMES = "own", "busy", "names-for"

# How far back a feed goes. Entries that started earlier are left out. If there are too many
# entries, the feed goes back less far, so that it still contains the next bookings.
PASTS = [timedelta(days=days) for days in (90, 30, 7, 1)]
# The maximum number of entries in a feed. If there are more since yesterday, the latest entries
# are left out.
MAX_ENTRIES = 5000
# An entry lists up to `MAX_NAMES` attendees, whose names have up to `MAX_CHARACTERS` characters
# together. Without these limits, a feed of large classes would have hundreds of megabytes.
MAX_NAMES = 100
MAX_CHARACTERS = 1000

# Keeps those bookings of a user that the user's feed shows, in the order of their start. Cancelled
# and expired bookings are left out, because calendar programs remove entries that disappear from a
# feed.
IN_OWN_FEED = Change(
    "own feed",
    lambda bookings, since: bookings.filter(
        status__in=Booking.BOOKED, start_time__gte=since
    ).order_by("start_time", "id"),
    {"since": DateTimeField()},
)


def _own_entries(bookings: QuerySet[Booking]) -> QuerySet[Booking, Any]:
    return bookings.values(
        *("id", "start_time", "end_time", "updated_at", "status"),
        title=F("service__title"),
        calendar_name=F("calendar__name"),
    )


# Reads the entries in the feed of a calendar. Each scheduled slot is one entry, even if nobody has
# booked it. Each booking that is not in a slot is also one entry.
#
# Parameters: calendar_id uuid, shown text[] (statuses of bookings), since timestamptz (the earliest
#     start), most bigint (the maximum number of entries), most_names bigint (the maximum number of
#     names of a slot; a booking that is not in a slot has one name).
# Columns: id uuid, start_time timestamptz, end_time timestamptz, updated_at timestamptz, status
#     text, title text, capacity int (null for a booking), names text[] (of the first attendees),
#     attendees bigint (the number of all attendees). The rows are in the order of start_time and
#     id.
CALENDAR_ENTRIES = """
SELECT * FROM (
    (
        SELECT slot.id, slot.start_time, slot.end_time,
            greatest(slot.updated_at, taken.updated_at) AS updated_at, 'confirmed' AS status,
            service.title, slot.capacity, ARRAY(
                SELECT coalesce(
                    nullif(booking.attendee_name, ''), nullif(account.name, ''), 'a former user'
                )
                FROM bookings_booking AS booking
                JOIN accounts_user AS account ON account.id = booking.user_id
                WHERE booking.calendar_id = %(calendar_id)s AND booking.slot_id = slot.id
                  AND booking.status = ANY(%(shown)s)
                ORDER BY booking.seat, booking.id LIMIT %(most_names)s
            ) AS names, taken.attendees
        FROM bookings_slot AS slot
        JOIN catalog_service AS service ON service.id = slot.service_id
        CROSS JOIN LATERAL (
            SELECT max(updated_at) AS updated_at,
                count(*) FILTER (WHERE status = ANY(%(shown)s)) AS attendees
            FROM bookings_booking WHERE calendar_id = %(calendar_id)s AND slot_id = slot.id
        ) AS taken
        WHERE slot.calendar_id = %(calendar_id)s AND slot.status = 'scheduled'
          AND slot.start_time >= %(since)s
        ORDER BY slot.start_time, slot.id LIMIT %(most)s
    ) UNION ALL (
        SELECT booking.id, booking.start_time, booking.end_time, booking.updated_at,
            booking.status, service.title, NULL,
            ARRAY[coalesce(
                nullif(booking.attendee_name, ''), nullif(account.name, ''), 'a former user'
            )], 1
        FROM bookings_booking AS booking
        JOIN catalog_service AS service ON service.id = booking.service_id
        JOIN accounts_user AS account ON account.id = booking.user_id
        WHERE booking.calendar_id = %(calendar_id)s AND booking.slot_id IS NULL
          AND booking.status = ANY(%(shown)s) AND booking.start_time >= %(since)s
        ORDER BY booking.start_time, booking.id LIMIT %(most)s
    )
) AS entry
ORDER BY start_time, id LIMIT %(most)s
"""


def own_token(*, user: User) -> str:
    """Return the token of a user's feed."""
    return signer.sign_object(_own_content(user))


def calendar_tokens(*, calendar: Calendar, reader: User) -> tuple[str, str]:
    """Return two tokens of a calendar's feed: without names, and with names for `reader`."""
    busy, names = _calendar_content(calendar, None), _calendar_content(calendar, reader)
    return signer.sign_object(busy), signer.sign_object(names)


@retried
@transaction.atomic
def renew(*, owner_id: UUID) -> None:
    """Give the feed of a user or a calendar a new URL. Earlier URLs become invalid."""
    Feed.objects.get_or_create(pk=owner_id)
    Feed.objects.filter(pk=owner_id).update(version=F("version") + 1)


@ON_NEW_OWNER.add("feed")
def _renew_own_feed(*, owner: User) -> None:
    renew(owner_id=owner.pk)


def own_feed(*, token: str, at: datetime) -> ical.CalendarFile:
    """Return the bookings of the user that a token names.

    Raises:
        ObjectDoesNotExist: the token is not valid, or the user is no longer active.
    """
    content = _content(token)
    user = User.objects.get(pk=content[1], is_active=True)
    if content != _own_content(user):
        raise User.DoesNotExist

    def read(since: datetime) -> list[Any]:
        found = own_bookings(user.pk).changed(IN_OWN_FEED, since=since)
        return found.shaped(_own_entries)[:MAX_ENTRIES]

    return ical.CalendarFile(
        [
            ical.Entry(
                uid=row["id"],
                start_time=row["start_time"],
                end_time=row["end_time"],
                updated_at=row["updated_at"],
                summary=row["title"],
                status=ical.STATUSES[row["status"]],
                description=f"{row['calendar_name']}\nBooking {row['id']}",
            )
            for row in _rows_that_fit(read, at=at)
        ],
        name="BookIt",
    )


def calendar_feed(*, calendar_id: UUID, token: str, at: datetime) -> ical.CalendarFile:
    """Return the busy times of a calendar, with the attendees' names if the token names a reader.

    Raises:
        ObjectDoesNotExist: the calendar does not exist, the token is not valid for the
            calendar, or the reader may no longer see the names.
    """
    content = _content(token)
    calendar = Calendar.objects.get(pk=calendar_id)
    reader = User.objects.get(pk=content[3]) if content[0] == NAMES else None
    may_read = reader is None or reader.may("bookings.view_feed", calendar.provider_id)
    if not may_read or content != _calendar_content(calendar, reader):
        raise Calendar.DoesNotExist
    values = {
        "calendar_id": calendar_id,
        "shown": Booking.BOOKED,
        "most": MAX_ENTRIES,
        "most_names": MAX_NAMES if reader else 0,
    }
    entry = _with_names if reader else _busy

    def read(since: datetime) -> list[Any]:
        return fetch(CALENDAR_ENTRIES, {**values, "since": since}, namedtuple_row)

    rows = _rows_that_fit(read, at=at)
    return ical.CalendarFile([entry(row) for row in rows], name=calendar.name)


def _rows_that_fit(read: Callable[[datetime], list[Any]], *, at: datetime) -> list[Any]:
    """Return the rows of the longest of `PASTS` that has fewer than `MAX_ENTRIES` rows.

    If none has, return the first `MAX_ENTRIES` rows of the shortest.

    Args:
        read: returns the first `MAX_ENTRIES` rows since a time.
    """
    rows: list[Any] = []
    for past in PASTS:
        rows = read(at - past)
        if len(rows) < MAX_ENTRIES:
            break
    return rows


def booking_file(*, booking: Booking) -> ical.CalendarFile:
    """Return a calendar that contains only one booking."""
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
                # The number of events before the latest one, as in emails (`Occasion.sequence`).
                sequence=max(0, booking.events.count() - 1),
                organizer=ical.platform(booking.calendar.name),
            )
        ],
        method="PUBLISH",
    )


def _busy(row: Any) -> ical.Entry:
    """Turn a row of `CALENDAR_ENTRIES` into an entry without a title and without names."""
    return ical.Entry(row.id, row.start_time, row.end_time, row.updated_at, summary="Busy")


def _with_names(row: Any) -> ical.Entry:
    """Turn a row of `CALENDAR_ENTRIES` into an entry that shows its service and attendees."""
    if row.capacity is None:
        summary = f"{row.title}: {', '.join(row.names)}"
        description = f"Booking {row.id}"
    else:
        summary = f"{row.title} ({row.attendees} of {row.capacity})"
        description = _names_that_fit(row)
    return ical.Entry(
        row.id,
        row.start_time,
        row.end_time,
        row.updated_at,
        summary=summary,
        status=ical.STATUSES[row.status],
        description=description,
    )


def _names_that_fit(row: Any) -> str:
    """Return the names of the attendees, as many as are allowed, and the number of the others."""
    shown: list[str] = []
    left = MAX_CHARACTERS
    for name in row.names:
        left -= len(name)
        if left < 0:
            break
        shown.append(name)
    others = row.attendees - len(shown)
    return "\n".join([*shown, *([f"and {others} more"] if others else [])])


def _own_content(user: User) -> list[Any]:
    """Return the content of the token of a user's feed."""
    return [OWN, str(user.pk), *_versions(user.pk)]


def _calendar_content(calendar: Calendar, reader: User | None) -> list[Any]:
    """Return the content of a token of a calendar's feed.

    With a reader, the feed shows names. Without a reader, it shows only busy times.
    """
    if not reader:
        return [BUSY, str(calendar.pk), *_versions(calendar.pk)]
    version, readers_version = _versions(calendar.pk, reader.pk)
    content = [NAMES, str(calendar.pk), version, str(reader.pk)]
    # The version of the reader's own feed makes the URL invalid when the reader renews that feed,
    # or when the reader's account gets a new owner. A version of 0 is left out, so that older
    # tokens, which lack this version, stay valid.
    return [*content, readers_version] if readers_version else content


def _versions(*owner_ids: UUID) -> list[int]:
    renewed = dict(Feed.objects.filter(pk__in=owner_ids).values_list("pk", "version"))
    return [renewed.get(owner_id, 0) for owner_id in owner_ids]


def _content(token: str) -> list[Any]:
    """Return the content of a token. The signature is compared in constant time.

    Raises:
        Feed.DoesNotExist: the signature is not valid.
    """
    try:
        content: list[Any] = signer.unsign_object(token)
    except signing.BadSignature:
        raise Feed.DoesNotExist from None
    return content
