"""A WSGI function that responds to some measured requests without a framework, for comparison.

It does only what every implementation must do: it checks the token, checks that the user is active,
runs the statements that BookIt runs, and writes JSON. It parses values, but does not validate them.
It has no URL patterns, logs or error handling. Each thread keeps one connection and prepares every
statement.
"""

import json
import os
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any
from uuid import UUID

import jwt
import psycopg
from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

Row = dict[str, Any]

# Dollars and euros have two decimals.
CENT = Decimal("0.01")
DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

SECRET_KEY = os.environ["SECRET_KEY"]
DATABASE_URL = os.environ["DATABASE_URL"]
# The SQL by name, as `statements.statements` returns it.
STATEMENTS: dict[str, str] = json.loads(os.environ["BENCHMARK_STATEMENTS"])

# The statements of the requests in `lists`, by path, as `lists.recorded` returns them.
LISTS: dict[str, list[Any]] = json.loads(os.environ["BENCHMARK_LISTS"])

thread = threading.local()


def application(environ: Row, start_response: Callable[..., object]) -> Iterable[bytes]:
    """Respond to a request."""
    path, query = environ["PATH_INFO"], environ.get("QUERY_STRING", "")
    listed = LISTS.get(f"{path}?{query}" if query else path)
    if listed is not None:
        status, content = "200 OK", list_as_recorded(environ, listed)
    elif path.startswith("/services/"):
        status, content = "200 OK", show_service(UUID(path[10:]))
    elif path == "/services":
        status, content = "200 OK", list_services(environ)
    elif environ["REQUEST_METHOD"] == "GET":
        status, content = "200 OK", list_bookings(environ, signed_in(environ))
    else:
        status, content = create_booking(environ, signed_in(environ))
    body = json.dumps(content, default=plain).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]


def signed_in(environ: Row) -> Row:
    """Return the active user to whom the token belongs."""
    token = environ["HTTP_AUTHORIZATION"].removeprefix("Bearer ")
    claims = jwt.decode(token, SECRET_KEY, algorithms=["HS256"])
    return rows("signed_in", pk=UUID(claims["user_id"]))[0]


def show_service(service_id: UUID) -> Row:
    """Return a service."""
    return represent_service(rows("service", service_id=service_id)[0])


def list_services(environ: Row) -> Row:
    """Return the first page of services."""
    services = [represent_service(row) for row in rows("services")]
    return page(environ, count("services_count"), services)


def list_bookings(environ: Row, user: Row) -> Row:
    """Return the first page of a user's own bookings."""
    bookings = [represent_booking(row) for row in rows("bookings", user_id=user["id"])]
    return page(environ, count("bookings_count", user_id=user["id"]), bookings)


def list_as_recorded(environ: Row, statements: list[Any]) -> Row:
    """Return a page of a list. It is read with the statements that BookIt runs for the request."""
    user = signed_in(environ)["id"] if "HTTP_AUTHORIZATION" in environ else None
    shown: list[Row] = []
    order: list[UUID] = []
    total = None
    # A statement counts the rows, finds the ids of a page and perhaps the total, or reads rows.
    for text, parameters in statements:
        found = named(execute_text(text, decoded(parameters, user)))
        if found and "count" in found[0]:
            total = found[0]["count"]
        elif found and "total" in found[0]:
            total, order = found[0]["total"], [row["id"] for row in found]
        else:
            shown = found
    if order:
        by_id = {row["id"]: row for row in shown}
        shown = [by_id[pk] for pk in order]
    if shown and "user__name" in shown[0]:
        shown = [represent_booking(row) for row in shown]
    elif shown and "rating_average" in shown[0]:
        shown = [represent_service(row) for row in shown]
    # For a cursor, BookIt reads one row more than the page, to know whether another page follows.
    return page(environ, len(shown) if total is None else total, shown[:20])


def decoded(value: Any, user: UUID | None) -> Any:
    """Return the original of a value that `lists.recorded` has encoded for JSON.

    Args:
        user: the id of the user who sends the request. A value without `value` stands for it.
    """
    if isinstance(value, list):
        return [decoded(each, user) for each in value]
    if not isinstance(value, dict):
        return value
    if value["kind"] == "names":
        return {name: decoded(each, user) for name, each in value["value"].items()}
    return KINDS[value["kind"]](value["value"]) if "value" in value else user


KINDS: dict[str, Callable[[Any], object]] = {
    "timedelta": lambda seconds: timedelta(seconds=seconds),
    "UUID": UUID,
    "Decimal": Decimal,
    "datetime": datetime.fromisoformat,
}


