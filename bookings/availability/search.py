"""The search for free times. Each free time that it returns can be booked.

For a single booking, `Terms` and the SQL statement that inserts the booking decide whether the
start is accepted. This module applies the same rules to all starts of a window at once. `search`
runs three queries, whatever the number of services, days and bookings.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta, tzinfo
from heapq import merge
from itertools import islice, pairwise
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

from django.utils.translation import gettext as _
from psycopg.rows import namedtuple_row

from bookings.availability.terms import Terms, terms_of
from bookings.holds import unexpired_sql
from bookings.models import Booking
from bookit.database.citus.nodes import is_distributed
from bookit.database.rows import fetch
from bookit.errors import Conflict, Invalid, ServiceError
from bookit.times import begin, end, wall_clock
from catalog.models import Service
from catalog.opening import ALWAYS, DAY, Opening

# The maximum length of the window of a search.
LONGEST = timedelta(days=62)
WEEK = timedelta(days=7)
# A refused booking request gets up to this many free times as alternatives. The search looks around
# the requested time, first within one day, then further away.
ALTERNATIVES = 3
REACHES = [timedelta(days=days) for days in (1, 7, 31)]
INSTANT = timedelta(microseconds=1)


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
    calendar_id = service.calendar_id
    AND upper(blocked) > %(from)s::timestamptz - service.before
    AND lower(blocked) < %(until)s::timestamptz + service.after
    AND id IS DISTINCT FROM %(ignored)s
"""


def colliding_starts(period: str) -> str:
    """Return SQL for the range of starts that collide with `period`, an SQL expression."""
    return f"tstzrange(lower({period}) - service.after, upper({period}) + service.before, '()')"


# Finds the starts that collide with slots or bookings on the calendars of services in open mode.
#
# A booking that starts at s blocks [s - before, s + after), where `after` includes the duration.
# This period overlaps the taken period [t, u) if and only if t - after < s < u + before. The query
# distinguishes seats only if the service has more than one. `range_agg` merges overlapping ranges,
# so a start that overlaps two bookings of the same seat loses only one seat.
#
# The ids are wrapped in a subquery to hide the array from the planner. If the planner saw the
# array, it would know the array's length, and would make a new plan for each search.
#
# Parameters: service_ids uuid[] and, for each service, calendar_ids uuid[], several bool[] (whether
#     it has several seats), before interval[] (the buffer before), after interval[] (the duration
#     and the buffer after); from timestamptz, until timestamptz (the window); ignored uuid (a
#     booking, or null); at timestamptz (now).
# Columns: number bigint (the position of the service, from 1), seat int (0 means all seats), after
#     timestamptz, until timestamptz (the seat is taken for starts between these two times; starts
#     at exactly these times do not collide).
# Invariant: triggers keep a row in `bookings_occupancy` for each scheduled slot and for each active
#     booking without a slot.
TAKEN = f"""
SELECT service.number, taken.seat, lower(taken.starts) AS after, upper(taken.starts) AS until
FROM unnest(
    ARRAY(SELECT unnest(%(service_ids)s::uuid[])), %(calendar_ids)s::uuid[], %(several)s::bool[],
    %(before)s::interval[], %(after)s::interval[]
) WITH ORDINALITY AS service (id, calendar_id, several, before, after, number)
CROSS JOIN LATERAL (
    SELECT 0 AS seat, {colliding_starts("period")} AS starts
    FROM (
        SELECT unnest(range_agg(blocked)) AS period
        FROM bookings_occupancy
        WHERE NOT (service.several AND occupant = service.id)
          AND {IN_WINDOW} AND {unexpired_sql("expires_at")}
    ) AS occupied
    UNION ALL
    SELECT seat, unnest(range_agg({colliding_starts("blocked")}))
    FROM bookings_occupancy
    WHERE service.several AND occupant = service.id
      AND {IN_WINDOW} AND {unexpired_sql("expires_at")}
    GROUP BY seat
) AS taken
"""  # noqa: S608 - only our own SQL fragments are interpolated, no values

