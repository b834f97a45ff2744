"""The measured requests by hand: one WSGI function, no framework. For comparison only.

It does what any implementation has to do (check the token, ask whether its user is active, run the
same SQL, write JSON) and nothing else: no validation beyond parsing, no routing, no logs, no error
handling. Each thread keeps one connection for good and prepares every statement.
"""

import json
import os
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

import jwt
import psycopg
from psycopg.rows import dict_row
from uuid_utils.compat import uuid7

from bookit.tools.benchmark import queries

Row = dict[str, Any]
T = TypeVar("T")

# The town is paid in dollars and euros.
CENT = Decimal("0.01")
DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)

SECRET_KEY = os.environ["SECRET_KEY"]
DATABASE_URL = os.environ["DATABASE_URL"]

thread = threading.local()


def application(environ: Row, start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer a request."""
    path = environ["PATH_INFO"]
    if path.startswith("/services/"):
        status, answer = "200 OK", show_service(UUID(path[10:]))
    elif path == "/services":
        status, answer = "200 OK", list_services(environ)
    elif environ["REQUEST_METHOD"] == "GET":
        status, answer = "200 OK", list_bookings(environ, signed_in(environ))
    else:
        status, answer = create_booking(environ, signed_in(environ))
    body = json.dumps(answer, default=plain).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]


def signed_in(environ: Row) -> Row:
    """Return the active user whose token this is."""
    token = environ["HTTP_AUTHORIZATION"].removeprefix("Bearer ")
    claims = jwt.decode(token, SECRET_KEY, algorithms=["HS256"])
    return named(queries.SIGNED_IN, user_id=UUID(claims["user_id"]))[0]


def show_service(service_id: UUID) -> Row:
    """Return a service."""
    return represent_service(named(queries.SERVICE, service_id=service_id)[0])


def list_services(environ: Row) -> Row:
    """Return the first page of services."""
    services = [represent_service(row) for row in named(queries.SERVICES)]
    [[count]] = rows(queries.SERVICES_COUNT)
    return page(environ, count, services)


def list_bookings(environ: Row, user: Row) -> Row:
    """Return the first page of a user's own bookings."""
    bookings = [
        {**row, "price": row["price"].quantize(CENT)}
        for row in named(queries.BOOKINGS, user_id=user["id"])
    ]
    [[count]] = rows(queries.BOOKINGS_COUNT, user_id=user["id"])
    return page(environ, count, bookings)


def create_booking(environ: Row, user: Row) -> tuple[str, Row]:
    """Book the lowest free seat, or say when there is one."""
    body = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    now, start = datetime.now(UTC), datetime.fromisoformat(body["start_time"])
    service = terms(
        queries.TERMS_AT_START, service_ids=[UUID(body["service_id"])], start_time=start
    )
    end = start + timedelta(minutes=service["duration_minutes"])
    booking = {
        "id": uuid7(),
        "user_id": user["id"],
        "service_id": service["id"],
        "calendar_id": service["calendar_id"],
        "slot_id": None,
        "seat": None,
        "start_time": start,
        "end_time": end,
        "status": "pending" if service["requires_confirmation"] else "confirmed",
        "attendee_name": body.get("attendee_name", ""),
        "attendee_email": body.get("attendee_email", ""),
        "notes": body.get("notes", ""),
        "price": service["price"].quantize(CENT),
        "currency": service["currency"],
        "hold_expires_at": None,
        "created_at": now,
        "updated_at": now,
    }
    more = {
        "capacity": service["capacity"],
        "version": service["version"],
        "occupant": service["id"],
        "blocked_from": start - timedelta(minutes=service["buffer_before_minutes"]),
        "blocked_until": end + timedelta(minutes=service["buffer_after_minutes"]),
        "event": "booking.created",
        "actor_id": user["id"],
        "at": now,
    }
    while found := rows(queries.CREATE, **booking, **more):
        seat, _, taken, _ = found[0]
        if taken:
            return "201 Created", {**booking, "seat": seat}
    alternatives = nearest(service["id"], start, now)
    return "409 Conflict", {
        "status": 409,
        "code": "booking_conflict",
        "alternatives": alternatives,
    }


def nearest(service_id: UUID, start: datetime, now: datetime) -> list[Row]:
    """Return the three free times nearest to `start`.

    The town's services have no opening hours, no slots and durations that divide a day, so that
    their grid begins at any midnight; and there are three free times a day.
    """
    from_, until = start - DAY, start + DAY + INSTANT
    service = terms(queries.TERMS_OF_SERVICES, service_ids=[service_id], **{"from": from_})
    duration = timedelta(minutes=service["duration_minutes"])
    window = {"service_ids": [service_id], "from": from_, "until": until, "at": now, "but": None}
    taken = rows(
        queries.TAKEN,
        calendar_ids=[service["calendar_id"]],
        several=[service["capacity"] > 1],
        before=[timedelta(minutes=service["buffer_before_minutes"])],
        after=[duration + timedelta(minutes=service["buffer_after_minutes"])],
        **window,
    )
    rows(queries.SLOTS, **window)
    midnight = from_.replace(hour=0, minute=0)
    times = [midnight + n * duration for n in range((until - midnight) // duration + 1)]
    times.sort(key=lambda time: abs(time - start))
    free = (
        {"start_time": time, "end_time": time + duration, "slot_id": None}
        for time in times
        if max(from_, now) <= time < until
        and not any(first < time < last for _, _, first, last in taken)
    )
    return list(islice(free, 3))


def execute(cursor: psycopg.Cursor[T], query: str, values: Row) -> list[T]:
    """Run a prepared statement and return its rows."""
    return cursor.execute(query, values, prepare=True).fetchall()


def connection() -> psycopg.Connection:
    """Return the thread's own connection."""
    if not hasattr(thread, "connection"):
        thread.connection = psycopg.connect(DATABASE_URL, autocommit=True)
    known: psycopg.Connection = thread.connection
    return known


def rows(query: str, **values: object) -> list[tuple[Any, ...]]:
    """Return rows as they come."""
    return execute(connection().cursor(), query, values)


def named(query: str, **values: object) -> list[Row]:
    """Return rows by the names of their columns."""
    return execute(connection().cursor(row_factory=dict_row), query, values)


def terms(query: str, **values: object) -> Row:
    """Return on what terms a service is booked, of whose columns some have the same name."""
    return dict(zip(queries.TERMS, rows(query, **values)[0], strict=False))


def represent_service(row: Row) -> Row:
    """Write the price and the average as they are read, and fill in the default step."""
    row["price"] = row["price"].quantize(CENT)
    row["step_minutes"] = row["step_minutes"] or row["duration_minutes"]
    if row["rating_average"] is not None:
        row["rating_average"] = float(row["rating_average"])
    return row


def page(environ: Row, count: int, results: list[Row]) -> Row:
    """Return a list's first page."""
    following = f"http://{environ['HTTP_HOST']}{environ['PATH_INFO']}?offset=20"
    return {
        "count": count,
        "next": following if count > 20 else None,
        "previous": None,
        "results": results,
    }


def plain(value: object) -> str:
    """Return what JSON has no type for as text."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)
