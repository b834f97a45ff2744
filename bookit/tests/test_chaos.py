"""After a simulated day of faults (20 seconds), every acknowledged change is stored exactly once.

The checker finds every kind of corruption.
"""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from accounts.tests.factories import AdminFactory, UserFactory
from bookings import services
from bookings.models import Booking
from bookings.tests.factories import TUESDAY, SlotFactory, WebhookFactory
from bookit.tests.chaos import checker
from bookit.tests.chaos.day import is_caused_by_a_fault, play
from bookit.tests.chaos.ledger import Closure, Ledger
from catalog.tests.factories import ServiceFactory, TimeOffFactory
from reviews import services as reviews

SECONDS = 20
# Tables whose triggers are disabled, and constraints that are dropped, by table. They would prevent
# the tests from corrupting the data.
TABLES = [
    *("bookings_booking", "bookings_slot", "bookings_occupancy", "bookings_bookingevent"),
    *("bookings_delivery", "reviews_review", "catalog_service", "accounts_user"),
]
GUARDS = {
    "bookings_booking": [
        *("booking_seat_free", "booking_calendar_free", "booking_hold_expires", "booking_in_slot"),
    ],
    "bookings_slot": ["slot_capacity_positive", "slot_blocked_contains_period"],
    "bookings_delivery": ["delivery_once"],
    "reviews_review": ["reviews_review_booking_id_key"],
}


def test_acknowledged_changes_exist_once_after_a_day_of_faults(tmp_path, migrate):
    day = play(tmp_path, seconds=SECONDS, seed=20261126, migrate=migrate)
    assert day.violations == [], day.report()
    # Control: requests were acknowledged, and faults happened.
    assert day.ledger.acknowledged > 50
    assert sum(day.faults.values()) >= 2


@pytest.mark.parametrize(
    ("cause", "is_fault"),
    [
        ("psycopg.OperationalError: consuming input failed: server closed the connection", True),
        ("psycopg.errors.AdminShutdown: terminating connection", True),
        ("psycopg.errors.DeadlockDetected: deadlock detected", False),
    ],
)
def test_lost_connections_are_attributed_to_faults_but_deadlocks_are_not(cause, is_fault):
    traceback = f"{cause}\n\nThe above exception ...\n\ndjango.db.utils.OperationalError: ..."
    assert is_caused_by_a_fault(traceback) == is_fault


@pytest.fixture
def town(db):
    """Store consistent data, disable triggers and constraints, and return the ids by name."""
    user, admin = UserFactory(), AdminFactory()
    at = timezone.now()
    webhook = WebhookFactory(created_at=at - timedelta(hours=1))
    open_service = ServiceFactory(requires_confirmation=False)
    plain = services.create_booking(
        actor=user, at=at, service_id=open_service.pk, start_time=TUESDAY
    )
    neighbour = ServiceFactory(calendar=open_service.calendar)
    slot = SlotFactory(
        capacity=2,
        service__calendar=open_service.calendar,
        start_time=TUESDAY.replace(hour=15),
    )
    in_slot = services.create_booking(actor=user, at=at, slot_id=slot.pk)
    services.change_status(booking_id=plain.pk, status="completed", actor=admin, at=at)
    review = reviews.create_review(booking_id=plain.pk, actor=user, rating=5, at=at)
    with connection.cursor() as cursor:
        # PostgreSQL alters no table for which deferred checks are pending.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in TABLES:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            for constraint in GUARDS.get(table, []):
                cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}")
        cursor.execute(
            "INSERT INTO bookings_delivery"
            " (id, webhook_id, calendar_id, event_id, type, status, created_at)"
            " SELECT gen_random_uuid(), %s, calendar_id, id, type, 'delivered', now()"
            " FROM bookings_bookingevent WHERE type = ANY (%s)",
            [webhook.pk, webhook.events],
        )
    return {
        "plain": str(plain.pk),
        "in_slot": str(in_slot.pk),
        "slot": str(slot.pk),
        "open_service": str(open_service.pk),
        "neighbour": str(neighbour.pk),
        "review": str(review.pk),
        "user": str(user.pk),
        "webhook": str(webhook.pk),
    }


def found():
    """Return the violations that the checker finds in this test's transaction."""
    return checker.violations(connection.connection)


def test_the_checker_finds_no_violation_in_consistent_data(town):
    assert found() == []