# Finds the scheduled slots of services that start in a window, with the number of seats left.
#
# With OFFSET, PostgreSQL reads the slots of each service of the search separately. Without OFFSET,
# the planner may read all slots that start in the window, also those of other services.
#
# Parameters: service_ids uuid[]; from timestamptz, until timestamptz (the window); ignored uuid
#     (a booking, or null); at timestamptz (now).
# Columns: number bigint (the position of the service, from 1), start_time timestamptz, end_time
#     timestamptz, slot_id uuid, seats_left bigint (zero or less if the slot is full); in order of
#     start_time.
SLOTS = f"""
SELECT service.number, slot.start_time, slot.end_time, slot.id AS slot_id, slot.capacity - (
    SELECT count(*) FROM bookings_booking
    WHERE slot_id = slot.id AND active AND id IS DISTINCT FROM %(ignored)s
      AND {unexpired_sql("hold_expires_at")}
) - (
    SELECT count(*) FROM bookings_waitlistentry WHERE slot_id = slot.id AND status = 'waiting'
) AS seats_left
FROM unnest(ARRAY(SELECT unnest(%(service_ids)s::uuid[])))
    WITH ORDINALITY AS service (id, number)
CROSS JOIN LATERAL (
    SELECT id, start_time, end_time, capacity FROM bookings_slot
    WHERE service_id = service.id AND status = 'scheduled'
      AND start_time >= %(from)s AND start_time < %(until)s
    OFFSET 0
) AS slot
ORDER BY slot.start_time
"""  # noqa: S608 - only our own SQL condition is interpolated, no values

# The same statements for the services of one calendar, if the database is distributed: only a
# statement that names the calendar runs where its rows are.
#
# Parameters: as above, and calendar_id uuid.
# Columns: as above.
OF_CALENDAR = {
    TAKEN: TAKEN.replace("calendar_id = service.calendar_id", "calendar_id = %(calendar_id)s"),
    SLOTS: SLOTS.replace("WHERE s", "WHERE calendar_id = %(calendar_id)s AND s"),
}


class Stretch(NamedTuple):
    """Consecutive starts on a grid that have the same number of seats left.

    The starts are `opens + number * step` for each number in `range(first, stop)`.
    """

    opens: datetime
    first: int
    stop: int
    seats_left: int


