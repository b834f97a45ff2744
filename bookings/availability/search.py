"""The search for free times. Each free time that it returns can be booked.

For a single booking, `Terms` and the SQL statement that inserts the booking decide whether the
start is accepted. This module applies the same rules to all starts of a window at once.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta, tzinfo
from heapq import merge
from itertools import groupby, islice, pairwise
from typing import Any, TypedDict
from uuid import UUID

from django.utils.translation import gettext as _

from bookings.availability.grids import INSTANT, grids, numbers, periods, since_epoch
from bookings.availability.taken import BookingConflict, SlotFull, taken_around, taken_with_terms
from bookings.availability.terms import Terms, terms_of
from bookings.models import Booking
from bookit.errors import Invalid, ServiceError
from bookit.times import begin, end, is_longer
from catalog.models import Service

# The maximum length of the window of a search.
LONGEST = timedelta(days=62)
WEEK = timedelta(days=7)
# A refused booking request gets up to this many free times as alternatives.
ALTERNATIVES = 3
# This many free times on each side of the requested time are enough to choose from: one more than
# needed, because the current time of a booking that is moved is left out.
NEAREST = ALTERNATIVES + 1
# The search for alternatives looks around the requested time, first within one day, then further
# away.
REACHES = [timedelta(days=days) for days in (1, 7, 31)]


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
        rows: what `taken_around` returns for the services, if the caller has read it.
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
            rows = taken_around(self.services, from_, until, at=at, ignored=ignored)
        self._rows = rows

    def free_times(self, terms: Terms, *, near: datetime | None = None) -> Iterator[FreeTime]:
        """Return the free times of a service of this search, in order.

        The iterator is lazy: it searches for the next free time only when the caller requests it.

        Args:
            near: if given, leave out most times without a slot that are far from this one; see
                `_part_near`.
        """
        without_slot: Iterator[FreeTime] = (
            {
                "start_time": start,
                "end_time": ends,
                "seats_left": seats_left,
                "slot_id": None,
            }
            for opens, first, stop, seats_left in self.stretches(terms)
            for start, ends in periods(terms, opens, *_part_near(near, terms, opens, first, stop))
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
        """Return the slots in order, including full ones, whose `seats_left` is at most 0."""
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
        free = self._free(terms, since_epoch(earliest), since_epoch(before))
        if not free:
            return
        step, next_free = terms.step // INSTANT, 0
        for opens, limit in grids(terms, earliest, before, fitting=True):
            while next_free < len(free) and free[next_free][1] <= opens:
                next_free += 1
            for index in range(next_free, len(free)):
                begins, ends, seats_left = free[index]
                if begins >= limit:
                    break
                first, stop = numbers(opens, step, begins, ends if ends < limit else limit)
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
                for opens, before in grids(terms, self.from_, self.until, fitting=False)
                for start, ends in periods(terms, opens, *self._all_numbers(terms, opens, before))
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
        for seat, lower, upper in self._rows[terms.service_id].taken:
            seats = 1 if seat else terms.capacity
            # Starts at exactly `lower` or `upper` are not affected.
            changes += [(lower + 1, -seats), (upper, seats)]
        for off_start, off_end in terms.opening.closed:
            lower, upper = since_epoch(off_start - terms.duration), since_epoch(off_end)
            changes += [(lower + 1, -terms.capacity), (upper, terms.capacity)]
        changes.sort()
        free = []
        seats_left = terms.capacity
        for (begins, change), (ends, _change) in pairwise(changes):
            seats_left += change
            if seats_left > 0 and earliest <= begins < ends <= before:
                free.append((begins, ends, seats_left))
        return free

    def _all_numbers(self, terms: Terms, opens: int, before: int) -> tuple[int, int]:
        """Return `numbers` for the starts from the beginning of the window until `before`."""
        return numbers(opens, terms.step // INSTANT, since_epoch(self.from_), before)

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
    first = at if from_ is None else from_
    start = begin(first, tz)
    # A week from a date is seven whole days, even if the clocks change in between.
    stop = begin(first + WEEK, tz) if to is None else end(to, tz)
    if stop <= start:
        raise Invalid.of(field, _("The end must be after the start."))
    if is_longer(start, stop, LONGEST, tz):
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
    services, rows = taken_with_terms(service_ids, from_, until, at=at)
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
            for time in _nearest(around.free_times(terms, near=start_time), start_time)
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
    before: deque[FreeTime] = deque(maxlen=NEAREST)
    for time in times:
        if time["start_time"] >= start_time:
            return [*before, time, *islice(times, NEAREST - 1)]
        before.append(time)
    return [*before]


def _part_near(
    near: datetime | None, terms: Terms, opens: int, first: int, stop: int
) -> tuple[int, int]:
    """Return the part of a stretch that contains its `NEAREST` times before and after `near`.

    Without this, a refused request could cost seconds: twenty services with a start every minute
    have more than a million free times in two months. If `near` is None, return the whole stretch.
    """
    if near is None:
        return first, stop
    number = (since_epoch(near) - opens) // (terms.step // INSTANT)
    middle = min(max(number, first), stop)
    return max(first, middle - NEAREST), min(stop, middle + NEAREST + 1)


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


def _start(time: FreeTime) -> datetime:
    return time["start_time"]
