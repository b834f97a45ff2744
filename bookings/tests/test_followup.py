"""An event and the job that follows it up are stored together or not at all."""

import pytest
from django.db import connection, transaction
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from bookings import events
from bookings.followup import follow_up
from bookings.models import BookingEvent
from bookings.tests.factories import BookingFactory, WebhookFactory
from bookings.webhooks.models import Delivery

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.one_server("on a cluster, the jobs are first written to the table bookit_outbox"),
]


def jobs():
    return [job.args for job in ProcrastinateJob.objects.filter(task_name="bookings.follow_up")]


def test_an_event_is_stored_with_its_job():
    event = events.record(
        BookingFactory(), BookingEvent.Type.CREATED, actor=None, at=timezone.now()
    )
    assert jobs() == [{"calendar_ids": [str(event.calendar_id)], "event_ids": [str(event.pk)]}]


def test_events_inserted_by_one_statement_share_a_job():
    first, second = BookingFactory(), BookingFactory()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO bookings_bookingevent (calendar_id, booking_id, type, at, data)"
            " SELECT calendar_id, id, 'booking.completed', now(), '{}' FROM bookings_booking"
            " RETURNING id"
        )
        ids = sorted(str(row[0]) for row in cursor)
    assert {first.pk, second.pk} == {event.booking_id for event in BookingEvent.objects.all()}
    calendars = sorted([str(first.calendar_id), str(second.calendar_id)])
    assert jobs() == [{"calendar_ids": calendars, "event_ids": ids}]


def test_an_event_that_is_rolled_back_leaves_no_job():
    with transaction.atomic():
        events.record(BookingFactory(), BookingEvent.Type.CREATED, actor=None, at=timezone.now())
        transaction.set_rollback(True)
    assert jobs() == []


def test_events_enqueue_no_job_while_follow_up_is_suppressed():
    with transaction.atomic():
        events.suppress_follow_up()
        events.record(BookingFactory(), BookingEvent.Type.CREATED, actor=None, at=timezone.now())
    assert jobs() == []
    assert BookingEvent.objects.count() == 1


def test_a_job_for_webhooks_alone_stores_all_of_its_work_or_nothing(monkeypatch):
    WebhookFactory()
    event = events.record(
        BookingFactory(), BookingEvent.Type.CREATED, actor=None, at=timezone.now()
    )
    work = {"calendar_ids": [event.calendar_id], "event_ids": [event.pk], "at": timezone.now()}
    with monkeypatch.context() as broken:
        broken.setattr("bookings.webhooks.services.wake", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            follow_up(**work, only_webhooks=True)
    assert not Delivery.objects.exists()
    follow_up(**work, only_webhooks=True)
    assert Delivery.objects.get().event_id == event.pk


def test_a_statement_that_inserts_no_event_enqueues_nothing():
    with connection.cursor() as cursor:
        # There is no booking, so this statement inserts no event.
        cursor.execute(
            "INSERT INTO bookings_bookingevent (calendar_id, booking_id, type, at, data)"
            " SELECT calendar_id, id, 'booking.completed', now(), '{}' FROM bookings_booking"
        )
    assert jobs() == []


def test_inserting_a_job_does_not_run_notify():
    """NOTIFY holds a database-wide lock until the commit is on disk, so it serialises commits."""
    with connection.cursor() as cursor:
        # In tgtype, the bit with the value 4 marks triggers that run on INSERT.
        cursor.execute(
            "SELECT tgname FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid"
            " WHERE tgrelid = 'procrastinate_jobs'::regclass AND tgenabled <> 'D'"
            " AND tgtype & 4 <> 0 AND prosrc ~* 'notify'"
        )
        assert cursor.fetchall() == []