BOOKING_AGAIN = """
INSERT INTO bookings_booking (id, user_id, service_id, calendar_id, slot_id, seat, start_time,
    end_time, blocked, status, attendee_name, attendee_email, notes, price, currency)
SELECT gen_random_uuid(), user_id, {service}, calendar_id, NULL, {seat}, start_time, end_time,
    blocked, status, '', '', '', price, currency
FROM bookings_booking WHERE id = '{{plain}}'
"""
SLOT_OVER_BOOKING = """
UPDATE bookings_slot SET blocked = (SELECT blocked FROM bookings_booking WHERE id = '{plain}')
WHERE id = '{slot}'
"""
FOUR_HOLDS = """
INSERT INTO bookings_booking (id, user_id, service_id, calendar_id, seat, start_time, end_time,
    blocked, status, hold_expires_at, attendee_name, attendee_email, notes, price, currency)
SELECT gen_random_uuid(), user_id, service_id, calendar_id, seat, start_time, end_time, blocked,
    'held', now() + interval '1 h', '', '', '', price, currency
FROM bookings_booking, generate_series(1, 4) WHERE id = '{plain}'
"""
REVIEW_AGAIN = """
INSERT INTO reviews_review (id, calendar_id, booking_id, service_id, user_id, rating, comment)
SELECT gen_random_uuid(), calendar_id, booking_id, service_id, user_id, rating, comment
FROM reviews_review
"""
NO_HISTORY = """
DELETE FROM bookings_delivery;
DELETE FROM bookings_bookingevent WHERE booking_id = '{plain}'
"""
OTHER_HISTORY = """
UPDATE bookings_bookingevent SET data = jsonb_set(data, '{{status}}', '"expired"')
WHERE booking_id = '{plain}' AND type = 'booking.created'
"""
NO_DELIVERY = """
DELETE FROM bookings_delivery WHERE id = (SELECT max(id::text)::uuid FROM bookings_delivery)
"""
DELIVERY_AGAIN = """
INSERT INTO bookings_delivery (id, webhook_id, calendar_id, event_id, type, status, created_at)
SELECT gen_random_uuid(), webhook_id, calendar_id, event_id, type, status, created_at
FROM bookings_delivery
"""
# SQL statements that corrupt the data. Each key is a part of the sentence that the checker reports.
CORRUPTIONS = {
    "is taken by": BOOKING_AGAIN.format(service="service_id", seat="seat"),
    "hosts": BOOKING_AGAIN.format(service="'{neighbour}'", seat="1"),
    "at the same time": SLOT_OVER_BOOKING,
    "not agree": "UPDATE bookings_slot SET start_time = start_time - interval '1 h'",
    "has 0 seats and 1 bookings": "UPDATE bookings_slot SET capacity = 0",
    "a slot that is cancelled": "UPDATE bookings_slot SET status = 'cancelled'",
    "of its last event": "UPDATE bookings_booking SET status = 'confirmed' WHERE id = '{plain}'",
    "has no history": NO_HISTORY,
    "went from expired to completed": OTHER_HISTORY,
    "has no deletion": "DELETE FROM bookings_booking WHERE id = '{in_slot}'",
    "does not match its slot": "DELETE FROM bookings_occupancy WHERE id = '{plain}'",
    "the rating of": "UPDATE catalog_service SET rating_sum = 4 WHERE id = '{open_service}'",
    "has two reviews": REVIEW_AGAIN,
    "has 4 live holds": FOUR_HOLDS,
    "is not a hold": "UPDATE bookings_booking SET hold_expires_at = now()",
    "no active admin": "UPDATE accounts_user SET is_active = false",
    "are doing": "UPDATE procrastinate_jobs SET status = 'doing'",
    "has no delivery of event": NO_DELIVERY,
    "has 2 deliveries of event": DELIVERY_AGAIN,
    "from before its webhook": "UPDATE bookings_webhook SET created_at = now() + interval '1 h'",
}


@pytest.mark.parametrize("sentence", CORRUPTIONS)
def test_the_checker_finds_every_corruption(town, sentence):
    with connection.cursor() as cursor:
        cursor.execute(CORRUPTIONS[sentence].format(**town))
    assert any(sentence in each for each in found()), found()


LOSSES = {
    "a booking": "DELETE FROM bookings_booking WHERE id = '{in_slot}'",
    "a review": "DELETE FROM reviews_review WHERE id = '{review}'",
    "an event": NO_HISTORY,
}


class TestLedger:
    def ledger(self, town):
        known = Ledger()
        known.made["bookings_booking"] |= {town["plain"], town["in_slot"]}
        known.made["reviews_review"].add(town["review"])
        known.events.append((town["plain"], "booking.created", town["user"]))
        return known

    def test_no_violation_is_found_if_all_acknowledged_rows_are_stored(self, town):
        assert self.ledger(town).violations(connection.connection) == []

    @pytest.mark.parametrize("loss", LOSSES)
    def test_a_lost_acknowledged_row_is_found(self, town, loss):
        known = self.ledger(town)
        with connection.cursor() as cursor:
            cursor.execute(LOSSES[loss].format(**town))
        assert len(known.violations(connection.connection)) == 1

    def test_a_booking_that_was_never_acknowledged_is_found(self, town):
        known = self.ledger(town)
        known.made["bookings_booking"].remove(town["in_slot"])
        [violation] = known.violations(connection.connection)
        assert "were never acknowledged" in violation
        # A request whose outcome is unknown explains one unacknowledged booking.
        known.unclear_requests["POST /bookings"] = 1
        assert known.violations(connection.connection) == []

    @pytest.mark.parametrize("is_listed", [True, False])
    def test_a_booking_missing_from_the_response_to_time_off_is_found(self, town, is_listed):
        booking = Booking.objects.get(pk=town["in_slot"])
        time_off = TimeOffFactory(
            calendar=booking.calendar, start_time=booking.start_time, end_time=booking.end_time
        )
        known = self.ledger(town)
        named = frozenset({town["in_slot"]} if is_listed else ())
        known.closures.append(
            Closure(str(booking.calendar_id), named, is_complete=True, time_off_id=str(time_off.pk))
        )
        assert len(known.violations(connection.connection)) == (0 if is_listed else 1)
