"""Rows of a calendar contain its id, and every statement that locks or changes them names this id.

Therefore, the rows can be spread over several servers by calendar: each of these statements needs
only one server.
"""

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.apps import apps
from django.db import connection, models
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.tests.factories import AdminFactory, UserFactory
from bookings import clock
from bookings.desk import services as desk
from bookings.models import Booking, BookingEvent, Slot
from bookings.seats import close_expired_holds
from bookings.tests.factories import BookingFactory, SlotFactory, WebhookFactory
from bookings.tests.jobs import follow_events_up
from bookings.waitlist import services as waitlist
from bookings.waitlist.models import WaitlistEntry
from bookit.database.citus.layout import Layout, models_with
from bookit.database.constraints import Trigger
from bookit.tests.test_statements import ALL
from catalog.models import Calendar, OnCalendar
from catalog.tests.factories import CalendarFactory, ServiceFactory
from reviews.models import Review

MODELS = [model for model in apps.get_models() if issubclass(model, OnCalendar)]
TABLES = {model._meta.db_table for model in MODELS}

# Models that refer to a calendar, but whose rows do not belong to it, and the reason.
OTHERS = {
    "catalog.Service": "There are few services, so each server has a copy of all of them.",
    "bookings.Delivery": "A delivery belongs to its webhook, which gets events of all calendars.",
}
# Statements that change rows without naming their calendar, and the reason.
EXCEPTIONS = {
    "bookings.tally.positions._SHIFT": "After a restore, it changes all events of the server.",
    "bookit.tools.benchmark.fill.ADD_EVENTS": "It fills an empty database.",
    "bookit.tools.benchmark.churn.CHANGE": "It changes a database of the benchmark.",
    "bookit.tools.benchmark.churn.MOVE": "It changes a database of the benchmark.",
    "bookit.tools.benchmark.churn.DELETE": "It changes a database of the benchmark.",
}

TABLE = "|".join(sorted(TABLES))
INSERTS = re.compile(rf'INSERT INTO "?({TABLE})"?\s*\(([^()]*)\)')
CHANGES = re.compile(rf'(?:\bUPDATE|\bINSERT INTO|\bDELETE FROM) "?({TABLE})"?\b')
LOCKS = re.compile(r"\bFOR (?:NO KEY UPDATE|UPDATE|SHARE|KEY SHARE)\b")
USES = re.compile(rf'\b(?:FROM|JOIN|USING|UPDATE)\s+"?(?:{TABLE})"?(?![\w"])')
TEXT = re.compile(r"'(?:[^']|'')*'")
SUBQUERY = re.compile(r"\s*(?:SELECT|WITH|INSERT|UPDATE|DELETE)\b")
CONDITIONS = re.compile(r"\b(?:WHERE|ON)\b(?! CONFLICT)")


def levels(text: str) -> Iterator[str]:
    """Yield the subqueries of a statement, then the statement, each without its own subqueries."""
    own, start, depth = "", 0, 0
    for place, letter in enumerate(text):
        if letter == "(":
            depth += 1
            if depth == 1:
                start = place + 1
        elif letter == ")":
            depth -= 1
            if depth == 0:
                inner = [*levels(text[start:place])]
                if SUBQUERY.match(text[start:place]):
                    yield from inner
                    own += "()"
                else:
                    yield from inner[:-1]
                    own += f"({inner[-1]})"
        elif depth == 0:
            own += letter
    yield own


def locks_or_changes(text: str) -> bool:
    """Return whether a statement locks or changes rows of calendars."""
    text = TEXT.sub("''", text)
    return bool(CHANGES.search(text) or (LOCKS.search(text) and USES.search(text)))


def unnamed(text: str) -> list[str]:
    """Return the parts of a statement that reach rows of calendars without naming the calendar."""
    text = TEXT.sub("''", text)
    found = [insert[0] for insert in INSERTS.finditer(text) if "calendar_id" not in insert[2]]
    for level in levels(INSERTS.sub(r"INSERT INTO \1", text)):
        where = CONDITIONS.search(level)
        conditions = level[where.start() :] if where else ""
        # Each table that is read or changed needs a condition with `calendar_id`.
        if len(USES.findall(level)) > conditions.count("calendar_id"):
            found.append(level)
    return found


