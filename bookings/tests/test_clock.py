"""As time passes, bookings are completed or expire, and reminders are sent."""

from datetime import timedelta
from functools import partial

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from procrastinate.contrib.django import app

from accounts.tests.factories import UserFactory
from bookings import clock, services
from bookings.events import record
from bookings.models import Booking, BookingEvent
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory
from bookit.tests.crowd import at_once
from catalog.tests.factories import ServiceFactory

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def statuses():
    return [booking.status for booking in Booking.objects.order_by("start_time", "id")]


def lock(booking):
    """Lock a booking until the transaction ends."""
    Booking.with_id(booking.pk, booking.calendar_id).select_for_update(no_key=True).get()


def history(booking):
    return [event.type for event in BookingEvent.objects.filter(booking_id=booking.pk)]


class TestCompleting:
    def test_a_confirmed_booking_is_completed_when_it_ends(self):
        booking = BookingFactory(status="confirmed")
        assert clock.complete_bookings(at=booking.end_time - SECOND) == 0
        assert statuses() == ["confirmed"]
        assert clock.complete_bookings(at=booking.end_time) == 1
        booking.refresh_from_db()
        assert (booking.status, booking.updated_at) == ("completed", booking.end_time)
        event = BookingEvent.objects.get()
        assert (event.type, event.actor, event.at) == ("booking.completed", None, booking.end_time)
        assert event.data == {
            "status": "completed",
            "start_time": booking.start_time.isoformat(),
            "end_time": booking.end_time.isoformat(),
            "seat": 1,
            "slot_id": None,
            "hold_expires_at": None,
            "was": {"status": "confirmed"},
        }

    def test_a_booking_is_completed_once(self):
        booking = BookingFactory(status="confirmed")
        assert clock.complete_bookings(at=booking.end_time) == 1
        assert clock.complete_bookings(at=booking.end_time + HOUR) == 0
        assert history(booking) == ["booking.completed"]

    @pytest.mark.parametrize("status", sorted({*Booking.Status} - {"confirmed"}))
    def test_only_confirmed_bookings_are_completed(self, status):
        booking = BookingFactory(status=status)
        assert clock.complete_bookings(at=booking.end_time + DAY) == 0
        assert statuses() == [status]

    def test_a_backlog_of_days_is_completed_in_batches(self, monkeypatch):
        monkeypatch.setattr(clock, "BATCH", 3)
        service = ServiceFactory()
        for hours in range(7):
            BookingFactory(service=service, start_time=TUESDAY + hours * HOUR, status="confirmed")
        with CaptureQueriesContext(connection) as captured:
            assert clock.complete_bookings(at=TUESDAY + 5 * DAY) == 7
        batches = [query for query in captured if "UPDATE" in query["sql"]]
        assert len(batches) == 3
        assert statuses() == ["completed"] * 7

    def test_the_command_prints_how_many_bookings_were_completed(self, capsys):
        start_time = TUESDAY.replace(year=2020)
        BookingFactory(status="confirmed", start_time=start_time)
        call_command("complete_bookings")
        assert capsys.readouterr().out == "1 bookings completed.\n"
        assert statuses() == ["completed"]


class TestExpiring:
    def test_an_unconfirmed_booking_expires_when_it_starts(self):
        booking = BookingFactory()
        assert clock.expire_bookings(at=TUESDAY - SECOND) == 0
        assert clock.expire_bookings(at=TUESDAY) == 1
        booking.refresh_from_db()
        assert booking.status == "expired"
        assert history(booking) == ["booking.expired"]

    def test_an_expired_booking_frees_its_time(self):
        booking = BookingFactory()
        clock.expire_bookings(at=TUESDAY)
        # The database would refuse this booking if the time were still taken.
        BookingFactory(service=booking.service)

    def test_a_hold_expires_at_its_expiry_time(self):
        ends = TUESDAY - DAY
        booking = BookingFactory(status="held", hold_expires_at=ends)
        assert clock.expire_bookings(at=ends - SECOND) == 0
        assert clock.expire_bookings(at=ends) == 1
        booking.refresh_from_db()
        assert (booking.status, booking.hold_expires_at) == ("expired", None)
        assert BookingEvent.objects.get().data["was"] == {"status": "held"}

    @pytest.mark.parametrize("status", ["confirmed", "cancelled", "completed", "no_show"])
    def test_bookings_in_other_states_do_not_expire(self, status):
        BookingFactory(status=status)
        assert clock.expire_bookings(at=TUESDAY + DAY) == 0
        assert statuses() == [status]

    def test_the_command_prints_how_many_bookings_expired(self, capsys):
        BookingFactory(start_time=TUESDAY.replace(year=2020))
        call_command("expire_bookings")
        assert capsys.readouterr().out == "1 bookings expired.\n"


