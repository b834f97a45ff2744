"""The export of all records that can be moved to another system, as JSON Lines."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction
from django.db.models import Model

from accounts.models import User
from accounts.roles.models import Role
from bookings.desk.models import StaffNote
from bookings.mails.models import MailText
from bookings.models import Booking, BookingEvent, Slot
from bookings.waitlist.models import WaitlistEntry
from bookit.deadlines import no_time_limit_in_transaction
from bookit.json import dumps
from catalog.models import Calendar, OpeningHours, Service, TimeOff
from catalog.providers.models import Profile
from reviews.models import Review

# The models, in an order in which each record refers only to records before it. Only events can
# refer to records that are missing: a deleted booking or calendar.
MODELS: list[type[Model]] = [
    Role,
    User,
    Profile,
    Calendar,
    OpeningHours,
    TimeOff,
    Service,
    Slot,
    Booking,
    BookingEvent,
    StaffNote,
    WaitlistEntry,
    Review,
    MailText,
]
# Columns that are left out: secrets, values that are computed from other columns or records, and
# values that mean nothing in another system.
LEFT_OUT = {
    *("password", "version", "blocked", "transaction", "server", "api_key_id"),
    *("group_id", "last_login", "rating_sum", "rating_count"),
}
# The number of records that are read at a time.
CHUNK = 2000


def lines() -> Iterator[bytes]:
    """Yield each record as a line of JSON, from one snapshot of the database.

    The member `record` names the kind of the record. Times are in UTC, except opening hours, which
    are in the zone of their calendar.
    """
    with (
        transaction.atomic(),
        no_time_limit_in_transaction(),
        _server_side_cursors(),
        connection.cursor() as cursor,
    ):
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for model in MODELS:
            kind = model._meta.label_lower.partition(".")[2]
            for row in _rows(model):
                yield dumps({"record": kind, **row}) + b"\n"


@contextmanager
def _server_side_cursors() -> Iterator[None]:
    """Let `iterator` read rows in chunks, even if DATABASE_POOL_SIZE is 0, as with PgBouncer.

    Outside a transaction, PgBouncer could look for the cursor on another connection. Therefore, the
    block must be in a transaction.
    """
    usual = connection.settings_dict
    connection.settings_dict = {**usual, "DISABLE_SERVER_SIDE_CURSORS": False}
    try:
        yield
    finally:
        connection.settings_dict = usual


def columns(model: type[Model]) -> list[str]:
    """Return the names of the columns of a model that are exported."""
    return [
        field.attname
        for field in model._meta.concrete_fields
        if not field.generated and field.attname not in LEFT_OUT
    ]


def _rows(model: type[Model]) -> Iterator[dict[str, Any]]:
    if model is Role:
        for role in Role.objects.select_related("group").order_by("pk"):
            shown = {name: getattr(role, name) for name in columns(Role)}
            yield {**shown, "name": role.name, "permissions": role.permissions}
        return
    rows = model._default_manager.order_by("pk").values(*columns(model))
    held = _roles() if model is User else {}
    for row in rows.iterator(chunk_size=CHUNK):
        yield {**row, "roles": held.get(row["id"], [])} if model is User else row


def _roles() -> dict[Any, list[str]]:
    """Return the names of the staff roles of each user who has any."""
    held: dict[Any, list[str]] = {}
    pairs = User.groups.through.objects.order_by("group__name")
    for user_id, name in pairs.values_list("user_id", "group__name"):
        held.setdefault(user_id, []).append(name)
    return held
