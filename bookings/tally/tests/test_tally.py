"""The totals count each event once, and reading them takes no longer as history grows.

The total of a status is how many times bookings have reached it: a stored number, which a worker
updates, plus the newer events. A reader counts at most `MAX_NEW_EVENTS` of them. If there are more,
the totals are too low until a worker has counted them.
"""

from datetime import timedelta

import psycopg
import pytest
from django.db import connection, transaction
from django.utils import timezone

from accounts.tests.factories import UserFactory
from bookings import clock, services
from bookings.models import Booking, BookingEvent
from bookings.tally import services as tally
from bookings.tally.models import BookingTally
from bookings.tests.factories import TUESDAY, BookingFactory
from bookings.tests.settle import settle
from bookings.tests.workers import database_url
from catalog.tests.factories import ServiceFactory

HOUR = timedelta(hours=1)


def totals():
    """Return the totals that are not 0."""
    return {status: number for status, number in tally.totals().items() if number}


def count_events():
    """Wait until all new events can be counted, add them to the total, and return their number."""
    settle()
    return tally.count_events()


def write_events(count, *, status="completed", transaction_id=None):
    """Write `count` events of one booking, by default with the id of their own transaction."""
    booking = BookingFactory()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL bookit.follow_up = off")
        cursor.execute(
            "INSERT INTO bookings_bookingevent (calendar_id, booking_id, type, at, data,"
            " transaction) SELECT %s, %s, %s, now(), jsonb_build_object('status', %s::text),"
            " coalesce(%s, pg_current_xact_id()::text::bigint) FROM generate_series(1, %s)",
            [booking.calendar_id, booking.pk, f"booking.{status}", status, transaction_id, count],
        )


def test_every_event_with_which_a_booking_reaches_a_status_is_counted():
    assert {*tally.TYPES} == {BookingEvent.Type.HELD, *services.EVENT_OF.values()}


@pytest.mark.django_db
def test_each_status_that_bookings_reach_is_counted():
    assert {*tally.totals()} == {*Booking.Status.values}
    user, service = UserFactory(), ServiceFactory(requires_confirmation=False)
    for number in range(2):
        services.create_booking(
            actor=user,
            service_id=service.pk,
            start_time=TUESDAY + number * HOUR,
            at=timezone.now(),
        )
    services.create_booking(
        actor=user, service_id=ServiceFactory().pk, start_time=TUESDAY, at=timezone.now()
    )
    assert totals() == {"confirmed": 2, "pending": 1}
    # A worker completes or expires the bookings.
    clock.complete_bookings(at=TUESDAY + 9 * HOUR)
    clock.expire_bookings(at=TUESDAY + 9 * HOUR)
    assert totals() == {"confirmed": 2, "pending": 1, "completed": 2, "expired": 1}


@pytest.mark.django_db
def test_events_without_a_new_status_are_not_counted():
    write_events(1, status="reminded")
    write_events(2, status="rescheduled")
    assert totals() == {}


@pytest.mark.django_db(transaction=True)
def test_adding_events_to_the_stored_total_does_not_change_the_totals():
    write_events(5)
    assert totals() == {"completed": 5}
    count_events()
    assert BookingTally.objects.get().counts == {"completed": 5}
    assert totals() == {"completed": 5}
    assert count_events() == 0
    write_events(1, status="cancelled")
    assert totals() == {"completed": 5, "cancelled": 1}
    count_events()
    assert totals() == {"completed": 5, "cancelled": 1}


@pytest.mark.django_db(transaction=True)
def test_an_event_that_commits_late_is_counted_once():
    booking = BookingFactory()
    insert = (
        "INSERT INTO bookings_bookingevent (calendar_id, booking_id, type, at, data)"
        """ VALUES (%s, %s, 'booking.completed', now(), '{"status": "completed"}')"""
    )
    with psycopg.connect(database_url()) as slow:
        slow.execute(insert, [booking.calendar_id, booking.pk])
        write_events(2)  # This transaction has a higher id, and commits earlier.
        tally.count_events()
        assert totals() == {"completed": 2}
    assert totals() == {"completed": 3}
    count_events()
    assert totals() == {"completed": 3}
    assert BookingTally.objects.get().counts == {"completed": 3}


@pytest.mark.django_db(transaction=True)
def test_the_totals_stay_exact_after_an_operator_resets_transaction_ids():
    """After a restore, an operator can set the transaction ids of all events to 0."""
    write_events(4)
    count_events()
    BookingTally.objects.update(transaction=2**60)  # The old server had higher ids.
    with connection.cursor() as cursor:
        cursor.execute(
            "ALTER TABLE bookings_bookingevent DISABLE TRIGGER booking_event_append_only"
        )
        cursor.execute("UPDATE bookings_bookingevent SET transaction = 0")
        cursor.execute("ALTER TABLE bookings_bookingevent ENABLE TRIGGER booking_event_append_only")
    assert totals() == {"completed": 4}
    write_events(1)
    assert totals() == {"completed": 5}
    count_events()
    count_events()
    assert totals() == {"completed": 5}


@pytest.mark.django_db
def test_reading_the_totals_reads_at_most_max_new_events(monkeypatch):
    """The limit applies however long the history is, and whether or not a worker runs."""
    write_events(20_000, transaction_id=3)
    BookingTally.objects.create(transaction=4, counts={"completed": 20_000})
    write_events(30)
    monkeypatch.setattr(tally, "MAX_NEW_EVENTS", 10)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE bookings_bookingevent")
        cursor.execute(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {tally._COUNT}",
            {"server": 0, "low": 4, "high": None, "most": tally.MAX_NEW_EVENTS}
            | {"types": tally.TYPES},
        )
        [[[explained]]] = cursor.fetchall()
    assert "Seq Scan" not in {
        plan["Node Type"]
        for plan in _plans(explained["Plan"])
        if plan.get("Relation Name") == "bookings_bookingevent"
    }
    assert [
        plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        for plan in _plans(explained["Plan"])
        if plan.get("Relation Name") == "bookings_bookingevent"
    ] == [tally.MAX_NEW_EVENTS]
    assert totals() == {"completed": 20_010}


def _plans(plan):
    yield plan
    for each in plan.get("Plans", []):
        yield from _plans(each)


@pytest.mark.django_db(transaction=True)
def test_many_events_are_added_in_batches(monkeypatch):
    monkeypatch.setattr(tally, "BATCH", 3)
    for _ in range(8):
        write_events(2)
    steps = []
    usual = tally._count_step
    monkeypatch.setattr(tally, "_count_step", lambda: steps.append(usual()) or steps[-1])
    assert count_events() == 16
    assert len(steps) > 4
    # A step ends with a whole transaction.
    assert {count for count, _more in steps} <= {0, 2, 4}
    assert totals() == {"completed": 16}
    assert BookingEvent.objects.count() == 16
