"""Finds the bookings of a user without asking every server, if the database is distributed.

The rows of a booking are on the server of its calendar. A copy of all bookings, distributed by
user, would lag behind the bookings, or would make every change of a booking a two-phase commit.
Instead, `BookedCalendar` stores on which calendars each user has booked. Only the servers of these
calendars are asked.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.db import connection
from django.db.models import Exists, F, OuterRef, QuerySet, UUIDField

from accounts.models import User
from bookings.models import BookedCalendar, Booking
from bookit.database.citus.extensions import FILLED_FROM_CALENDARS
from bookit.database.citus.nodes import is_distributed
from bookit.database.prepared import AnyOf, Bound, Change, Prepared
from bookit.database.rows import fetch

# If a user has booked on more calendars, all servers are asked.
MAX_CALENDARS = 100

# Stores the calendars of all bookings of users whose accounts have not been deleted.
# `remember_calendar` stores no calendar for bookings that were made before the database was
# distributed, or that were stored directly.
#
# Parameters: none.
# Columns: none.
FILL = """
INSERT INTO bookings_bookedcalendar (user_id, calendar_id)
SELECT DISTINCT booking.user_id, booking.calendar_id
FROM bookings_booking AS booking JOIN accounts_user AS owner ON owner.id = booking.user_id
WHERE owner.deleted_at IS NULL
ON CONFLICT DO NOTHING
"""
FILLED_FROM_CALENDARS.add("bookings_bookedcalendar")(FILL)

# Locks the holds of a user until the end of the transaction. If the database is distributed, this
# replaces a lock on the user's row. That row is on every server, and Citus would ask the first
# server for the lock, even if that server is down.
#
# Parameters: user_id uuid.
# Columns: one, without a value.
LOCK_HOLDS = "SELECT pg_advisory_xact_lock(hashtextextended('holds ' || %(user_id)s::uuid, 0))"

OWN_BOOKINGS = Prepared(lambda user_id: Booking.objects.filter(user=user_id), user_id=UUIDField())
ON_BOOKED_CALENDARS = Change(
    "booked calendars",
    lambda bookings, calendars: bookings.filter(AnyOf(F("calendar"), calendars)),
    {"calendars": ArrayField(UUIDField())},
)


def own_bookings(user_id: UUID) -> Bound:
    """Return the bookings of a user."""
    found = OWN_BOOKINGS(user_id=user_id)
    calendars = _booked_calendars(user_id)
    if calendars is None:
        return found
    return found.changed(ON_BOOKED_CALENDARS, calendars=calendars)


def live_holds_of(user_id: UUID, at: datetime) -> QuerySet[Booking]:
    """Return the holds of a user that have not expired."""
    return own_bookings(user_id).queryset().filter(hold_expires_at__gt=at)


def with_bookings(users: QuerySet[User]) -> QuerySet[User]:
    """Return those of the users who have bookings.

    If the database is distributed, users who have tried to book, or whose bookings were deleted,
    are included, too.
    """
    rows = BookedCalendar if is_distributed() else Booking
    return users.filter(Exists(rows._default_manager.filter(user=OuterRef("pk"))))


def lock_holds_of(user_id: UUID) -> None:
    """Let concurrent holds of a user wait for each other, so that all of them are counted."""
    if is_distributed():
        fetch(LOCK_HOLDS, {"user_id": user_id})
    else:
        User.objects.select_for_update(no_key=True).get(pk=user_id)


def remember_calendar(*, user_id: UUID, calendar_id: UUID) -> None:
    """Store that a user books on a calendar, if the database is distributed.

    Call this function before a booking is stored, or gets another user. If the caller has opened
    a transaction, the calendar and the booking are committed together. Otherwise, the calendar is
    committed first. So a booking is never missing from the lists of its user, but a refused booking
    may leave a calendar behind.
    """
    if not is_distributed():
        return
    # Reading first is cheap. If the caller has opened a transaction, an INSERT for every booking
    # would make each commit a two-phase commit.
    if not BookedCalendar.objects.filter(user=user_id, calendar_id=calendar_id).exists():
        row = BookedCalendar(user_id=user_id, calendar_id=calendar_id)
        BookedCalendar.objects.bulk_create([row], ignore_conflicts=True)


def remember_all_calendars() -> None:
    """Run `FILL`, if the database is distributed."""
    if is_distributed():
        with connection.cursor() as cursor:
            cursor.execute(FILL)


def forget_calendars(user_id: UUID) -> None:
    """Delete what `BookedCalendar` says about a user whose account is deleted."""
    BookedCalendar.objects.filter(user=user_id).delete()


def _booked_calendars(user_id: UUID) -> Sequence[UUID] | None:
    """Return the calendars on which a user has booked; None if all servers are to be asked."""
    if not is_distributed():
        return None
    rows = BookedCalendar.objects.filter(user=user_id).order_by("calendar_id")
    found = [*rows.values_list("calendar_id", flat=True)[: MAX_CALENDARS + 1]]
    return found if len(found) <= MAX_CALENDARS else None
