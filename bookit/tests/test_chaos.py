"""A bad day: what was acknowledged is there, once, and the checker would have noticed otherwise."""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from accounts.tests.factories import AdminFactory, UserFactory
from bookings import services
from bookings.tests.factories import TUESDAY, SlotFactory, WebhookFactory
from bookit.tests.chaos import checker
from bookit.tests.chaos.day import play
from bookit.tests.chaos.ledger import Closure, Ledger
from catalog.tests.factories import ServiceFactory, TimeOffFactory
from reviews import services as reviews

SECONDS = 20
TABLES = [
    *("bookings_booking", "bookings_slot", "bookings_occupancy", "bookings_bookingevent"),
    *("bookings_delivery", "reviews_review", "catalog_service", "accounts_user"),
]
# What PostgreSQL would refuse, and so what the checker could never see.
GUARDS = {
    "bookings_booking": [
        *("booking_seat_free", "booking_calendar_free", "booking_hold_expires", "booking_in_slot"),
    ],
    "bookings_slot": ["slots_apart", "slot_capacity_positive", "slot_blocked_contains_period"],
    "reviews_review": ["reviews_review_booking_id_key"],
}


def test_after_a_bad_day_everything_that_was_acknowledged_is_there_once(tmp_path):
    day = play(tmp_path, seconds=SECONDS, seed=20261126)
    assert day.violations == [], day.report()
    # The control: something was asked, changed and broken.
    assert day.ledger.acknowledged > 50
    assert sum(day.faults.values()) >= 2


@pytest.fixture
def town(db):
    """Return a day's tables as they should be, without what would keep them so."""
    user, admin = UserFactory(), AdminFactory()
    at = timezone.now()
    webhook = WebhookFactory(created_at=at - timedelta(hours=1))
    hour = ServiceFactory(requires_confirmation=False)
    alone = services.create_booking(actor=user, at=at, service_id=hour.pk, start_time=TUESDAY)
    beside = ServiceFactory(calendar=hour.calendar)
    slot = SlotFactory(
        capacity=2, service__calendar=hour.calendar, start_time=TUESDAY.replace(hour=15)
    )
    seated = services.create_booking(actor=user, at=at, slot_id=slot.pk)
    services.change_status(booking_id=alone.pk, status="completed", actor=admin, at=at)
    review = reviews.create_review(booking_id=alone.pk, actor=user, rating=5, at=at)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in TABLES:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            for constraint in GUARDS.get(table, []):
                cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {constraint}")
        cursor.execute(
            "INSERT INTO bookings_delivery (id, webhook_id, event_id, type, status, created_at)"
            " SELECT gen_random_uuid(), %s, id, type, 'delivered', now()"
            " FROM bookings_bookingevent WHERE type = ANY (%s)",
            [webhook.pk, webhook.events],
        )
    return {
        "alone": str(alone.pk),
        "seated": str(seated.pk),
        "slot": str(slot.pk),
        "hour": str(hour.pk),
        "beside": str(beside.pk),
        "review": str(review.pk),
        "user": str(user.pk),
        "webhook": str(webhook.pk),
    }


def found():
    """Return what the checker finds in this test's transaction."""
    return checker.violations(connection.connection)


def test_the_checker_finds_nothing_where_nothing_is_wrong(town):
    assert found() == []


