"""The SQL that BookIt runs for some of the measured requests, taken from the apps.

The reference (`reference.py`) and pgbench run the same statements. Parameters are written as
`%(name)s`. For lists with parameters, `lists` records the statements instead.
"""

from collections.abc import Iterable
from typing import Any

from psycopg.sql import Literal

from accounts.authentication import ACTIVE_USER
from bookings import seats
from bookings.availability import taken, terms
from bookings.booked import OWN_BOOKINGS
from bookings.serializers import BookingSerializer
from bookit.api.pagination import DEFAULT_LIMIT
from bookit.database.prepared import Parameter, Prepared
from catalog.models import Service
from catalog.serializers import ServiceSerializer
from catalog.viewsets import ACTIVE_SERVICES

SERVICE = Prepared(
    lambda service_id: Service.objects.order_by().filter(pk=service_id),
    ServiceSerializer.rows,
    service_id=Service._meta.pk,
)


def statements() -> dict[str, str]:
    """Return the statements by name.

    This may query the database, because Django writes SQL for the database's version.
    """
    services = ACTIVE_SERVICES().shaped(ServiceSerializer.rows).ordered(("title", "id")).query
    bookings = (
        OWN_BOOKINGS(user_id=None)
        .shaped(BookingSerializer.rows)
        .ordered(("start_time", "id"))
        .query
    )
    return {
        "signed_in": _named(ACTIVE_USER.text, ACTIVE_USER.parameters),
        "service": _named(f"{SERVICE.text} LIMIT 1", SERVICE.parameters),
        "services": _named(f"{services.text} LIMIT {DEFAULT_LIMIT}", services.parameters),
        "services_count": _named(services.count_text, services.bare[1]),
        "bookings": _named(f"{bookings.text} LIMIT {DEFAULT_LIMIT}", bookings.parameters),
        "bookings_count": _named(bookings.count_text, bookings.bare[1]),
        "terms_at_start": terms.TERMS_AT_START,
        "create": seats.CREATE_IN_SERVICE,
        "search": taken.SEARCH,
    }


def _named(text: str, parameters: Iterable[Any]) -> str:
    """Return SQL with the value of each `%s` in its place: a named parameter, or a literal."""
    return text % tuple(
        f"%({each.name})s" if isinstance(each, Parameter) else Literal(each).as_string()
        for each in parameters
    )
