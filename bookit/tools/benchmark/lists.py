"""Lists as clients request them: with filters, orders, later pages and cursors.

The reference (`reference.py`) has no filters of its own. For each request, it runs the statements
that `recorded` has seen BookIt run for this request, with the same values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection
from django.test import Client

from bookit.tools.benchmark.fill import Size, access_token, key, tomorrow

# In a recorded statement, this stands for the id of the user who sends the request.
USER = "the user"


@dataclass(frozen=True)
class ListRequest:
    """A request for a list.

    Args:
        plain: the name of the case that requests the same list without parameters; it can be this
            case itself.
        is_own: whether the request has the token of a customer.
    """

    name: str
    path: str
    plain: str
    is_own: bool = False


def requests(size: Size) -> list[ListRequest]:
    """Return the requests, each of which is a case of the benchmark."""
    calendar = key("calendar", 1)
    lisbon = key("user", size.lisbon_provider)
    course = key("service", size.courses[0])
    day = tomorrow()
    paths = {
        "services-category": "/services?category=sport",
        "services-q": "/services?q=yoga",
        "services-price": "/services?price_max=50&ordering=price",
        "services-provider": f"/services?provider_id={lisbon}&mode=open",
        "services-calendar": f"/services?calendar_id={calendar}&active=any",
        "services-order": "/services?ordering=-created_at",
        "services-page": "/services?page=3&limit=20",
        "slots": "/slots",
        "slots-available": "/slots?available=true",
        "slots-date": f"/slots?date={day}&service_id={course}",
        "bookings-status": "/bookings?status=pending,confirmed",
        "bookings-from": f"/bookings?from={day}",
        "bookings-order": "/bookings?ordering=-created_at",
        "bookings-page": "/bookings?page=2",
        "bookings-cursor": "/bookings?cursor=",  # an empty cursor means the first page
    }
    return [
        ListRequest(name, path, name.partition("-")[0], is_own=path.startswith("/bookings"))
        for name, path in paths.items()
    ]


def recorded(size: Size) -> dict[str, list[tuple[str, Any]]]:
    """Return the statements that BookIt runs for each request, by path, in a form fit for JSON.

    The requests run through Django in this process, on its database.
    """
    # Not one of the customers who book during the measurement (see `measure.signed_in_cases`).
    reader = size.customers // 2 + 1
    token = access_token(reader)
    found = {}
    for request in requests(size):
        statements: list[tuple[str, Any]] = []

        def note(execute: Any, sql: str, parameters: Any, many: bool, context: Any) -> Any:
            statements.append((sql, _encoded(parameters, UUID(key("user", reader)))))  # noqa: B023
            return execute(sql, parameters, many, context)

        headers = {"host": "localhost"}
        if request.is_own:
            headers["authorization"] = f"Bearer {token}"
        with connection.execute_wrapper(note):
            response = Client().get(request.path, headers=headers)
        assert response.status_code == 200, response.content  # noqa: S101 - only for developers
        # The first statement reads the user. The reference has its own statement for this.
        found[request.path] = statements[1:] if request.is_own else statements
    return found


def _encoded(value: Any, user: UUID) -> Any:
    if value == user:
        return {"kind": USER}
    if isinstance(value, UUID | Decimal | datetime):
        return {"kind": type(value).__name__, "value": str(value)}
    if isinstance(value, timedelta):
        return {"kind": "timedelta", "value": value.total_seconds()}
    if isinstance(value, Mapping):
        return {"kind": "names", "value": {name: _encoded(it, user) for name, it in value.items()}}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_encoded(each, user) for each in value]
    return value