class Search:
    """A search for the free times of services, with starts in `[from_, until)`.

    Args:
        at: the current time.
        ignored: the id of a booking that is being moved. Its current time counts as free.
    """

    def __init__(
        self,
        services: Iterable[Terms],
        from_: datetime,
        until: datetime,
        *,
        at: datetime,
        ignored: UUID | None = None,
    ) -> None:
        self.services = list(services)
        self.from_, self.until, self.at = from_, until, at
        window = {"from": from_, "until": until, "at": at, "ignored": ignored}
        open_terms = [terms for terms in self.services if terms.mode == Service.Mode.OPEN]
        self._taken = _by_service(
            TAKEN,
            open_terms,
            calendar_ids=[terms.calendar_id for terms in open_terms],
            several=[terms.capacity > 1 for terms in open_terms],
            before=[terms.buffer_before for terms in open_terms],
            after=[terms.duration + terms.buffer_after for terms in open_terms],
            **window,
        )
        self._slots: dict[UUID, list[FreeTime]] = {
            service_id: [
                {
                    "start_time": slot.start_time,
                    "end_time": slot.end_time,
                    "seats_left": slot.seats_left,
                    "slot_id": slot.slot_id,
                }
                for slot in slots
            ]
            for service_id, slots in _by_service(SLOTS, self.services, **window).items()
        }

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
            for slot in self._slots[terms.service_id]
            if terms.is_active
            and earliest <= slot["start_time"] < before
            and slot["seats_left"] > 0
            and not terms.opening.is_off(slot["start_time"], slot["end_time"])
        )
        return merge(in_slots, without_slot, key=_start)

    def has_slots(self, terms: Terms) -> bool:
        """Return whether the service has scheduled slots in the window, free or full."""
        return bool(self._slots[terms.service_id])

    def stretches(self, terms: Terms) -> Iterator[Stretch]:
        """Yield the starts at which the service can be booked without a slot, in order."""
        if not terms.is_active or terms.mode != Service.Mode.OPEN:
            return
        earliest, before = self._bounds(terms)
        free = deque(self._free(terms, earliest, before))
        if not free:
            return
        for opens, closes in _starts_between(terms, free[0][0], before, fitting=True):
            while free and free[0][1] <= opens:
                free.popleft()
            for begins, ends, seats_left in free:
                if begins >= closes:
                    break
                yield Stretch(*_numbers(terms, opens, begins, min(ends, closes)), seats_left)

    def has_free_time(self, terms: Terms) -> bool:
        """Return whether the service has a free time in the window."""
        return next(self.free_times(terms), None) is not None

    def refusals(self, terms: Terms) -> Iterator[Refusal]:
        """Yield each slot and each time on the grid that is not free, in order, with the reason."""
        slots = {slot["start_time"]: slot for slot in self._slots.get(terms.service_id, ())}
        candidates: Iterator[tuple[datetime, datetime, UUID | None]] = (
            (start, slot["end_time"], slot["slot_id"]) for start, slot in slots.items()
        )
        if terms.mode == Service.Mode.OPEN:
            on_grid = (
                (start, ends, None)
                for opens, before in _starts_between(terms, self.from_, self.until, fitting=False)
                for start, ends in _periods(terms, *_numbers(terms, opens, self.from_, before))
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

    def _free(
        self, terms: Terms, earliest: datetime, before: datetime
    ) -> Iterator[tuple[datetime, datetime, int]]:
        """Yield each part of `[earliest, before)` with seats left, and the number of seats left."""
        changes = [(earliest, 0), (before, 0)]
        for seats, after, until in self._taken_seats(terms):
            changes.append((after + INSTANT, -seats))
            changes.append((until, seats))
        changes.sort()
        seats_left = terms.capacity
        for (begins, change), (ends, _change) in pairwise(changes):
            seats_left += change
            if seats_left > 0 and earliest <= begins < ends <= before:
                yield begins, ends, seats_left

    def _taken_seats(self, terms: Terms) -> Iterator[tuple[int, datetime, datetime]]:
        """Yield `(seats, after, until)`: `seats` seats are taken for each start between the times.

        Starts at exactly `after` or `until` are not affected.
        """
        for taken in self._taken.get(terms.service_id, ()):
            yield 1 if taken.seat else terms.capacity, taken.after, taken.until
        for off_start, off_end in terms.opening.closed:
            yield terms.capacity, off_start - terms.duration, off_end

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
    return Search(terms_of(service_ids, from_).values(), from_, until, at=at)


def nearest(
    service_ids: Sequence[UUID],
    start_time: datetime,
    *,
    at: datetime,
    moved: Booking | None = None,
) -> list[dict[str, object]]:
    """Return the free times nearest to `start_time`.

    If two free times are equally near, the earlier one comes first. The free times of all the
    services are considered. If several services are free at the same start, it is returned once.

    Args:
        moved: the booking that is being moved, if any. It keeps its length and its buffers.
    """
    found: dict[datetime, FreeTime] = {}
    for reach in REACHES:
        from_, until = start_time - reach, start_time + reach + INSTANT
        services = terms_of(service_ids, from_).values()
        around = Search(
            [terms.for_booking(moved) for terms in services] if moved else services,
            from_,
            until,
            at=at,
            ignored=moved.pk if moved else None,
        )
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
    services = [*terms_of(service_ids, from_).values()]
    # Begin with a short window: most services that have a free time have one on the first day.
    bounds = [from_, *(from_ + reach for reach in REACHES if from_ + reach < until), until]
    for begins, ends in pairwise(bounds):
        around = Search(services, begins, ends, at=at)
        found |= {each.service_id for each in services if around.has_free_time(each)}
        services = [each for each in services if each.service_id not in found]
        if not services:
            break
    return found


def _start(time: FreeTime | Refusal) -> datetime:
    return time["start_time"]


def _starts_between(
    terms: Terms, from_: datetime, until: datetime, *, fitting: bool
) -> Iterator[tuple[datetime, datetime]]:
    """Yield `(opens, before)` for each grid: the first start, and the time before which starts lie.

    Each opening period has its own grid. The steps are elapsed time, so they stay equally long when
    the clocks change.

    Args:
        fitting: leave out starts whose bookings would end after closing.
    """
    for opens, closes, ends in _runs(terms.opening, from_, until):
        before = min(until, closes)
        if fitting:
            before = min(before, ends - terms.duration + INSTANT)
        yield opens, before


def _numbers(
    terms: Terms, opens: datetime, from_: datetime, before: datetime
) -> tuple[datetime, int, int]:
    """Return `opens`, and the numbers `first` and `stop` of the starts in `[from_, before)`.

    The starts in that period have the numbers `range(first, stop)`.
    """
    # `-(a // b)` is the quotient of `-a` and `b`, rounded up.
    first = max(0, -((opens - from_) // terms.step))
    return opens, first, -((opens - before) // terms.step)


def _periods(
    terms: Terms, opens: datetime, first: int, stop: int
) -> Iterator[tuple[datetime, datetime]]:
    """Yield `(start, end)` for each number in `range(first, stop)`, in order."""
    for number in range(first, stop):
        start = opens + number * terms.step
        yield start, start + terms.duration


def _runs(
    opening: Opening, from_: datetime, until: datetime
) -> Iterator[tuple[datetime, datetime, datetime]]:
    """Yield `(opens, closes, ends)` for each grid.

    The grid begins at `opens`, its starts are before `closes`, and bookings must end by `ends`.
    `closes` and `ends` differ only for a calendar that never closes.
    """
    if not opening.is_endless:
        for opens, closes in opening.periods(from_, until):
            yield opens, closes, closes
        return
    # For a calendar that never closes, a new grid begins at each midnight.
    day = from_.astimezone(opening.tz).date()
    midnight = wall_clock(day, 0, opening.tz)
    while midnight < until:
        day += DAY
        next_midnight = wall_clock(day, 0, opening.tz)
        yield midnight, next_midnight, ALWAYS[1]
        midnight = next_midnight


def _by_service(text: str, services: Sequence[Terms], **values: Any) -> dict[UUID, list[Any]]:
    """Run a query and return its rows by service id.

    The column `number` of a row is the position of its service, from 1.
    """
    if is_distributed():
        return _by_calendar(text, services, values)
    ids = [terms.service_id for terms in services]
    rows: list[list[Any]] = [[] for _ in ids]
    found: list[Any] = fetch(text, {**values, "service_ids": ids}, namedtuple_row)
    for row in found:
        rows[row.number - 1].append(row)
    return dict(zip(ids, rows, strict=True))


def _by_calendar(
    text: str, services: Sequence[Terms], values: dict[str, Any]
) -> dict[UUID, list[Any]]:
    """Do the same with a query for each calendar."""
    rows: dict[UUID, list[Any]] = {terms.service_id: [] for terms in services}
    numbers: dict[UUID, list[int]] = {}
    for number, terms in enumerate(services):
        numbers.setdefault(terms.calendar_id, []).append(number)
    for calendar_id, chosen in numbers.items():
        own = {
            name: [value[number] for number in chosen] if isinstance(value, list) else value
            for name, value in values.items()
        }
        own |= {
            "calendar_id": calendar_id,
            "service_ids": [services[number].service_id for number in chosen],
        }
        found: list[Any] = fetch(OF_CALENDAR[text], own, namedtuple_row)
        for row in found:
            rows[own["service_ids"][row.number - 1]].append(row)
    return rows
