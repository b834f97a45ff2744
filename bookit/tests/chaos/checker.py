"""Checks the invariants of the rows, without relying on PostgreSQL's constraints.

The checker compares periods in Python and follows states event by event, so that it also finds a
missing or wrong constraint.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

Row = dict[str, Any]
Fetch = Callable[[str], list[Row]]

ACTIVE = {"held", "pending", "confirmed", "completed", "no_show"}

# The allowed transitions. They are written again, to find errors in `bookings.transitions`.
TRANSITIONS = {
    "held": {"pending", "confirmed", "cancelled", "expired"},
    "pending": {"confirmed", "cancelled", "expired", "completed", "no_show"},
    "confirmed": {"completed", "cancelled", "no_show"},
    "completed": {"no_show"},
    "no_show": {"completed"},
    "cancelled": set(),
    "expired": set(),
}
MAX_HOLDS = 3


def violations(connection: psycopg.Connection[Any]) -> list[str]:
    """Return one sentence for each violated invariant."""
    return [found for check in CHECKS for found in check(fetcher(connection))]


def fetcher(connection: psycopg.Connection[Any]) -> Fetch:
    """Return a function that runs a query and returns its rows."""

    def fetch(query: str) -> list[Row]:
        with connection.cursor(row_factory=dict_row) as cursor:
            set_json_loads(json.loads, cursor)  # Django's connections return JSON as text.
            return cursor.execute(query).fetchall()

    return fetch


def seats_are_taken_once(fetch: Fetch) -> Iterator[str]:
    """Active bookings of the same seat of a service never overlap, including their buffers."""
    seats = defaultdict(list)
    for row in _active_bookings(fetch):
        seats[row["service_id"], row["seat"]].append(row)
    for (service, seat), rows in seats.items():
        for first, second in _overlapping(rows):
            yield f"seat {seat} of service {service} is taken by {first} and {second}"


def calendars_host_one_thing(fetch: Fetch) -> Iterator[str]:
    """At any time, a calendar hosts at most one slot, or bookings of one service outside slots."""
    calendars = defaultdict(list)
    for row in _active_bookings(fetch):
        calendars[row["calendar_id"]].append(
            {**row, "occupant": row["slot_id"] or row["service_id"]}
        )
    for row in fetch(
        "SELECT id, calendar_id, id AS occupant, lower(blocked) AS starts, upper(blocked) AS ends"
        " FROM bookings_slot WHERE status = 'scheduled'"
    ):
        calendars[row["calendar_id"]].append(row)
    for calendar, rows in calendars.items():
        occupants = {row["id"]: row["occupant"] for row in rows}
        for first, second in _overlapping(rows):
            if occupants[first] != occupants[second]:
                yield f"calendar {calendar} hosts {first} and {second} at the same time"


def bookings_are_in_their_slots(fetch: Fetch) -> Iterator[str]:
    """A booking has the service and period of its slot; active bookings do not exceed its seats."""
    for row in fetch(
        "SELECT booking.id FROM bookings_booking AS booking"
        " LEFT JOIN bookings_slot AS slot ON slot.id = booking.slot_id"
        " WHERE booking.slot_id IS NOT NULL AND (slot.service_id, slot.start_time, slot.end_time)"
        " IS DISTINCT FROM (booking.service_id, booking.start_time, booking.end_time)"
    ):
        yield f"booking {row['id']} does not agree with its slot"
    for row in fetch(
        "SELECT slot.id, slot.capacity, slot.status, count(*) AS taken FROM bookings_slot AS slot"
        " JOIN bookings_booking AS booking ON booking.slot_id = slot.id"
        " WHERE booking.status IN ('held', 'pending', 'confirmed', 'completed', 'no_show')"
        " GROUP BY slot.id"
    ):
        if row["taken"] > row["capacity"]:
            yield f"slot {row['id']} has {row['capacity']} seats and {row['taken']} bookings"


def cancelled_slots_have_no_open_bookings(fetch: Fetch) -> Iterator[str]:
    """No booking of a cancelled slot is held, pending or confirmed."""
    for row in fetch(
        "SELECT booking.id FROM bookings_booking AS booking"
        " JOIN bookings_slot AS slot ON slot.id = booking.slot_id"
        " WHERE slot.status = 'cancelled' AND booking.status IN ('held', 'pending', 'confirmed')"
    ):
        yield f"booking {row['id']} is in a slot that is cancelled"


def history_agrees_with_state(fetch: Fetch) -> Iterator[str]:
    """Each booking has the state of its last event, and its events are allowed transitions."""
    events = defaultdict(list)
    for row in fetch(
        "SELECT booking_id, type, data FROM bookings_bookingevent WHERE data ? 'status' ORDER BY id"
    ):
        events[row["booking_id"]].append(row)
    for row in fetch(
        "SELECT id, status, start_time, end_time, seat, slot_id, hold_expires_at"
        " FROM bookings_booking"
    ):
        history = events.pop(row["id"], None)
        if not history:
            yield f"booking {row['id']} has no history"
            continue
        if _state(history[-1]["data"]) != {name: row[name] for name in row if name != "id"}:
            yield f"booking {row['id']} does not have the state of its last event"
        yield from _wrong_steps(row["id"], history)
    for booking, history in events.items():
        if history[-1]["type"] != "booking.deleted":
            yield f"booking {booking} is gone, but its history has no deletion"
        yield from _wrong_steps(booking, history)


def occupancy_matches_slots_and_bookings(fetch: Fetch) -> Iterator[str]:
    """The occupancy table holds exactly the scheduled slots, and active bookings outside slots."""
    expected = Counter(
        (row["id"], row["calendar_id"], row["occupant"], row["seat"], row["starts"], row["ends"])
        for row in [
            {**booking, "occupant": booking["service_id"]}
            for booking in _active_bookings(fetch)
            if booking["slot_id"] is None
        ]
        + fetch(
            "SELECT id, calendar_id, id AS occupant, NULL::int AS seat, lower(blocked) AS starts,"
            " upper(blocked) AS ends FROM bookings_slot WHERE status = 'scheduled'"
        )
    )
    stored = Counter(
        tuple(row.values())
        for row in fetch(
            "SELECT id, calendar_id, occupant, seat, lower(blocked) AS starts,"
            " upper(blocked) AS ends FROM bookings_occupancy"
        )
    )
    for row in (expected - stored) + (stored - expected):
        yield f"occupancy of {row[0]} does not match its slot or booking"


def ratings_are_sums_of_reviews(fetch: Fetch) -> Iterator[str]:
    """A service's rating is computed from its reviews, and a booking has at most one review."""
    for row in fetch(
        "SELECT service.id FROM catalog_service AS service LEFT JOIN ("
        "  SELECT service_id, sum(rating) AS total, count(*) AS number"
        "  FROM reviews_review GROUP BY service_id"
        ") AS found ON found.service_id = service.id"
        " WHERE (service.rating_sum, service.rating_count)"
        " IS DISTINCT FROM (coalesce(found.total, 0), coalesce(found.number, 0))"
    ):
        yield f"the rating of service {row['id']} does not match its reviews"
    for row in fetch(
        # Reviews whose bookings were deleted are skipped.
        "SELECT booking_id FROM reviews_review WHERE booking_id IS NOT NULL"
        " GROUP BY booking_id HAVING count(*) > 1"
    ):
        yield f"booking {row['booking_id']} has two reviews"


