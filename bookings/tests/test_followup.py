"""Events and the jobs that follow from them: enqueued together, or not at all."""

import pytest
from django.db import connection, transaction
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from bookings import events
from bookings.models import BookingEvent
from bookings.tests.factories import BookingFactory

pytestmark = pytest.mark.django_db


def jobs():
    return [job.args for job in ProcrastinateJob.objects.filter(task_name="bookings.follow_up")]


def test_an_event_is_written_with_its_job():
    event = events.record(
        BookingFactory(), BookingEvent.Type.CREATED, actor=None, at=timezone.now()
    )
    assert jobs() == [{"event_ids": [event.pk]}]


def test_events_of_one_statement_share_a_job_whoever_writes_them():
    first, second = BookingFactory(), BookingFactory()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO bookings_bookingevent (booking_id, type, at, data)"
            " SELECT id, 'booking.completed', now(), '{}' FROM bookings_booking RETURNING id"
        )
        ids = sorted(row[0] for row in cursor)
    assert {first.pk, second.pk} == {event.booking_id for event in BookingEvent.objects.all()}
    assert jobs() == [{"event_ids": ids}]


def test_what_is_rolled_back_leaves_no_job():
    with transaction.atomic():
        events.record(BookingFactory(), BookingEvent.Type.CREATED, actor=None, at=timezone.now())
        transaction.set_rollback(True)
    assert jobs() == []


def test_nothing_follows_from_a_past_that_is_only_stored():
    with transaction.atomic():
        events.suppress_follow_up()
        events.record(BookingFactory(), BookingEvent.Type.CREATED, actor=None, at=timezone.now())
    assert jobs() == []
    assert BookingEvent.objects.count() == 1


def test_a_statement_that_writes_no_event_enqueues_nothing():
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO bookings_bookingevent (booking_id, type, at, data)"
            " SELECT id, 'booking.completed', now(), '{}' FROM bookings_booking"
        )
    assert jobs() == []


def test_whoever_books_does_not_take_turns_to_tell_workers():
    """NOTIFY locks the database until the commit is on disk, for one transaction at a time."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgname FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid"
            " WHERE tgrelid = 'procrastinate_jobs'::regclass AND tgenabled <> 'D'"
            " AND tgtype & 4 <> 0 AND prosrc ~* 'notify'"
        )
        assert cursor.fetchall() == []
