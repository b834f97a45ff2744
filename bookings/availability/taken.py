"""What is taken around a window: the SQL that reads it, and the errors for a time that is taken.

If the database is not distributed, reading takes one statement, whatever the number of services,
days and bookings. In a distributed database, it takes one statement for the terms, and one for each
calendar.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import namedtuple_row

from bookings.availability.terms import TERMS_COLUMNS, Terms, terms_from, terms_of
from bookings.holds import unexpired_sql
from bookit.database.citus.nodes import is_distributed
from bookit.database.rows import fetch
from bookit.errors import Conflict
from catalog.models import Service


class BookingConflict(Conflict):
    """This time is already booked."""

    code = "booking_conflict"


class SlotFull(Conflict):
    """Every seat in this slot is taken or promised to users on the waitlist."""

    code = "slot_full"


# The SQL condition for a row of `bookings_occupancy` that is on the calendar of a service, can
# collide with starts in the window, and is not the booking `ignored`.
IN_WINDOW = """
    calendar_id = searched.calendar_id
    AND upper(blocked) > %(from)s::timestamptz - searched.before
    AND lower(blocked) < %(until)s::timestamptz + searched.after
    AND id IS DISTINCT FROM %(ignored)s
"""


def colliding_starts(period: str) -> str:
    """Return SQL for the range of starts that collide with `period`, an SQL expression."""
    return f"tstzrange(lower({period}) - searched.after, upper({period}) + searched.before, '()')"


def microseconds(instant: str) -> str:
    """Return SQL for the microseconds since 1970 of `instant`, an SQL expression."""
    return f"(extract(epoch FROM {instant}) * 1000000)::bigint"


# Finds what lies in the window on the calendar of a service.
#
# A booking that starts at s blocks [s - before, s + after), where `after` includes the duration.
# This period overlaps the taken period [t, u) if and only if t - after < s < u + before. The query
# distinguishes seats only if the service has more than one. `range_agg` merges overlapping ranges,
# so a start that overlaps two bookings of the same seat loses only one seat.
#
# With OFFSET, PostgreSQL reads the slots of each service of the search separately. Without OFFSET,
# the planner may read all slots that start in the window, also those of other services.
#
# This text follows a FROM clause with a row `searched` for each service: id uuid, calendar_id uuid,
# is_open bool (whether it is in open mode), several bool (whether it has several seats), before
# interval (the buffer before), after interval (the duration and the buffer after).
#
# Parameters: from timestamptz, until timestamptz (the window); ignored uuid (a booking, or null);
#     at timestamptz (now).
# Columns: taken bigint[][], a list of [seat, lower, upper]: the seat is taken for starts between
#     the two times, which are microseconds since 1970. Starts at exactly these times do not
#     collide. Seat 0 means all seats. `taken` is empty if the service is not in open mode.
#     slot_starts timestamptz[], slot_ends timestamptz[], slot_ids uuid[], seats_left bigint[]: the
#     scheduled slots that start in the window, in order of their start; null if there are none.
#     A slot is full if `seats_left` is zero or less.
# Invariant: triggers keep a row in `bookings_occupancy` for each scheduled slot and for each active
#     booking without a slot.
AROUND = f"""
CROSS JOIN LATERAL (
    SELECT ARRAY(
        SELECT ARRAY[seat, {microseconds("lower(starts)")}, {microseconds("upper(starts)")}]
        FROM (
            SELECT 0 AS seat, {colliding_starts("period")} AS starts
            FROM (
                SELECT unnest(range_agg(blocked)) AS period
                FROM bookings_occupancy
                WHERE NOT (searched.several AND occupant = searched.id)
                  AND {IN_WINDOW} AND {unexpired_sql("expires_at")}
            ) AS occupied
            UNION ALL
            SELECT seat, unnest(range_agg({colliding_starts("blocked")}))
            FROM bookings_occupancy
            WHERE searched.several AND occupant = searched.id
              AND {IN_WINDOW} AND {unexpired_sql("expires_at")}
            GROUP BY seat
        ) AS collision
        WHERE searched.is_open
    ) AS taken
) AS occupied
CROSS JOIN LATERAL (
    SELECT array_agg(start_time) AS slot_starts, array_agg(end_time) AS slot_ends,
        array_agg(id) AS slot_ids, array_agg(capacity - (
            SELECT count(*) FROM bookings_booking
            WHERE calendar_id = searched.calendar_id AND slot_id = slot.id
              AND active AND id IS DISTINCT FROM %(ignored)s
              AND {unexpired_sql("hold_expires_at")}
        ) - (
            SELECT count(*) FROM bookings_waitlistentry
            WHERE calendar_id = searched.calendar_id AND slot_id = slot.id
              AND status = 'waiting'
        )) AS seats_left
    FROM (
        SELECT id, start_time, end_time, capacity FROM bookings_slot
        WHERE calendar_id = searched.calendar_id AND service_id = searched.id
          AND status = 'scheduled'
          AND start_time >= %(from)s AND start_time < %(until)s
        ORDER BY start_time OFFSET 0
    ) AS slot
) AS published
"""  # noqa: S608 - only our own SQL fragments are interpolated, no values
AROUND_COLUMNS = "taken, slot_starts, slot_ends, slot_ids, seats_left"

# Searches services by their ids, and reads their terms.
#
# The ids are wrapped in a subquery to hide the array from the planner. If the planner saw the
# array, it would know the array's length, and would make a new plan for each search.
#
# Parameters: service_ids uuid[]; from, until, ignored and at, as in `AROUND`.
# Columns: `TERMS_COLUMNS`, and those of `AROUND`; one row for each service that exists.
SEARCH = f"""
SELECT {TERMS_COLUMNS}, {AROUND_COLUMNS}
FROM catalog_service AS service
JOIN catalog_calendar AS calendar ON calendar.id = service.calendar_id
CROSS JOIN LATERAL (
    SELECT service.id, service.calendar_id, service.mode = 'open' AS is_open,
        service.capacity > 1 AS several,
        make_interval(mins => service.buffer_before_minutes) AS before,
        make_interval(mins => service.duration_minutes + service.buffer_after_minutes) AS after
) AS searched
{AROUND}
WHERE service.id = ANY(ARRAY(SELECT unnest(%(service_ids)s::uuid[])))
"""  # noqa: S608 - only our own SQL fragments are interpolated, no values

# Searches services on given terms, which may differ from the stored terms: for example, a booking
# that is moved keeps its length and its buffers.
#
# Parameters: service_ids uuid[] and, for each service, calendar_ids uuid[], is_open bool[],
#     several bool[], before interval[], after interval[]; from, until, ignored and at, as in
#     `AROUND`.
# Columns: number bigint (the position of the service, from 1), and those of `AROUND`.
SEARCH_ON_TERMS = f"""
SELECT number, {AROUND_COLUMNS}
FROM unnest(
    ARRAY(SELECT unnest(%(service_ids)s::uuid[])), %(calendar_ids)s::uuid[], %(is_open)s::bool[],
    %(several)s::bool[], %(before)s::interval[], %(after)s::interval[]
) WITH ORDINALITY AS searched (id, calendar_id, is_open, several, before, after, number)
{AROUND}
"""  # noqa: S608 - only our own SQL fragments are interpolated, no values

# Does the same as SEARCH_ON_TERMS for services of one calendar. Used if the database is
# distributed, because only a statement that names the calendar runs where its rows are.
#
# Parameters: as in SEARCH_ON_TERMS, and calendar_id uuid.
# Columns: as in SEARCH_ON_TERMS.
SEARCH_CALENDAR = SEARCH_ON_TERMS.replace("= searched.calendar_id", "= %(calendar_id)s::uuid")


def taken_with_terms(
    service_ids: Sequence[UUID], from_: datetime, until: datetime, *, at: datetime
) -> tuple[list[Terms], dict[UUID, Any]]:
    """Return the terms of the services that exist, and what `taken_around` returns for them."""
    if is_distributed():
        services = [*terms_of(service_ids, from_).values()]
        return services, taken_around(services, from_, until, at=at)
    values = _parameters(from_, until, at=at, ignored=None) | {"service_ids": list(service_ids)}
    found: list[Any] = fetch(SEARCH, values, namedtuple_row)
    rows = {row.service_id: row for row in found}
    return [terms_from(row) for row in rows.values()], rows


def taken_around(
    services: Sequence[Terms],
    from_: datetime,
    until: datetime,
    *,
    at: datetime,
    ignored: UUID | None = None,
) -> dict[UUID, Any]:
    """Return what lies in the window on the calendars of services, by service id.

    Args:
        at: the current time.
        ignored: the id of a booking that does not count.

    Returns:
        rows with the columns of `AROUND`.
    """
    parameters = _parameters(from_, until, at=at, ignored=ignored)
    if not is_distributed():
        return _read_on(services, SEARCH_ON_TERMS, parameters)
    by_calendar: dict[UUID, list[Terms]] = {}
    for terms in services:
        by_calendar.setdefault(terms.calendar_id, []).append(terms)
    rows: dict[UUID, Any] = {}
    for calendar_id, some in by_calendar.items():
        rows |= _read_on(some, SEARCH_CALENDAR, {**parameters, "calendar_id": calendar_id})
    return rows


def _parameters(
    from_: datetime, until: datetime, *, at: datetime, ignored: UUID | None
) -> dict[str, Any]:
    """Return the parameters of `AROUND`."""
    return {"from": from_, "until": until, "at": at, "ignored": ignored}


def _read_on(services: Sequence[Terms], text: str, parameters: dict[str, Any]) -> dict[UUID, Any]:
    ids = [terms.service_id for terms in services]
    rows: list[Any] = fetch(
        text,
        {
            **parameters,
            "service_ids": ids,
            "calendar_ids": [terms.calendar_id for terms in services],
            "is_open": [terms.mode == Service.Mode.OPEN for terms in services],
            "several": [terms.capacity > 1 for terms in services],
            "before": [terms.buffer_before for terms in services],
            "after": [terms.duration + terms.buffer_after for terms in services],
        },
        namedtuple_row,
    )
    return {ids[row.number - 1]: row for row in rows}