def create_booking(environ: Row, user: Row) -> tuple[str, Row]:
    """Book the lowest free seat; if there is none, return the nearest free times."""
    body = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    now, start = datetime.now(UTC), datetime.fromisoformat(body["start_time"])
    service = rows("terms_at_start", service_ids=[UUID(body["service_id"])], start_time=start)[0]
    end = start + timedelta(minutes=service["duration_minutes"])
    booking = {
        "id": uuid7(),
        "user_id": user["id"],
        "service_id": service["service_id"],
        "calendar_id": service["calendar_id"],
        "slot_id": None,
        "seat": None,
        "start_time": start,
        "end_time": end,
        "status": "pending" if service["requires_confirmation"] else "confirmed",
        "attendee_name": body.get("attendee_name", ""),
        "attendee_email": body.get("attendee_email", ""),
        "attendee_phone": body.get("attendee_phone", ""),
        "language": body.get("language", ""),
        "notes": body.get("notes", ""),
        "price": service["price"].quantize(CENT),
        "currency": service["currency"],
        "hold_expires_at": None,
        "metadata": Jsonb({}),
        "created_at": now,
        "updated_at": now,
    }
    more = {
        "capacity": service["capacity"],
        "version": service["version"],
        "occupant": service["service_id"],
        "blocked_from": start - timedelta(minutes=service["buffer_before_minutes"]),
        "blocked_until": end + timedelta(minutes=service["buffer_after_minutes"]),
        "event": "booking.created",
        "actor_id": user["id"],
        "api_key_id": None,
        "at": now,
    }
    # An attempt that is not `taken` lost its seat to another transaction. Try the next free seat.
    while found := rows("create", **booking, **more):
        if found[0]["taken"]:
            own = {f"user__{name}": user[name] for name in ("name", "email", "phone", "language")}
            made = {
                **booking,
                **own,
                "seat": found[0]["seat"],
                "cancellation_reason": "",
                "metadata": {},
            }
            return "201 Created", represent_booking(made)
    return "409 Conflict", {
        "status": 409,
        "code": "booking_conflict",
        "alternatives": nearest(service["service_id"], start, now),
    }


def nearest(service_id: UUID, start: datetime, now: datetime) -> list[Row]:
    """Return the three free times nearest to `start`.

    The services that are booked have one seat, no opening hours and no slots, and their durations
    divide a day. Their possible start times can therefore be counted from any midnight. There are
    always three free times within a day.
    """
    from_, until = start - DAY, start + DAY + INSTANT
    window = {"from": from_, "until": until, "at": now, "ignored": None}
    [service] = rows("search", service_ids=[service_id], **window)
    duration = timedelta(minutes=service["duration_minutes"])
    midnight = from_.replace(hour=0, minute=0)
    times = [midnight + n * duration for n in range((until - midnight) // duration + 1)]
    times.sort(key=lambda time: abs(time - start))
    taken = [
        (EPOCH + after * INSTANT, EPOCH + ends * INSTANT) for _seat, after, ends in service["taken"]
    ]
    free = (
        {"start_time": time, "end_time": time + duration, "slot_id": None}
        for time in times
        if max(from_, now) <= time < until and not any(after < time < ends for after, ends in taken)
    )
    return list(islice(free, 3))


def execute(name: str, values: Row) -> psycopg.Cursor[Any]:
    """Run a statement by its name."""
    return execute_text(STATEMENTS[name], values)


def execute_text(text: str, values: Any) -> psycopg.Cursor[Any]:
    """Run a statement on the thread's own connection, as a prepared statement."""
    if not hasattr(thread, "connection"):
        thread.connection = psycopg.connect(DATABASE_URL, autocommit=True)
    connection: psycopg.Connection = thread.connection
    return connection.execute(text, values, prepare=True)


def count(name: str, **values: object) -> int:
    """Run a statement and return the only column of its only row."""
    [(number,)] = execute(name, values)
    return number


def rows(name: str, **values: object) -> list[Row]:
    """Run a statement and return its rows as dictionaries."""
    return named(execute(name, values))


def named(cursor: psycopg.Cursor[Any]) -> list[Row]:
    """Return the rows of a statement as dictionaries.

    If two columns have the same name, the first column counts.
    """
    names = [column.name for column in reversed(cursor.description or ())]
    return [dict(zip(names, reversed(row), strict=True)) for row in cursor]


def represent_service(row: Row) -> Row:
    """Return a service as the API shows it."""
    row["price"] = row["price"].quantize(CENT)
    row["step_minutes"] = row["step_minutes"] or row["duration_minutes"]
    if row["rating_average"] is not None:
        row["rating_average"] = float(row["rating_average"])
    return row


def represent_booking(row: Row) -> Row:
    """Return a booking as the API shows it."""
    for name in ("attendee_name", "attendee_email", "attendee_phone", "language"):
        own = row.pop(f"user__{name.removeprefix('attendee_')}")
        row[name] = row[name] or own
    row["price"] = row["price"].quantize(CENT)
    return row


def page(environ: Row, total: int, results: list[Row]) -> Row:
    """Return a page of a list. Its links are those of the first page."""
    following = f"http://{environ['HTTP_HOST']}{environ['PATH_INFO']}?offset=20"
    return {
        "count": total,
        "next": following if total > 20 else None,
        "previous": None,
        "results": results,
    }


def plain(value: object) -> str:
    """Return the text for a value of a type that JSON does not have."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)
