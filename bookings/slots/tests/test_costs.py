"""The cost of a list of slots: PostgreSQL counts seats only for the slots on the page."""

import json
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bookings.models import Slot
from bookings.slots.serializers import SlotSerializer
from bookings.tests.factories import SlotFactory
from catalog.tests.factories import ServiceFactory

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.one_server("reads the plans of one server"),
]

HOUR = timedelta(hours=1)


def nodes(plan):
    """Yield the nodes of a query plan."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def explained(sql):
    """Run a query, and return the nodes of the query plan that PostgreSQL used."""
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + sql.replace("%", "%%"), ())
        [[plan]] = cursor.fetchall()
    [plan] = json.loads(plan) if isinstance(plan, str) else plan
    return [*nodes(plan["Plan"])]


def counted(sql):
    """Return the number of slots for which a query counts the bookings."""
    return max(
        node["Actual Loops"]
        for node in explained(sql)
        if node.get("Relation Name") == "bookings_booking"
    )


def sql_of_page(api, path):
    """Return the SQL that finds the slots of a page."""
    with CaptureQueriesContext(connection) as captured:
        assert api.get(path).status_code == 200
    [sql] = [each["sql"] for each in captured if "seats_left" in each["sql"]]
    return sql


@pytest.fixture
def slots():
    """Thirty past slots and three future slots of one service."""
    service = ServiceFactory(mode="slots")
    now = timezone.now()
    for number in [*range(-31, -1), 1, 2, 3]:
        SlotFactory(service=service, start_time=now + number * 2 * HOUR)


def test_seats_of_slots_before_the_page_are_not_counted(api, slots):
    assert counted(sql_of_page(api, "/slots?limit=3&offset=20")) == 3
    plain = SlotSerializer.rows(Slot.objects.order_by("start_time", "id"))[20:23]
    with CaptureQueriesContext(connection) as captured:
        assert len(plain) == 3
    # Control: a plain queryset also counts the seats of the slots before the page.
    assert counted(captured[0]["sql"]) == 23


def test_a_search_for_available_slots_does_not_count_seats_of_past_slots(api, slots):
    assert counted(sql_of_page(api, "/slots?available=true")) == 3
    # Control: a search for slots that are not available counts the seats of past slots.
    assert counted(sql_of_page(api, "/slots?available=false")) > 3


def test_a_long_waitlist_of_one_slot_does_not_slow_down_lists_of_other_slots(api, slots):
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO accounts_user (id, password, name, email, role, timezone, is_active,"
            " created_at) SELECT gen_random_uuid(), '', 'x', 'crowd' || n || '@example.com',"
            " 'user', 'UTC', true, now() FROM generate_series(1, 5000) AS n"
        )
        slot = Slot.objects.order_by("start_time").first()
        cursor.execute(
            "INSERT INTO bookings_waitlistentry (id, status, created_at, updated_at, calendar_id,"
            " slot_id, user_id) SELECT gen_random_uuid(), 'waiting', now(), now(), %s, %s, id"
            " FROM accounts_user WHERE email LIKE 'crowd%%'",
            [slot.calendar_id, slot.pk],
        )
        # PostgreSQL refuses the ALTER TABLE below while foreign keys still have to be checked.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ANALYZE bookings_waitlistentry")
    sql = sql_of_page(api, "/slots?limit=5&offset=10")

    def scans():
        return {
            node["Node Type"]
            for node in explained(sql)
            if node.get("Relation Name") == "bookings_waitlistentry"
        }

    assert "Seq Scan" not in scans()
    # Control: without the `n_distinct` of the column, the planner reads all waitlists.
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE bookings_waitlistentry ALTER COLUMN slot_id RESET (n_distinct)")
        cursor.execute("ANALYZE bookings_waitlistentry")
    assert "Seq Scan" in scans()
