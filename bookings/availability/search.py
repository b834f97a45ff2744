"""The search for free times. Each free time that it returns can be booked.

For a single booking, `Terms` and the SQL statement that inserts the booking decide whether the
start is accepted. This module applies the same rules to all starts of a window at once.

If the database is not distributed, `search` runs one statement, whatever the number of services,
days and bookings. In a distributed database, it runs one statement for the terms, and one for each
calendar.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from heapq import merge
from itertools import groupby, islice, pairwise
from typing import Any, TypedDict
from uuid import UUID

from django.utils.translation import gettext as _
from psycopg.rows import namedtuple_row

from bookings.availability.terms import TERMS_COLUMNS, Terms, terms_from, terms_of
from bookings.holds import unexpired_sql
from bookings.models import Booking
from bookit.database.citus.nodes import is_distributed
from bookit.database.rows import fetch
from bookit.errors import Conflict, Invalid, ServiceError
from bookit.times import begin, end, wall_clock
from catalog.models import Service
from catalog.opening import ALWAYS, DAY, Opening, Period

# The maximum length of the window of a search.
LONGEST = timedelta(days=62)
WEEK = timedelta(days=7)
# A refused booking request gets up to this many free times as alternatives. The search looks around
# the requested time, first within one day, then further away.
ALTERNATIVES = 3
REACHES = [timedelta(days=days) for days in (1, 7, 31)]
INSTANT = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The end of the opening of a calendar that never closes, in microseconds since 1970.
ENDLESS = (ALWAYS[1] - EPOCH) // INSTANT


class BookingConflict(Conflict):
    """This time is already booked."""

    code = "booking_conflict"


class SlotFull(Conflict):
    """Every seat in this slot is taken or promised to users on the waitlist."""

    code = "slot_full"


class FreeTime(TypedDict):
    """A period that can be booked, its slot, if any, and the number of seats left."""

    start_time: datetime
    end_time: datetime
    seats_left: int
    slot_id: UUID | None


class Refusal(TypedDict):
    """A period that cannot be booked, with the error code of an attempt to book it."""

    start_time: datetime
    end_time: datetime
    slot_id: UUID | None
    code: str


# The SQL condition for a row of `bookings_occupancy` that is on the calendar of a service and can
# collide with starts in the window.
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
# Columns: taken bigint[][], a list of [seat, after, until]: the seat is taken for starts between
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
# Columns: those of `TERMS_OF_SERVICES` and of `AROUND`; one row for each service that exists.
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


# Consecutive starts on a grid that have the same number of seats left: `(opens, first, stop,
# seats_left)`. The grid begins at `opens`, in microseconds since 1970. The starts are
# `opens + number * step` for each number in `range(first, stop)`.
Stretch = tuple[int, int, int, int]


class Search:
    """A search for the free times of services, with starts in `[from_, until)`.

    The function `search` searches services on their stored terms. The constructor searches on any
    terms that it is given.

    Args:
        at: the current time.
        ignored: the id of a booking that is being moved. Its current time counts as free.
        rows: the rows of the services with the columns of `AROUND`, by id, if the caller has read
            them.
    """

    def __init__(
        self,
        services: Iterable[Terms],
        from_: datetime,
        until: datetime,
        *,
        at: datetime,
        ignored: UUID | None = None,
        rows: dict[UUID, Any] | None = None,
    ) -> None:
        self.services = list(services)
        self.from_, self.until, self.at = from_, until, at
        if rows is None:
            rows = _read(self.services, _parameters(from_, until, at=at, ignored=ignored))
        self._rows = rows

    def free_times(self, terms: Terms) -> Iterator[FreeTime]:
        """Return the free times of a service of this search, in order.

        The iterator is lazy: it searches for the next free time only when the caller requests it.
        """
        without_slot: Iterator[FreeTime] = (
            {
                "start_time": start,
                "end_time": ends,
                "seats_left": seats_left,
                "slot_id": None,
            }
            for opens, first, stop, seats_left in self.stretches(terms)
            for start, ends in _periods(terms, opens, first, stop)
        )
        if not self.has_slots(terms):
            return without_slot
        earliest, before = self._bounds(terms)
        in_slots = (
            slot
            for slot in self._slots(terms)
            if terms.is_active
            and earliest <= slot["start_time"] < before
            and slot["seats_left"] > 0
            and not terms.opening.is_off(slot["start_time"], slot["end_time"])
        )
        return merge(in_slots, without_slot, key=_start)

    def has_slots(self, terms: Terms) -> bool:
        """Return whether the service has scheduled slots in the window, free or full."""
        return self._rows[terms.service_id].slot_starts is not None

    def _slots(self, terms: Terms) -> list[FreeTime]:
        """Return the slots in order, with the number of seats left, which may be negative."""
        row = self._rows[terms.service_id]
        if row.slot_starts is None:
            return []
        return [
            {"start_time": start, "end_time": ends, "seats_left": left, "slot_id": slot_id}
            for start, ends, left, slot_id in zip(
                row.slot_starts, row.slot_ends, row.seats_left, row.slot_ids, strict=True
            )
        ]

    def stretches(self, terms: Terms) -> Iterator[Stretch]:
        """Yield stretches of starts at which the service can be booked without a slot, in order."""
        if not terms.is_active or terms.mode != Service.Mode.OPEN:
            return
        earliest, before = self._bounds(terms)
        free = self._free(terms, _since_epoch(earliest), _since_epoch(before))
        if not free:
            return
        step, next_free = terms.step // INSTANT, 0
        for opens, limit in _grids(terms, earliest, before, fitting=True):
            while next_free < len(free) and free[next_free][1] <= opens:
                next_free += 1
            for index in range(next_free, len(free)):
                begins, ends, seats_left = free[index]
                if begins >= limit:
                    break
                first, stop = _numbers(opens, step, begins, ends if ends < limit else limit)
                if first < stop:
                    yield opens, first, stop, seats_left

    def has_free_time(self, terms: Terms) -> bool:
        """Return whether the service has a free time in the window."""
        return next(self.free_times(terms), None) is not None

    def refusals(self, terms: Terms) -> Iterator[Refusal]:
        """Yield each slot and each time on the grid that is not free, in order, with the reason."""
        slots = {slot["start_time"]: slot for slot in self._slots(terms)}
        candidates: Iterator[tuple[datetime, datetime, UUID | None]] = (
            (start, slot["end_time"], slot["slot_id"]) for start, slot in slots.items()
        )
        if terms.mode == Service.Mode.OPEN:
            on_grid = (
                (start, ends, None)
                for opens, before in _grids(terms, self.from_, self.until, fitting=False)
                for start, ends in _periods(terms, opens, *self._all_numbers(terms, opens, before))
                if start not in slots
            )
            candidates = merge(candidates, on_grid, key=lambda candidate: candidate[0])
        free = (time["start_time"] for time in self.free_times(terms))
        next_free = next(free, None)
        for start, ends, slot_id in candidates:
            while next_free is not None and next_free < start:
                next_free = next(free, None)
            if start != next_free:
                yield {
                    "start_time": start,
                    "end_time": ends,
                    "slot_id": slot_id,
                    "code": self._why(terms, start, ends, slot_id),
                }

    def _bounds(self, terms: Terms) -> tuple[datetime, datetime]:
        """Return `[earliest, before)`: the starts that the window, notice and horizon allow."""
        before = self.until
        if terms.horizon is not None:
            before = min(before, self.at + terms.horizon + INSTANT)
        return max(self.from_, self.at + terms.notice), before

    def _free(self, terms: Terms, earliest: int, before: int) -> list[tuple[int, int, int]]:
        """Return the parts of `[earliest, before)` with seats left, and the number of seats left.

        All times are microseconds since 1970.
        """
        changes = [(earliest, 0), (before, 0)]
        for seat, after, until in self._rows[terms.service_id].taken:
            seats = 1 if seat else terms.capacity
            # Starts at exactly `after` or `until` are not affected.
            changes += [(after + 1, -seats), (until, seats)]
        for off_start, off_end in terms.opening.closed:
            after, until = _since_epoch(off_start - terms.duration), _since_epoch(off_end)
            changes += [(after + 1, -terms.capacity), (until, terms.capacity)]
        changes.sort()
        free = []
        seats_left = terms.capacity
        for (begins, change), (ends, _change) in pairwise(changes):
            seats_left += change
            if seats_left > 0 and earliest <= begins < ends <= before:
                free.append((begins, ends, seats_left))
        return free

    def _all_numbers(self, terms: Terms, opens: int, before: int) -> tuple[int, int]:
        """Return `_numbers` for the starts from the beginning of the window until `before`."""
        return _numbers(opens, terms.step // INSTANT, _since_epoch(self.from_), before)

    def _why(
        self, terms: Terms, start_time: datetime, end_time: datetime, slot_id: UUID | None
    ) -> str:
        """Return the error code of the first rule that refuses a booking of this time."""
        try:
            terms.check_start(start_time, self.at)
            if slot_id is None:
                terms.check_open(start_time, end_time)
            else:
                terms.check_time_off(start_time, end_time)
        except ServiceError as error:
            return error.code
        return SlotFull.code if slot_id else BookingConflict.code


def window(
    from_: date | datetime | None,
    to: date | datetime | None,
    tz: tzinfo,
    at: datetime,
    *,
    field: str = "to",
) -> tuple[datetime, datetime]:
    """Return the start and the end of a search. By default, it starts now and ends a week later.

    Raises:
        Invalid: the end is not after the start, or the window is longer than `LONGEST`.
    """
    start = at if from_ is None else begin(from_, tz)
    stop = start + WEEK if to is None else end(to, tz)
    if stop <= start:
        raise Invalid.of(field, _("The end must be after the start."))
    if stop - start > LONGEST:
        raise Invalid.of(
            field, _("The search can cover at most %(days)s days.") % {"days": LONGEST.days}
        )
    return start, stop


def search(
    service_ids: Sequence[UUID],
    from_: datetime,
    until: datetime,
    *,
    at: datetime,
) -> Search:
    """Return a search of services for free times. Ids of services that do not exist are ignored."""
    if is_distributed():
        return Search(terms_of(service_ids, from_).values(), from_, until, at=at)
    values = {**_parameters(from_, until, at=at), "service_ids": list(service_ids)}
    found: list[Any] = fetch(SEARCH, values, namedtuple_row)
    rows = {row.service_id: row for row in found}
    services = [terms_from(row) for row in rows.values()]
    return Search(services, from_, until, at=at, rows=rows)


def nearest(
    service_ids: Sequence[UUID],
    start_time: datetime,
    *,
    at: datetime,
    moved: Booking | None = None,
) -> list[dict[str, object]]:
    """Return up to `ALTERNATIVES` free times, the nearest to `start_time` first.

    If two free times are equally near, the earlier one comes first. The free times of all the
    services are considered. A start at which several services are free is returned once.

    Args:
        moved: the booking that is being moved, if any. It keeps its length and its buffers.
    """
    found: dict[datetime, FreeTime] = {}
    for reach in REACHES:
        from_, until = start_time - reach, start_time + reach + INSTANT
        if moved is None:
            around = search(service_ids, from_, until, at=at)
        else:
            services = [terms.for_booking(moved) for terms in terms_of(service_ids, from_).values()]
            around = Search(services, from_, until, at=at, ignored=moved.pk)
        found = {
            time["start_time"]: time
            for terms in around.services
            for time in _nearest(around.free_times(terms), start_time)
            if moved is None or time["start_time"] != moved.start_time
        }
        if len(found) >= ALTERNATIVES:
            break
    nearest_first = sorted(found, key=lambda start: (abs(start - start_time), start))
    return [
        {name: found[start][name] for name in ("start_time", "end_time", "slot_id")}
        for start in nearest_first[:ALTERNATIVES]
    ]


def whole_days(
    times: Iterable[FreeTime], most: int, tz: tzinfo
) -> tuple[list[tuple[date, list[FreeTime]]], date | None]:
    """Return the first days with their times, and the next day that has times, or None.

    The returned days have at most `most` times in all, unless the first day alone has more. Each
    returned day has all of its times.
    """
    found: list[tuple[date, list[FreeTime]]] = []
    count = 0
    for day, group in groupby(times, lambda time: time["start_time"].astimezone(tz).date()):
        some = [*group]
        count += len(some)
        if found and count > most:
            return found, day
        found.append((day, some))
    return found, None


def _nearest(times: Iterator[FreeTime], start_time: datetime) -> list[FreeTime]:
    """Return the times that may be among the nearest to `start_time`; `times` must be in order."""
    # Take one time more than needed on each side, because the caller leaves out the current time of
    # the moved booking.
    before: deque[FreeTime] = deque(maxlen=ALTERNATIVES + 1)
    for time in times:
        if time["start_time"] >= start_time:
            return [*before, time, *islice(times, ALTERNATIVES)]
        before.append(time)
    return [*before]


def with_free_time(
    service_ids: Sequence[UUID], from_: datetime, until: datetime, *, at: datetime
) -> set[UUID]:
    """Return the ids of the services that have a free time with a start in `[from_, until)`."""
    found: set[UUID] = set()
    left = [*service_ids]
    # Begin with a short window: most services that have a free time have one on the first day.
    bounds = [from_, *(from_ + reach for reach in REACHES if from_ + reach < until), until]
    for begins, ends in pairwise(bounds):
        around = search(left, begins, ends, at=at)
        found |= {each.service_id for each in around.services if around.has_free_time(each)}
        left = [service_id for service_id in left if service_id not in found]
        if not left:
            break
    return found


def _start(time: FreeTime | Refusal) -> datetime:
    return time["start_time"]


def _grids(
    terms: Terms, from_: datetime, until: datetime, *, fitting: bool
) -> Iterator[tuple[int, int]]:
    """Yield `(opens, before)` for each grid: its first start, and a time after all of its starts.

    Each opening period has its own grid. The steps are elapsed time, so they stay equally long when
    the clocks change. `opens` and `before` are microseconds since 1970, because Python adds,
    compares and divides integers much faster than instants.

    Args:
        fitting: leave out starts whose bookings would end after closing.
    """
    stop, duration = _since_epoch(until), terms.duration // INSTANT
    for opens, closes, ends in _runs(terms.opening, from_, until):
        before = min(stop, closes)
        yield opens, min(before, ends - duration + 1) if fitting else before


def _numbers(origin: int, step: int, begins: int, before: int) -> tuple[int, int]:
    """Return `(first, stop)`: `range(first, stop)` has the numbers of the starts in the period.

    The period is `[begins, before)`. The start with a number is `origin + number * step`. All times
    are microseconds.
    """
    # `-(a // b)` is the quotient of `-a` and `b`, rounded up.
    first = -((origin - begins) // step) if begins > origin else 0
    return first, -((origin - before) // step)


def _periods(
    terms: Terms, opens: int, first: int, stop: int
) -> Iterator[tuple[datetime, datetime]]:
    """Yield `(start, end)` for each number in `range(first, stop)`, in order."""
    for number in range(first, stop):
        start = instant_at(opens) + number * terms.step
        yield start, start + terms.duration


def _runs(opening: Opening, from_: datetime, until: datetime) -> Iterator[tuple[int, int, int]]:
    """Yield `(opens, closes, ends)` for each grid, in microseconds since 1970.

    The grid begins at `opens`, its starts are before `closes`, and bookings must end by `ends`.
    `closes` and `ends` differ only for a calendar that never closes.
    """
    if not opening.is_endless:
        for opens, closes in _in_microseconds(opening.periods(from_, until)):
            yield opens, closes, closes
        return
    # For a calendar that never closes, a new grid begins at each midnight.
    day = from_.astimezone(opening.tz).date()
    midnight = wall_clock(day, 0, opening.tz)
    while midnight < until:
        day += DAY
        next_midnight = wall_clock(day, 0, opening.tz)
        yield _since_epoch(midnight), _since_epoch(next_midnight), ENDLESS
        midnight = next_midnight


# The cache serves clients that request the same weeks of a calendar again and again.
@lru_cache(maxsize=64)
def _in_microseconds(periods: tuple[Period, ...]) -> tuple[tuple[int, int], ...]:
    """Return the start and the end of each period, in microseconds since 1970."""
    return tuple((_since_epoch(opens), _since_epoch(closes)) for opens, closes in periods)


def _since_epoch(time: datetime) -> int:
    """Return the microseconds since 1970."""
    return (time - EPOCH) // INSTANT


def instant_at(microseconds: int) -> datetime:
    """Return the instant that is a number of microseconds after the beginning of 1970."""
    return EPOCH + timedelta(microseconds=microseconds)


def _parameters(
    from_: datetime, until: datetime, *, at: datetime, ignored: UUID | None = None
) -> dict[str, Any]:
    """Return the parameters of `AROUND`."""
    return {"from": from_, "until": until, "at": at, "ignored": ignored}


def _read(services: Sequence[Terms], parameters: dict[str, Any]) -> dict[UUID, Any]:
    """Return what lies in the window on the calendars of services, by service id."""
    if not is_distributed():
        return _read_on(services, SEARCH_ON_TERMS, parameters)
    by_calendar: dict[UUID, list[Terms]] = {}
    for terms in services:
        by_calendar.setdefault(terms.calendar_id, []).append(terms)
    rows: dict[UUID, Any] = {}
    for calendar_id, some in by_calendar.items():
        rows |= _read_on(some, SEARCH_CALENDAR, {**parameters, "calendar_id": calendar_id})
    return rows


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
