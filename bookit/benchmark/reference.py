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
from typing import Any
from uuid import UUID

import jwt
import psycopg
from psycopg.rows import dict_row
from psycopg.types.range import TimestamptzRange
from uuid_utils.compat import uuid7

from bookit.benchmark import queries

Row = dict[str, Any]

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
    return one(queries.SIGNED_IN, user_id=UUID(claims["user_id"]))


def show_service(service_id: UUID) -> Row:
    """Return a service."""
    return represent_service(one(queries.SERVICE, service_id=service_id))


def list_services(environ: Row) -> Row:
    """Return the first page of services."""
    rows = execute(queries.SERVICES).fetchall()
    count = one(queries.SERVICES_COUNT)["count"]
    return page(environ, count, [represent_service(row) for row in rows])


def list_bookings(environ: Row, user: Row) -> Row:
    """Return the first page of a user's own bookings."""
    rows = execute(queries.BOOKINGS, user_id=user["id"]).fetchall()
    return page(environ, one(queries.BOOKINGS_COUNT, user_id=user["id"])["count"], rows)


def create_booking(environ: Row, user: Row) -> tuple[str, Row]:
    """Book the lowest free seat."""
    body = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    service = one(queries.BOOKABLE, service_id=UUID(body["service_id"]))
    now, start = datetime.now(UTC), datetime.fromisoformat(body["start_time"])
    end = start + timedelta(minutes=service["duration_minutes"])
    before = timedelta(minutes=service["buffer_before_minutes"])
    after = timedelta(minutes=service["buffer_after_minutes"])
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
        "price": service["price"],
        "currency": service["currency"],
        "hold_expires_at": None,
        "created_at": now,
        "updated_at": now,
    }
    blocked = TimestamptzRange(start - before, end + after)
    while True:
        row = execute(
            queries.CREATE, **booking, blocked=blocked, capacity=service["capacity"]
        ).fetchone()
        if row is None:
            return "409 Conflict", {"status": 409, "code": "booking_conflict"}
        if row["taken"]:
            return "201 Created", {**booking, "seat": row["seat"]}


def execute(query: str, **values: object) -> psycopg.Cursor[Row]:
    """Run a prepared statement on the thread's own connection."""
    if not hasattr(thread, "connection"):
        thread.connection = psycopg.connect(DATABASE_URL, autocommit=True, row_factory=dict_row)
    cursor: psycopg.Cursor[Row] = thread.connection.execute(query, values, prepare=True)
    return cursor


def one(query: str, **values: object) -> Row:
    """Return the row, which must exist."""
    row = execute(query, **values).fetchone()
    if row is None:
        raise LookupError(query)
    return row


def represent_service(row: Row) -> Row:
    """Fill in the default step, and write the average as a number."""
    row["step_minutes"] = row["step_minutes"] or row["duration_minutes"]
    if row["rating_average"] is not None:
        row["rating_average"] = float(row["rating_average"])
    return row


def page(environ: Row, count: int, rows: list[Row]) -> Row:
    """Return a list's first page."""
    following = f"http://{environ['HTTP_HOST']}{environ['PATH_INFO']}?offset=20"
    return {
        "count": count,
        "next": following if count > 20 else None,
        "previous": None,
        "results": rows,
    }


def plain(value: object) -> str:
    """Return what JSON has no type for as text."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)