class TestReminding:
    def book(self, **more):
        """Store a booking; by default, it is confirmed and was made a month before its start."""
        long_ago = TUESDAY - 30 * DAY
        return BookingFactory(
            **{"status": "confirmed", "created_at": long_ago, "updated_at": long_ago, **more}
        )

    def test_one_reminder_is_sent_a_day_before_the_booking(self):
        booking = self.book()
        assert clock.send_reminders(at=TUESDAY - DAY - SECOND) == 0
        assert clock.send_reminders(at=TUESDAY - DAY) == 1
        assert clock.send_reminders(at=TUESDAY - DAY + SECOND) == 0
        assert history(booking) == ["booking.reminded"]
        booking.refresh_from_db()
        assert booking.updated_at == TUESDAY - 30 * DAY

    def test_the_reminder_time_is_a_setting(self, settings):
        settings.REMINDER_TIMES = [2 * HOUR]
        self.book()
        assert clock.send_reminders(at=TUESDAY - 2 * HOUR - SECOND) == 0
        assert clock.send_reminders(at=TUESDAY - 2 * HOUR) == 1

    def test_there_can_be_several_reminders(self, settings):
        settings.REMINDER_TIMES = [2 * HOUR, 2 * DAY]
        booking = self.book()
        due = [TUESDAY - 2 * DAY, TUESDAY - DAY, TUESDAY - 2 * HOUR, TUESDAY - HOUR]
        assert [clock.send_reminders(at=at) for at in due] == [1, 0, 1, 0]
        reminders = BookingEvent.objects.filter(booking_id=booking.pk).order_by("id")
        assert [event.data["hours"] for event in reminders] == [48, 2]

    def test_only_the_last_reminder_is_sent_if_no_worker_ran_for_a_while(self, settings):
        settings.REMINDER_TIMES = [2 * HOUR, 2 * DAY]
        booking = self.book()
        assert clock.send_reminders(at=TUESDAY - HOUR) == 1
        assert BookingEvent.objects.get(booking_id=booking.pk).data["hours"] == 2

    def test_a_booking_made_between_two_reminders_gets_the_second_one(self, settings):
        settings.REMINDER_TIMES = [2 * HOUR, 2 * DAY]
        self.book(created_at=TUESDAY - DAY, updated_at=TUESDAY - DAY)
        assert clock.send_reminders(at=TUESDAY - 20 * HOUR) == 0
        assert clock.send_reminders(at=TUESDAY - 2 * HOUR) == 1

    def test_a_reminder_event_without_hours_prevents_another_reminder(self):
        """Only SQL can write such an event."""
        booking = self.book()
        record(booking, BookingEvent.Type.REMINDED, actor=None, at=TUESDAY - DAY)
        assert clock.send_reminders(at=TUESDAY - DAY + SECOND) == 0

    def test_a_moved_booking_gets_another_reminder(self):
        booking = self.book()
        clock.send_reminders(at=TUESDAY - DAY)
        services.reschedule_booking(
            booking_id=booking.pk,
            actor=booking.user,
            start_time=TUESDAY + 3 * DAY,
            at=TUESDAY - HOUR,
        )
        assert clock.send_reminders(at=TUESDAY) == 0
        assert clock.send_reminders(at=TUESDAY + 2 * DAY) == 1
        assert history(booking) == [
            "booking.reminded",
            "booking.rescheduled",
            "booking.reminded",
        ]

    def test_a_booking_confirmed_within_a_day_of_its_start_gets_no_reminder(self):
        at = TUESDAY - 3 * HOUR
        record(self.book(updated_at=at), BookingEvent.Type.CONFIRMED, actor=None, at=at)
        assert clock.send_reminders(at=TUESDAY - HOUR) == 0

    def test_a_change_of_details_within_a_day_of_the_start_does_not_prevent_the_reminder(self):
        booking = self.book()
        record(booking, BookingEvent.Type.CONFIRMED, actor=None, at=booking.updated_at)
        services.change_details(
            booking_id=booking.pk,
            actor=booking.user,
            at=TUESDAY - 3 * HOUR,
            details={"notes": "By the window"},
        )
        assert clock.send_reminders(at=TUESDAY - 2 * HOUR) == 1
        assert clock.send_reminders(at=TUESDAY - HOUR) == 0
        assert history(booking) == ["booking.confirmed", "booking.changed", "booking.reminded"]

    def test_a_booking_moved_and_then_changed_within_a_day_of_its_start_gets_no_reminder(
        self,
    ):
        booking = self.book(start_time=TUESDAY + HOUR)
        call = {"booking_id": booking.pk, "actor": booking.user}
        services.reschedule_booking(**call, start_time=TUESDAY, at=TUESDAY - 4 * HOUR)
        services.change_details(**call, at=TUESDAY - 3 * HOUR, details={"notes": "By the window"})
        assert clock.send_reminders(at=TUESDAY - HOUR) == 0

    def test_no_reminder_is_sent_once_the_booking_has_started(self):
        self.book()
        assert clock.send_reminders(at=TUESDAY) == 0
        assert clock.send_reminders(at=TUESDAY - SECOND) == 1

    @pytest.mark.parametrize("status", sorted({*Booking.Status} - {"confirmed"}))
    def test_only_confirmed_bookings_get_a_reminder(self, status):
        self.book(status=status)
        assert clock.send_reminders(at=TUESDAY - HOUR) == 0

    def test_the_command_prints_how_many_reminders_were_enqueued(self, capsys):
        now = timezone.now()
        self.book(start_time=now + HOUR, created_at=now - 2 * DAY, updated_at=now - 2 * DAY)
        call_command("send_reminders")
        assert capsys.readouterr().out == "1 reminders enqueued.\n"


