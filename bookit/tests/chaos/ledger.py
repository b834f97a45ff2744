"""Records the responses that clients got, and checks that the tables agree with them."""

import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from bookit.tests.chaos.checker import ACTIVE, Fetch, Row, fetcher


@dataclass(frozen=True)
class Closure:
    """A calendar's time off or new hours, with the affected bookings that the response lists."""

    calendar_id: str
    affected: frozenset[str]
    # False if the response lists only some of the bookings, so a missing booking proves nothing.
    is_complete: bool
    time_off_id: str = ""
    hours: tuple[tuple[int, int, int], ...] = ()


@dataclass
class Ledger:
    """The memory of all clients.

    Args:
        events: acknowledged changes of bookings, as booking id, type of event and actor id.
        made: ids of acknowledged rows, by table.
        dropped: ids that a client tried to delete, whether or not the deletion was acknowledged.
        names: the possible present names of each account, by its id.
        unclear_calendars: ids of calendars whose affected bookings are not all known.
        unclear_requests: the number of requests whose outcome is unknown, by method and path.
        broken: the number of requests without a response.
        bugs: exceptions of clients, responses that no client may ever get, and requests that took
            too long.
    """

    events: list[tuple[str, str, str]] = field(default_factory=list)
    made: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    dropped: set[str] = field(default_factory=set)
    cancelled_slots: set[str] = field(default_factory=set)
    names: dict[str, list[str]] = field(default_factory=dict)
    closures: list[Closure] = field(default_factory=list)
    unclear_calendars: set[str] = field(default_factory=set)
    unclear_requests: Counter[str] = field(default_factory=Counter)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    broken: int = 0
    slowest: tuple[float, str] = (0.0, "")
    bugs: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def requests(self) -> int:
        """The number of requests that were sent."""
        return sum(self.statuses.values()) + self.broken

    @property
    def acknowledged(self) -> int:
        """The number of acknowledged events and new rows; a new booking counts as both."""
        return len(self.events) + sum(map(len, self.made.values()))

    def violations(self, connection: psycopg.Connection[Any]) -> list[str]:
        """Return the bugs, and one sentence for each contradiction between tables and responses."""
        fetch = fetcher(connection)
        bookings = {str(row["id"]): row for row in fetch("SELECT * FROM bookings_booking")}
        known: set[tuple[str, str, str]] = set()
        for row in fetch("SELECT booking_id, type, actor_id FROM bookings_bookingevent"):
            known.add((str(row["booking_id"]), row["type"], str(row["actor_id"])))
        deleted = {booking for booking, kind, _ in known if kind == "booking.deleted"}
        found = list(self.bugs)
        for booking, kind, actor in self.events:
            # Confirming a hold is recorded as the creation of a booking.
            kinds = [kind, "booking.created"] if kind == "booking.confirmed" else [kind]
            if not any((booking, each, actor) in known for each in kinds):
                found.append(f"acknowledged, but not in the history: {booking} {kind} {actor}")
        for booking in self.made["bookings_booking"] - bookings.keys():
            if booking not in deleted or booking not in self.dropped:
                found.append(f"booking {booking} was acknowledged, but is gone")
        found += self._unacknowledged(bookings, known)
        for table in self.made.keys() - {"bookings_booking"}:
            rows = {str(row["id"]) for row in fetch(f"SELECT id FROM {table}")}
            for missing in self.made[table] - rows - self.dropped:
                found.append(f"row {missing} of {table} was acknowledged, but is gone")
        for row in fetch("SELECT id FROM bookings_slot WHERE status <> 'cancelled'"):
            if str(row["id"]) in self.cancelled_slots:
                found.append(f"slot {row['id']} was cancelled, but is scheduled")
        for row in fetch("SELECT id, name FROM accounts_user"):
            possible = self.names.get(str(row["id"]))
            if possible and row["name"] not in possible:
                found.append(f"user {row['id']} is called {row['name']}, not one of {possible}")
        return found + self._bookings_missed_by_closures(fetch, bookings)

    def _unacknowledged(
        self, bookings: dict[str, Row], known: set[tuple[str, str, str]]
    ) -> list[str]:
        """Report unacknowledged bookings if there are more of them than unclear requests.

        Offers from the waitlist do not count, even once a client has booked them: the worker makes
        them, and their first event has no actor.
        """
        by_clients = {
            booking
            for booking, kind, actor in known
            if kind in ("booking.created", "booking.held") and actor != "None"
        }
        unacknowledged = (by_clients & bookings.keys()) - self.made["bookings_booking"]
        offers = {
            booking for booking, kind, actor in known if kind == "booking.held" and actor == "None"
        }
        unacknowledged -= offers
        if len(unacknowledged) > self.unclear_requests["POST /bookings"]:
            some = sorted(unacknowledged)[:3]
            return [f"{len(unacknowledged)} bookings were never acknowledged: {some} ..."]
        return []

    def _bookings_missed_by_closures(self, fetch: Fetch, bookings: dict[str, Row]) -> list[str]:
        """Return a sentence for each booking at a closed time, unless a response lists the booking.

        BookIt must refuse or list a booking that is made while its calendar is being closed.
        """
        time_off = {str(row["id"]): row for row in fetch("SELECT * FROM catalog_timeoff")}
        named: dict[str, set[str]] = defaultdict(set)
        for closure in self.closures:
            named[closure.calendar_id] |= closure.affected
            if not closure.is_complete:
                self.unclear_calendars.add(closure.calendar_id)
        found = []
        for closure in self.closures:
            row = time_off.get(closure.time_off_id)
            if row is None or closure.calendar_id in self.unclear_calendars:
                continue
            for booking in bookings.values():
                if (
                    booking["calendar_id"] == UUID(closure.calendar_id)
                    and booking["status"] in ACTIVE - {"completed", "no_show"}
                    and booking["start_time"] < row["end_time"]
                    and booking["end_time"] > row["start_time"]
                    and str(booking["id"]) not in named[closure.calendar_id]
                ):
                    found.append(f"time off {row['id']} missed booking {booking['id']}")
        # The latest hours of each calendar: later closures replace earlier ones.
        hours = {closure.calendar_id: closure.hours for closure in self.closures if closure.hours}
        for booking in bookings.values():
            calendar = str(booking["calendar_id"])
            if (
                calendar in hours
                and calendar not in self.unclear_calendars
                and booking["slot_id"] is None
                and booking["status"] in ACTIVE - {"completed", "no_show"}
                and str(booking["id"]) not in named[calendar]
                and not _is_open(hours[calendar], booking["start_time"], booking["end_time"])
            ):
                found.append(f"new hours of {calendar} missed booking {booking['id']}")
        return found


def _is_open(hours: tuple[tuple[int, int, int], ...], start: datetime, end: datetime) -> bool:
    """Return whether a period is within `hours`: weekday, and minutes since midnight, in UTC."""
    begins = start.hour * 60 + start.minute
    ends = begins + (end - start).seconds // 60
    return any(
        weekday == start.weekday() and opens <= begins and ends <= closes
        for weekday, opens, closes in hours
    )