BOOKING_AGAIN = """
INSERT INTO bookings_booking (id, user_id, service_id, calendar_id, slot_id, seat, start_time,
    end_time, blocked, status, attendee_name, attendee_email, notes, price, currency)
SELECT gen_random_uuid(), user_id, {service}, calendar_id, NULL, {seat}, start_time, end_time,
    blocked, status, '', '', '', price, currency
FROM bookings_booking WHERE id = '{{alone}}'
"""
SLOT_OVER_BOOKING = """
UPDATE bookings_slot SET blocked = (SELECT blocked FROM bookings_booking WHERE id = '{alone}')
WHERE id = '{slot}'
"""
NO_HISTORY = """
DELETE FROM bookings_delivery;
DELETE FROM bookings_bookingevent WHERE booking_id = '{alone}'
"""
OTHER_HISTORY = """
UPDATE bookings_bookingevent SET data = jsonb_set(data, '{{status}}', '"expired"')
WHERE booking_id = '{alone}' AND type = 'booking.created'
"""
NO_DELIVERY = """
DELETE FROM bookings_delivery WHERE id = (SELECT max(id::text)::uuid FROM bookings_delivery)
"""
# What a corruption looks like in the checker's words.
CORRUPTIONS = {
    "is taken by": BOOKING_AGAIN.format(service="service_id", seat="seat"),
    "hosts": BOOKING_AGAIN.format(service="'{beside}'", seat="1"),
    "at the same time": SLOT_OVER_BOOKING,
    "not agree": "UPDATE bookings_slot SET start_time = start_time - interval '1 h'",
    "has 0 seats and 1 bookings": "UPDATE bookings_slot SET capacity = 0",
    "a slot that is cancelled": "UPDATE bookings_slot SET status = 'cancelled'",
    "is not what": "UPDATE bookings_booking SET status = 'confirmed' WHERE id = '{alone}'",
    "has no history": NO_HISTORY,
    "went from expired to completed": OTHER_HISTORY,
    "does not say so": "DELETE FROM bookings_booking WHERE id = '{seated}'",
    "does not follow": "DELETE FROM bookings_occupancy WHERE id = '{alone}'",
    "the rating of": "UPDATE catalog_service SET rating_sum = 4 WHERE id = '{hour}'",
    "without being one": "UPDATE bookings_booking SET hold_expires_at = now()",
    "no active admin": "UPDATE accounts_user SET is_active = false",
    "are doing": "UPDATE procrastinate_jobs SET status = 'doing'",
    "was not told of event": NO_DELIVERY,
    "before its webhook": "UPDATE bookings_webhook SET created_at = now() + interval '1 h'",
}


@pytest.mark.parametrize("sentence", CORRUPTIONS)
def test_the_checker_finds_what_must_never_happen(town, sentence):
    with connection.cursor() as cursor:
        cursor.execute(CORRUPTIONS[sentence].format(**town))
    assert any(sentence in each for each in found()), found()


LOSSES = {
    "a booking": "DELETE FROM bookings_booking WHERE id = '{seated}'",
    "a review": "DELETE FROM reviews_review WHERE id = '{review}'",
    "an event": NO_HISTORY,
}


class TestLedger:
    def ledger(self, town):
        known = Ledger()
        known.made["bookings_booking"] |= {town["alone"], town["seated"]}
        known.made["reviews_review"].add(town["review"])
        known.events.append((town["alone"], "booking.created", town["user"]))
        return known

    def test_what_is_there_is_no_violation(self, town):
        assert self.ledger(town).violations(connection.connection) == []

    @pytest.mark.parametrize("loss", LOSSES)
    def test_what_was_acknowledged_and_is_lost_is_found(self, town, loss):
        known = self.ledger(town)
        with connection.cursor() as cursor:
            cursor.execute(LOSSES[loss].format(**town))
        assert len(known.violations(connection.connection)) == 1

    def test_a_booking_that_nobody_asked_for_is_found(self, town):
        known = self.ledger(town)
        known.made["bookings_booking"].remove(town["seated"])
        [violation] = known.violations(connection.connection)
        assert "were never acknowledged" in violation
        # An answer that never came explains one.
        known.unanswered["POST /bookings"] = 1
        assert known.violations(connection.connection) == []

    @pytest.mark.parametrize("is_named", [True, False])
    def test_a_booking_that_no_time_off_has_named_is_found(self, town, is_named):
        booking = services.Booking.objects.get(pk=town["seated"])
        time_off = TimeOffFactory(
            calendar=booking.calendar, start_time=booking.start_time, end_time=booking.end_time
        )
        known = self.ledger(town)
        named = frozenset({town["seated"]} if is_named else ())
        known.closures.append(
            Closure(str(booking.calendar_id), named, True, time_off_id=str(time_off.pk))
        )
        assert len(known.violations(connection.connection)) == (0 if is_named else 1)