class TestEveryMinute:
    """A worker runs the changes every minute, so they need no request."""

    PAST = TUESDAY.replace(year=2020)

    @pytest.mark.parametrize(
        ("task", "status", "becomes"),
        [
            ("bookings.complete", "confirmed", "completed"),
            ("bookings.expire", "pending", "expired"),
            ("bookings.expire", "held", "expired"),
        ],
    )
    def test_a_job_of_each_minute_ends_bookings(self, task, status, becomes):
        BookingFactory(
            status=status,
            start_time=self.PAST,
            hold_expires_at=self.PAST if status == "held" else None,
        )
        self.run_job(task)
        assert statuses() == [becomes]

    def test_a_job_of_each_minute_sends_reminders(self):
        soon, long_ago = timezone.now() + HOUR, timezone.now() - 30 * DAY
        booking = BookingFactory(
            status="confirmed", start_time=soon, created_at=long_ago, updated_at=long_ago
        )
        self.run_job("bookings.remind")
        assert history(booking) == ["booking.reminded"]

    def run_job(self, name):
        """Run a periodic job, which must be one of each minute."""
        [periodic] = [
            each for each in app.periodic_registry.periodic_tasks.values() if each.task.name == name
        ]
        assert periodic.cron == "* * * * *"
        periodic.task(timestamp=0)


@pytest.mark.django_db(transaction=True)
class TestConcurrency:
    @pytest.fixture
    def full_slot(self):
        slot = SlotFactory(capacity=60)
        for seat in range(1, 61):
            BookingFactory(
                service=slot.service, slot=slot, seat=seat, status="confirmed", user=UserFactory()
            )
        return slot

    def test_concurrent_workers_complete_each_booking_once(self, full_slot, monkeypatch):
        monkeypatch.setattr(clock, "BATCH", 7)
        run = partial(clock.complete_bookings, at=full_slot.end_time)
        outcomes = at_once([run] * 8)
        assert [outcome.error for outcome in outcomes] == [None] * 8
        assert sum(outcome.value for outcome in outcomes) == 60
        assert statuses() == ["completed"] * 60
        assert BookingEvent.objects.count() == 60

    def test_a_locked_booking_is_completed_on_the_next_run(self, full_slot):
        locked = Booking.objects.first()
        with transaction.atomic():
            lock(locked)
            [outcome] = at_once([partial(clock.complete_bookings, at=full_slot.end_time)])
            assert (outcome.error, outcome.value) == (None, 59)
        assert clock.complete_bookings(at=full_slot.end_time) == 1

    def test_concurrent_workers_send_each_reminder_once(self, full_slot):
        Booking.objects.update(updated_at=full_slot.start_time - 30 * DAY)
        run = partial(clock.send_reminders, at=full_slot.start_time - HOUR)
        outcomes = at_once([run] * 8)
        assert [outcome.error for outcome in outcomes] == [None] * 8
        assert sum(outcome.value for outcome in outcomes) == 60
        assert BookingEvent.objects.filter(type="booking.reminded").count() == 60

    @pytest.mark.one_server("changes a statement in a way that Citus refuses")
    def test_a_constraint_refuses_a_second_reminder(self, full_slot):
        """In this test, the statements ignore reminders that already exist."""
        Booking.objects.update(updated_at=full_slot.start_time - 30 * DAY)
        a_day = {"ahead": DAY, "hours": 24}
        find, remind = (
            text.replace("event.type = 'booking.reminded'", "false")
            for text in (clock.FIND_STARTING, clock.REMIND)
        )
        run = partial(clock._in_batches, find, remind, at=full_slot.start_time - HOUR, **a_day)
        assert [run(), run()] == [60, 0]
        with pytest.raises(IntegrityError, match="event_reminded_once"):
            clock._in_batches(
                find,
                remind.replace("ON CONFLICT DO NOTHING", ""),
                at=full_slot.start_time - HOUR,
                **a_day,
            )

    def test_a_run_fails_at_a_lock_without_skip_locked(self, full_slot, monkeypatch):
        """Control for `test_a_locked_booking_is_completed_on_the_next_run`: no row is skipped."""
        unskipped = clock.COMPLETE.replace("SKIP LOCKED", "NOWAIT")
        monkeypatch.setattr(clock, "COMPLETE", unskipped)
        with transaction.atomic():
            lock(Booking.objects.first())
            [outcome] = at_once([partial(clock.complete_bookings, at=full_slot.end_time)])
        assert "could not obtain lock" in str(outcome.error)