def users_have_at_most_three_holds(fetch: Fetch) -> Iterator[str]:
    """A user has at most three live holds. All holds have an expiry, and other bookings do not."""
    for row in fetch(
        # Offers from the waitlist do not count, because users with three holds get them, too.
        "SELECT user_id, count(*) AS number FROM bookings_booking AS booking"
        " WHERE status = 'held' AND hold_expires_at > now() AND NOT EXISTS ("
        "  SELECT FROM bookings_waitlistentry AS entry WHERE entry.booking_id = booking.id)"
        " GROUP BY user_id"
    ):
        if row["number"] > MAX_HOLDS:
            yield f"user {row['user_id']} has {row['number']} live holds"
    for row in fetch(
        "SELECT id FROM bookings_booking"
        " WHERE (status = 'held') IS DISTINCT FROM (hold_expires_at IS NOT NULL)"
    ):
        yield f"booking {row['id']} is a hold without an expiry, or has an expiry and is not a hold"


def an_admin_is_active(fetch: Fetch) -> Iterator[str]:
    """There is an active admin."""
    if not fetch("SELECT id FROM accounts_user WHERE role = 'admin' AND is_active LIMIT 1"):
        yield "there is no active admin"


def no_job_has_failed(fetch: Fetch) -> Iterator[str]:
    """Jobs survive the end of their worker: no job is failed or aborted, or stays in `doing`."""
    for row in fetch(
        "SELECT task_name, status::text, count(*) AS number FROM procrastinate_jobs"
        " WHERE status IN ('failed', 'doing', 'aborted') GROUP BY 1, 2"
    ):
        yield f"{row['number']} jobs {row['task_name']} are {row['status']}"