def label(model: type[models.Model]) -> str:
    return model._meta.label


# --- rows ---------------------------------------------------------------------------------------


def test_the_rows_that_belong_to_calendars_are_known():
    """A new model of a calendar's rows is listed here, and in "Rows of a calendar" of the docs."""
    assert {label(model) for model in MODELS} == {
        "catalog.OpeningHours",
        "catalog.TimeOff",
        "bookings.Slot",
        "bookings.Booking",
        "bookings.Occupancy",
        "bookings.BookingEvent",
        "bookings.WaitlistEntry",
        "bookings.StaffNote",
        "reviews.Review",
    }


def test_every_model_that_refers_to_a_calendar_or_to_its_rows_belongs_to_the_calendar():
    referring = {
        label(model)
        for model in apps.get_models()
        for field in model._meta.concrete_fields
        if field.is_relation and field.related_model in {Calendar, *MODELS}
    }
    assert referring - {label(model) for model in MODELS} == {*OTHERS}


@pytest.mark.django_db
@pytest.mark.parametrize("table", sorted(TABLES))
def test_the_calendar_of_a_row_is_never_empty(table):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT attnotnull FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attname = 'calendar_id'",
            [table],
        )
        assert cursor.fetchall() == [(True,)]


@pytest.mark.django_db
def test_every_foreign_key_to_rows_of_a_calendar_contains_the_calendar():
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT conname, (
                SELECT array_agg(mine.attname || ' = ' || theirs.attname)
                FROM unnest(conkey, confkey) AS pair (own, other)
                JOIN pg_attribute AS mine ON (mine.attrelid, mine.attnum) = (conrelid, own)
                JOIN pg_attribute AS theirs ON (theirs.attrelid, theirs.attnum) = (confrelid, other)
            )
            FROM pg_constraint WHERE contype = 'f' AND confrelid::regclass::text = ANY(%s)
            """,
            [[*TABLES]],
        )
        keys = dict(cursor.fetchall())
    assert keys.keys() >= {
        "booking_in_slot",
        "waitlist_slot_on_calendar",
        "waitlist_booking_on_calendar",
        "review_booking_on_calendar",
        "staff_note_on_calendar",
    }
    without = {name for name, pairs in keys.items() if "calendar_id = calendar_id" not in pairs}
    assert not without


# The tables to which Citus lets a table refer, by the layouts of both.
REFERENCES = {
    Layout.BY_CALENDAR: {Layout.BY_CALENDAR, Layout.EVERYWHERE},
    Layout.EVERYWHERE: {Layout.EVERYWHERE},
    None: {None, Layout.EVERYWHERE},
}


def keys_that_citus_refuses():
    """Return the names of the foreign keys with which `manage.py distribute` would fail."""
    layouts = {model._meta.db_table: layout for layout in Layout for model in models_with(layout)}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname, conrelid::regclass::text, confrelid::regclass::text"
            " FROM pg_constraint WHERE contype = 'f'"
        )
        keys = cursor.fetchall()
    return {
        name
        for name, table, target in keys
        if layouts.get(target) not in REFERENCES[layouts.get(table)]
    }


@pytest.mark.django_db
def test_every_foreign_key_is_possible_if_the_database_is_distributed():
    """If a key is not possible, store the id without a foreign key."""
    assert keys_that_citus_refuses() == set()


@pytest.mark.django_db
@pytest.mark.one_server("creates foreign keys that Citus refuses")
def test_a_foreign_key_that_citus_refuses_is_found():
    with connection.cursor() as cursor:
        cursor.execute(
            "ALTER TABLE bookings_staffnote"
            " ADD webhook_id uuid CONSTRAINT to_coordinator REFERENCES bookings_webhook"
        )
        cursor.execute(
            "ALTER TABLE bookings_webhook"
            " ADD slot_id uuid CONSTRAINT from_coordinator REFERENCES bookings_slot"
        )
    assert keys_that_citus_refuses() == {"to_coordinator", "from_coordinator"}


# --- statements ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        'UPDATE "bookings_booking" SET "status" = 1 WHERE "bookings_booking"."id" = 2',
        "DELETE FROM bookings_occupancy WHERE id = OLD.id",
        'INSERT INTO "bookings_bookingevent" ("booking_id", "type") VALUES (1, 2)',
        'SELECT "calendar_id" FROM "bookings_slot" WHERE ("id" = 1) FOR UPDATE',
        (
            "DELETE FROM bookings_booking WHERE calendar_id = 1 AND id IN"
            " (SELECT booking_id FROM reviews_review WHERE rating = 2)"
        ),
        "WITH due AS (SELECT id FROM bookings_booking WHERE id = 1 FOR SHARE) SELECT id FROM due",
    ],
)
def test_a_statement_that_does_not_name_the_calendar_is_found(text):
    """Control for the tests below, most of which would also pass if `unnamed` found nothing."""
    assert locks_or_changes(text)
    assert unnamed(text)


@pytest.mark.parametrize("statement", ALL, ids=lambda each: each.name)
def test_a_statement_that_locks_or_changes_rows_names_their_calendar(statement):
    if statement.name in EXCEPTIONS:
        assert unnamed(statement.text), "This statement is no longer an exception."
    elif locks_or_changes(statement.text):
        assert unnamed(statement.text) == []


def test_a_trigger_names_the_calendar_of_the_rows_that_it_reads_and_changes():
    checked = set()
    for model in apps.get_models():
        for constraint in model._meta.constraints:
            if isinstance(constraint, Trigger):
                for text in constraint.body.split(";"):
                    if CHANGES.search(text) or USES.search(text):
                        assert unnamed(text) == [], constraint.name
                        checked.add(constraint.name)
    assert checked == {
        "booking_occupies",
        "slot_occupies",
        "waitlist_follows",
        "booking_event_joins_history",
    }


# --- what requests and jobs do ------------------------------------------------------------------


@pytest.mark.django_db
def test_statements_of_requests_and_jobs_that_lock_or_change_rows_name_the_calendar(api):
    WebhookFactory()
    with CaptureQueriesContext(connection) as captured:
        _change_rows_of_every_table(api)
    texts = [query["sql"] for query in captured if locks_or_changes(query["sql"])]
    bad = {part for text in texts for part in unnamed(text)}
    assert not bad, "\n\n".join(bad)
    changed = {found for text in texts for found in CHANGES.findall(text)}
    # `_change_rows_of_every_table` must change each table. Only triggers write to the occupancy.
    assert changed == TABLES - {"bookings_occupancy"}
    for kind in ("UPDATE", "INSERT INTO", "DELETE FROM"):
        assert any(re.search(rf'{kind} "?(?:{TABLE})', text) for text in texts)
    assert any(LOCKS.search(text) for text in texts)


def _change_rows_of_every_table(api):
    """Change rows of each table that belongs to calendars, as users, staff and workers do."""
    now = timezone.now()
    begin = now.replace(minute=0, second=0, microsecond=0) + timedelta(days=30)
    boss = api.as_(AdminFactory())
    ana, bob = UserFactory(email="ana@example.com"), UserFactory()
    service = ServiceFactory(calendar=CalendarFactory(), capacity=3)
    calendar = service.calendar

    def at(hours):
        return (begin + timedelta(hours=hours)).isoformat()

    def call(client, method, path, body=None, status=200):
        response = getattr(client, method)(path, body)
        assert response.status_code == status, response.content
        return response.json() if response.content else {}

    def book(client, hours, **more):
        body = {"service_id": str(service.pk), "start_time": at(hours), **more}
        return f"/bookings/{call(client, 'post', '/bookings', body, 201)['id']}"

    # Bookings.
    customer = api.as_(ana)
    kept, hold, other = (book(customer, hours, hold=hours == 2) for hours in (0, 2, 4))
    call(customer, "patch", kept, {"start_time": at(1)})
    call(customer, "patch", kept, {"notes": "At the door.", "metadata": {"a": "b"}})
    call(customer, "patch", hold, {"status": "pending"})
    call(customer, "patch", hold, {"status": "cancelled", "reason": "Ill."})
    call(customer, "delete", other, status=204)
    call(boss, "patch", f"{kept}/status", {"status": "confirmed"})
    booking = Booking.objects.get(pk=kept.rpartition("/")[2])
    desk.add_note(booking_id=booking.pk, actor=AdminFactory(), text="Nice.", at=now)
    clock.send_reminders(at=booking.start_time - timedelta(hours=1))
    clock.complete_bookings(at=booking.end_time)
    book(customer, 6, hold=True)
    late = book(customer, 8)
    clock.expire_bookings(at=begin + timedelta(hours=9))
    assert call(customer, "get", late)["status"] == "expired"

    # Reviews.
    body = {"booking_id": str(booking.pk), "rating": 5}
    review = f"/reviews/{call(customer, 'post', '/reviews', body, 201)['id']}"
    call(customer, "patch", review, {"rating": 4})
    call(customer, "delete", review, status=204)
    call(customer, "post", "/reviews", body, 201)

    # Slots and waitlists.
    course = ServiceFactory(mode="slots", calendar=CalendarFactory(), capacity=1)
    new = {"service_id": str(course.pk), "start_time": at(0)}
    slot = f"/slots/{call(boss, 'post', '/slots', new, 201)['id']}"
    seat = {"slot_id": slot.rpartition("/")[2]}
    taken = call(api.as_(bob), "post", "/bookings", seat, 201)
    entry = call(customer, "post", f"{slot}/waitlist", {}, 201)
    leaver = call(api.as_(UserFactory()), "post", f"{slot}/waitlist", {}, 201)
    call(boss, "delete", f"{slot}/waitlist/{leaver['id']}", status=204)
    call(api.as_(bob), "patch", f"/bookings/{taken['id']}", {"status": "cancelled"})
    assert waitlist.offer_seats(at=timezone.now()) == 1
    assert WaitlistEntry.objects.get(pk=entry["id"]).status == "offered"
    call(boss, "delete", f"{slot}/waitlist/{entry['id']}", status=204)
    call(boss, "patch", slot, {"capacity": 2})
    call(boss, "patch", slot, {"status": "cancelled"})
    waiting = SlotFactory(service=course, start_time=begin + timedelta(days=1), capacity=1)
    BookingFactory(service=course, slot=waiting, start_time=waiting.start_time)
    call(customer, "post", f"/slots/{waiting.pk}/waitlist", {}, 201)
    unused = SlotFactory(service=course, start_time=begin + timedelta(days=2))
    call(boss, "delete", f"/slots/{unused.pk}", status=204)
    assert not Slot.objects.filter(pk=unused.pk).exists()
    close_expired_holds(
        calendar_id=calendar.pk, blocked=DateTimeTZRange(begin, begin + timedelta(days=1)), at=now
    )

    # Calendars.
    place = f"/calendars/{calendar.pk}"
    call(
        boss,
        "patch",
        place,
        {"opening_hours": [{"weekday": 0, "opens": "09:00", "closes": "10:00"}]},
    )
    call(boss, "patch", place, {"opening_hours": []})
    closed = {"start_time": at(48), "end_time": at(72), "reason": "Holiday"}
    off = call(boss, "post", f"{place}/time-off", closed, 201)
    call(boss, "delete", f"{place}/time-off/{off['id']}", status=204)

    # The work that follows events, and the deletion of an account.
    follow_events_up([*BookingEvent.objects.values_list("pk", flat=True)], at=timezone.now())
    call(boss, "delete", f"/users/{ana.pk}", status=204)
    assert Review.objects.get().calendar_id == calendar.pk
    call(boss, "delete", kept, status=204)
    assert Review.objects.get().booking_id is None
    assert not booking.staff_notes.exists()