def events_are_delivered_once(fetch: Fetch) -> Iterator[str]:
    """An active webhook has a delivery of each of its events since its creation.

    No webhook has two deliveries of one event, or a delivery of an event before its creation. The
    end of a hold (cancelled or expired) need not be delivered.
    """
    for row in fetch(
        "SELECT webhook.id AS webhook, event.id AS event FROM bookings_webhook AS webhook"
        " JOIN bookings_bookingevent AS event ON event.type = ANY (webhook.events)"
        " AND event.at > webhook.created_at"
        " WHERE webhook.is_active AND NOT (event.type IN ('booking.cancelled', 'booking.expired')"
        " AND event.data->'was'->>'status' IS NOT DISTINCT FROM 'held') AND NOT EXISTS ("
        "  SELECT FROM bookings_delivery AS delivery"
        "  WHERE (delivery.webhook_id, delivery.event_id) = (webhook.id, event.id))"
    ):
        yield f"webhook {row['webhook']} has no delivery of event {row['event']}"
    for row in fetch(
        "SELECT webhook_id, event_id, count(*) AS number FROM bookings_delivery"
        " WHERE event_id IS NOT NULL GROUP BY 1, 2 HAVING count(*) > 1"
    ):
        yield (
            f"webhook {row['webhook_id']} has {row['number']} deliveries of event {row['event_id']}"
        )
    for row in fetch(
        "SELECT delivery.id FROM bookings_delivery AS delivery"
        " JOIN bookings_webhook AS webhook ON webhook.id = delivery.webhook_id"
        " JOIN bookings_bookingevent AS event ON event.id = delivery.event_id"
        " WHERE event.at < webhook.created_at"
    ):
        yield f"delivery {row['id']} has an event from before its webhook was created"


CHECKS: list[Callable[[Fetch], Iterator[str]]] = [
    seats_are_taken_once,
    calendars_host_one_thing,
    bookings_are_in_their_slots,
    cancelled_slots_have_no_open_bookings,
    history_agrees_with_state,
    occupancy_matches_slots_and_bookings,
    ratings_are_sums_of_reviews,
    users_have_at_most_three_holds,
    an_admin_is_active,
    no_job_has_failed,
    events_are_delivered_once,
]


def _active_bookings(fetch: Fetch) -> list[Row]:
    return [
        row
        for row in fetch(
            "SELECT id, service_id, calendar_id, slot_id, seat, status,"
            " lower(blocked) AS starts, upper(blocked) AS ends FROM bookings_booking"
        )
        if row["status"] in ACTIVE
    ]


def _overlapping(rows: list[Row]) -> Iterator[tuple[Any, Any]]:
    """Yield the id of each row that overlaps an earlier row, after the id of such an earlier row.

    This is the earlier row that ends last. If rows with different occupants overlap, at least one
    of the pairs has different occupants.
    """
    ordered = sorted(rows, key=lambda row: row["starts"])
    latest: Row | None = None
    for row in ordered:
        if latest is not None and row["starts"] < latest["ends"]:
            yield latest["id"], row["id"]
        if latest is None or row["ends"] > latest["ends"]:
            latest = row


def _state(data: Row) -> Row:
    """Return the state that an event records, in the format of the booking's columns."""
    times = ("start_time", "end_time", "hold_expires_at")
    return {
        name: _instant(data[name]) if name in times else _parse_id(data[name])
        for name in ("status", "start_time", "end_time", "seat", "slot_id", "hold_expires_at")
    }


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _parse_id(value: Any) -> Any:
    """Return the text of an id as a UUID, and any other value unchanged."""
    return UUID(value) if isinstance(value, str) and len(value) == 36 else value


def _wrong_steps(booking: Any, history: list[Row]) -> Iterator[str]:
    states = [row["data"]["status"] for row in history]
    for before, after in pairwise(states):
        if after not in {before} | TRANSITIONS[before]:
            yield f"booking {booking} went from {before} to {after}"
