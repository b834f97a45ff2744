"""If the attendee's email address changes, the new and the former attendee get an email."""

import smtplib
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import icalendar
import pytest
import time_machine
from django.core import mail
from django.core.mail import EmailMultiAlternatives
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob

from accounts.privacy import services as privacy
from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings import clock, services
from bookings.mails import services as mails
from bookings.mails import tasks
from bookings.models import Booking, BookingEvent
from bookings.tests.jobs import relay_jobs, work
from bookit.jobs.queues import PATIENT
from bookit.mails.models import MailCount
from bookit.tests.crowd import ask, at_once
from catalog.tests.factories import ServiceFactory

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
# The bookings are made shortly before NOW. No two changes of a booking have the same time.
BOOKED = NOW - timedelta(seconds=1)
START = datetime(2026, 12, 1, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
ANA, RUI, BEN, ZOE = (f"{name}@example.com" for name in ("ana", "rui", "ben", "zoe"))
# Counts the unlocked jobs of emails about events. Workers take only unlocked jobs.
FREE_JOBS = """
SELECT count(*) FROM (
    SELECT id FROM procrastinate_jobs WHERE task_name = 'bookings.send_mail' FOR UPDATE SKIP LOCKED
) AS free
"""
# The emails are sent this many seconds after the change.
PAUSE = 60

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def frozen():
    with time_machine.travel(NOW, tick=False):
        yield


@pytest.fixture
def ana():
    return UserFactory(name="Ana", email=ANA, timezone="Europe/Lisbon")


@pytest.fixture
def haircut():
    return ServiceFactory(title="Haircut")


@pytest.fixture
def book(haircut, ana):
    """Return a function that makes Ana book for Rui, and sends the emails about it."""

    def make(**wish):
        usual = {"actor": ana, "service_id": haircut.pk, "start_time": START, "at": BOOKED}
        booking = services.create_booking(**{**usual, "attendee_email": RUI, **wish})
        sent(at=0)
        return booking

    return make


@pytest.fixture
def booking(book):
    """Return a pending booking for Rui, who knows about it."""
    return book()


@contextmanager
def clock_at(seconds):
    with time_machine.travel(NOW + timedelta(seconds=seconds), tick=False):
        yield NOW + timedelta(seconds=seconds)


def name(booking, address, *, at=0, **details):
    """Name another attendee, a number of seconds after NOW, and run the jobs that are due then."""
    with clock_at(at) as now:
        services.change_details(
            booking_id=booking.pk,
            actor=booking.user,
            at=now,
            details={"attendee_email": address, **details},
        )
        work(until=now)


def confirm(booking, *, at):
    """Confirm a booking a number of seconds after NOW, and run the jobs that are due then."""
    with clock_at(at) as now:
        services.change_status(
            booking_id=booking.pk, status="confirmed", actor=AdminFactory(), at=now
        )
        work(until=now)


def move(booking, hours, *, at):
    """Move a booking to a number of hours after START, and run the jobs that are due then."""
    with clock_at(at) as now:
        services.reschedule_booking(
            booking_id=booking.pk, actor=booking.user, start_time=START + hours * HOUR, at=now
        )
        work(until=now)


def messages(*, at):
    """Run the jobs that are due, and return the emails since the last call."""
    with clock_at(at) as now:
        work(until=now)
    found = [*mail.outbox]
    mail.outbox.clear()
    return found


def sent(*, at):
    """Run the jobs that are due; return each email's recipient and label, ordered by recipient."""
    return sorted((each.to[0], each.subject.partition(":")[0]) for each in messages(at=at))


@contextmanager
def refused_for(address):
    """Let the mail server refuse an email to one address; its job runs again an hour after NOW."""
    accept = EmailMultiAlternatives.send
    refused = []

    def send(message):
        if message.to != [address]:
            return accept(message)
        # `work` runs the due jobs in the order of their ids.
        is_due = Q(scheduled_at=None) | Q(scheduled_at__lte=timezone.now())
        refused.append(ProcrastinateJob.objects.filter(is_due).earliest("id"))
        raise smtplib.SMTPException

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EmailMultiAlternatives, "send", send)
        with pytest.raises(smtplib.SMTPException):
            yield
    [job] = refused
    set_job(job, scheduled_at=NOW + HOUR)


def set_job(job, **columns):
    """Change a job; Django's model of jobs cannot be saved."""
    assignments = ", ".join(f"{name} = %s" for name in columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE procrastinate_jobs SET {assignments} WHERE id = %s",
            [*columns.values(), job.pk],
        )


def file_of(message):
    [(_name, content, _form)] = message.attachments
    read = icalendar.Calendar.from_ical(content)
    [entry] = read.walk("VEVENT")
    return str(read["METHOD"]), entry


def addresses_in_jobs():
    text = str([*ProcrastinateJob.objects.values_list("args", flat=True)])
    return {each for each in (ANA, RUI, BEN, ZOE) if each in text}


class TestBoth:
    @pytest.mark.parametrize("is_confirmed", [False, True])
    def test_the_new_attendee_gets_the_booking_and_the_former_one_its_cancellation(
        self, book, haircut, is_confirmed
    ):
        haircut.requires_confirmation = not is_confirmed
        haircut.save()
        booking = book()
        name(booking, BEN, notes="Ring twice", attendee_name="Ben")
        assert messages(at=PAUSE - 1) == []
        found = {each.to[0]: each for each in messages(at=PAUSE)}
        assert {*found} == {BEN, RUI}
        label = "Confirmed" if is_confirmed else "Requested"
        assert found[BEN].subject == f"{label}: Haircut, Tue 1 Dec 2026, 10:00"
        assert found[RUI].subject == "Cancelled: Haircut, Tue 1 Dec 2026, 10:00"
        assert "Your booking has been cancelled." in found[RUI].body
        method, entry = file_of(found[BEN])
        assert (method, entry["UID"], entry["SEQUENCE"]) == ("REQUEST", str(booking.pk), 1)
        assert entry["ATTENDEE"] == f"mailto:{BEN}"
        former_method, former = file_of(found[RUI])
        assert (former_method, former["UID"]) == ("CANCEL", str(booking.pk))
        assert (former["STATUS"], former["SEQUENCE"]) == ("CANCELLED", 1)
        assert former["ATTENDEE"] == f"mailto:{RUI}"
        # In a calendar that gets both files, the newer one counts.
        assert former["DTSTAMP"].dt < entry["DTSTAMP"].dt
        ids = {each.extra_headers["Message-ID"] for each in found.values()}
        assert len(ids) == 2
        # Nothing is sent again, and nothing with an address is left.
        assert sent(at=PAUSE + 1) == []
        assert addresses_in_jobs() == set()

    def test_neither_attendee_reads_names_notes_or_phone_numbers(self, book):
        booking = book(attendee_name="Rui Silva", notes="Knock", attendee_phone="+351 933 333 333")
        name(booking, BEN, attendee_name="Ben Costa", attendee_phone="+351 944 444 444")
        found = messages(at=PAUSE)
        assert len(found) == 2
        for message in found:
            text = message.message().as_string() + file_of(message)[1].to_ical().decode()
            for word in ("Rui Silva", "Ben Costa", "Knock", "933 333", "944 444"):
                assert word not in text
            assert "somebody gave this address" in message.body

    def test_each_attendee_reads_the_language_that_the_booking_had_for_them(self, book):
        booking = book(language="de")
        name(booking, BEN, language="es")
        assert sent(at=PAUSE) == [(BEN, "Solicitada"), (RUI, "Storniert")]

    def test_a_request_that_is_repeated_causes_no_more_emails(self, api, booking, ana):
        client = api.as_(ana)
        for _ in range(2):
            response = client.patch(
                f"/bookings/{booking.pk}", {"attendee_email": "Ben@Example.com"}
            )
            assert response.json()["attendee_email"] == BEN
        assert sent(at=PAUSE) == [(BEN, "Requested"), (RUI, "Cancelled")]

    def test_the_provider_gets_no_email(self, booking, haircut):
        haircut.calendar.provider = ProviderFactory()
        haircut.calendar.save()
        name(booking, BEN)
        assert sent(at=PAUSE) == [(BEN, "Requested"), (RUI, "Cancelled")]

    def test_staff_see_that_the_email_was_sent(self, booking):
        name(booking, BEN)
        sent(at=PAUSE)
        ids = [*booking.events.order_by("id").values_list("pk", flat=True)]
        found = mails.announcements(booking=booking, event_ids=ids)
        assert [(str(each.label), each.audiences) for each in found] == [
            ("Requested", ["attendee"]),
            ("Requested", ["attendee"]),
        ]

    def test_a_change_of_other_details_causes_no_email(self, booking):
        name(booking, RUI, notes="Ring twice", attendee_name="Ben")
        assert sent(at=PAUSE) == []

    def test_an_email_that_is_refused_is_sent_later_and_the_other_one_is_not_repeated(
        self, booking
    ):
        name(booking, BEN)
        with refused_for(BEN):
            messages(at=PAUSE)
        assert sent(at=PAUSE) == [(RUI, "Cancelled")]
        assert sent(at=3600) == [(BEN, "Requested")]
        name(booking, ZOE, at=7200)
        with refused_for(BEN):
            messages(at=7200 + PAUSE)
        assert sent(at=4 * 3600) == [(BEN, "Cancelled"), (ZOE, "Requested")]
        assert tasks.send_composed_mail.retry_strategy is PATIENT

    def test_an_attendee_who_was_not_told_before_the_change_gets_nothing(self, haircut, ana):
        booking = services.create_booking(
            actor=ana, service_id=haircut.pk, start_time=START, at=BOOKED, attendee_email=RUI
        )
        details = {"attendee_email": BEN}
        services.change_details(booking_id=booking.pk, actor=ana, at=NOW, details=details)
        assert sent(at=PAUSE) == [(BEN, "Requested")]

    def test_a_copy_goes_to_the_new_attendee(self, booking):
        name(booking, BEN)
        sent(at=PAUSE)
        mails.resend(booking=booking, at=NOW)
        assert sent(at=PAUSE) == [(BEN, "Requested")]


class TestCopies:
    """Staff can send the last email again, also while it waits."""

    @pytest.fixture
    def resent(self, booking):
        """Return a booking that was given to Ben, who was sent his email after 20 seconds."""
        name(booking, BEN)
        with clock_at(20) as now:
            mails.resend(booking=booking, at=now)
        assert sent(at=20) == [(BEN, "Requested")]
        return booking

    def test_the_email_to_the_new_attendee_is_sent_immediately_and_once(self, resent):
        assert sent(at=2 * PAUSE) == [(RUI, "Cancelled")]

    @pytest.mark.parametrize("end", [services.cancel_booking, services.delete_booking])
    def test_both_attendees_learn_that_the_booking_has_ended_afterwards(self, resent, ana, end):
        with clock_at(40) as now:
            end(booking_id=resent.pk, actor=ana, at=now)
        assert sent(at=2 * PAUSE) == [(BEN, "Cancelled"), (RUI, "Cancelled")]

    def test_both_attendees_learn_that_the_booking_has_another_attendee_afterwards(self, resent):
        name(resent, ZOE, at=40)
        expected = [(BEN, "Cancelled"), (RUI, "Cancelled"), (ZOE, "Requested")]
        assert sent(at=2 * PAUSE) == expected

    def test_the_new_attendee_learns_of_a_move_afterwards(self, resent):
        move(resent, 1, at=40)
        assert sent(at=2 * PAUSE) == [(BEN, "Moved"), (RUI, "Cancelled")]

    @pytest.mark.parametrize("at", [20, 3 * PAUSE])
    def test_nobody_gets_a_copy_of_a_cancellation_that_was_not_sent(self, booking, ana, at):
        name(booking, BEN)
        with clock_at(10) as now:
            services.cancel_booking(booking_id=booking.pk, actor=ana, at=now)
        sent(at=at)
        with clock_at(at) as now, pytest.raises(mails.NothingToResend):
            mails.resend(booking=booking, at=now)

    def test_nobody_gets_a_copy_of_a_cancellation_while_their_first_email_is_refused(
        self, booking, ana
    ):
        name(booking, BEN)
        with refused_for(BEN):
            messages(at=PAUSE)
        with clock_at(2 * PAUSE) as now:
            services.cancel_booking(booking_id=booking.pk, actor=ana, at=now)
            work(until=now)
            with pytest.raises(mails.NothingToResend):
                mails.resend(booking=booking, at=now)


class TestUser:
    def test_the_user_who_booked_gets_no_cancellation(self, book):
        booking = book(attendee_email="")
        name(booking, BEN)
        assert sent(at=PAUSE) == [(BEN, "Requested")]
        assert addresses_in_jobs() == set()

    def test_the_user_who_booked_gets_the_booking_back(self, booking):
        name(booking, "")
        assert sent(at=PAUSE) == [(ANA, "Requested"), (RUI, "Cancelled")]

    def test_a_user_without_an_email_address_can_name_an_attendee(self, book, ana):
        ana.email = f"{ana.pk}@customer.invalid"
        ana.save()
        booking = book(attendee_email="")
        name(booking, BEN)
        name(booking, ZOE, at=20)
        assert sent(at=20 + PAUSE) == [(ZOE, "Requested")]

    def test_an_email_to_a_user_without_an_email_address_is_not_counted(self, book, ana):
        ana.email = f"{ana.pk}@customer.invalid"
        ana.save()
        booking = book(attendee_email="")
        name(booking, BEN)
        services.delete_booking(booking_id=booking.pk, actor=ana, at=NOW)
        assert sent(at=PAUSE) == []
        assert not MailCount.objects.exists()


class TestPause:
    def test_only_the_last_of_several_new_attendees_gets_an_email(self, booking):
        name(booking, BEN)
        name(booking, ZOE, at=20)
        assert sent(at=2 * PAUSE) == [(RUI, "Cancelled"), (ZOE, "Requested")]

    def test_a_wrong_address_that_is_corrected_gets_no_email(self, book):
        booking = book(attendee_email="")
        name(booking, BEN)
        name(booking, ZOE, at=20)
        assert sent(at=2 * PAUSE) == [(ZOE, "Requested")]

    def test_an_attendee_who_is_named_again_gets_no_cancellation(self, booking):
        name(booking, BEN)
        name(booking, RUI, at=20)
        # Rui gets the booking once more, and Ben has never heard of it.
        assert sent(at=2 * PAUSE) == [(RUI, "Requested")]

    def test_an_attendee_who_is_named_again_and_replaced_again_gets_a_cancellation(self, booking):
        name(booking, BEN)
        name(booking, RUI, at=50)
        assert sent(at=PAUSE) == []
        name(booking, ZOE, at=70)
        assert sent(at=70 + PAUSE) == [(RUI, "Cancelled"), (ZOE, "Requested")]

    def test_after_the_pause_every_former_attendee_gets_a_cancellation(self, booking):
        name(booking, BEN)
        assert sent(at=PAUSE) == [(BEN, "Requested"), (RUI, "Cancelled")]
        name(booking, ZOE, at=PAUSE + 1)
        assert sent(at=3 * PAUSE) == [(BEN, "Cancelled"), (ZOE, "Requested")]

    def test_a_cancellation_that_has_to_be_retried_does_not_replace_the_next_one(self, booking):
        name(booking, BEN)
        with refused_for(RUI):
            messages(at=PAUSE)
        assert sent(at=PAUSE) == [(BEN, "Requested")]
        name(booking, ZOE, at=2 * PAUSE)
        assert sent(at=3 * PAUSE) == [(BEN, "Cancelled"), (ZOE, "Requested")]
        assert sent(at=3600) == [(RUI, "Cancelled")]

    def test_a_late_cancellation_is_not_sent_to_somebody_who_is_the_attendee_again(self, booking):
        name(booking, BEN)
        with refused_for(RUI):
            messages(at=PAUSE)
        assert sent(at=PAUSE) == [(BEN, "Requested")]
        name(booking, RUI, at=2 * PAUSE)
        assert sent(at=3 * PAUSE) == [(BEN, "Cancelled"), (RUI, "Requested")]
        assert sent(at=3600) == []
        assert addresses_in_jobs() == set()

    def test_an_attendee_who_was_not_told_gets_no_cancellation(self, book):
        with refused_for(RUI):
            book()
        booking = Booking.objects.get()
        name(booking, BEN, at=10)
        assert sent(at=7200) == [(BEN, "Requested")]

    @pytest.mark.parametrize("spelling", ["rui+hair@example.com", "RUI@example.com"])
    def test_another_spelling_of_the_same_mailbox_causes_no_cancellation(self, booking, spelling):
        name(booking, spelling)
        assert sent(at=PAUSE) == [(spelling, "Requested")]


class TestOtherEvents:
    def test_the_new_attendee_gets_one_email_if_the_booking_is_then_confirmed(self, booking):
        name(booking, BEN)
        confirm(booking, at=10)
        assert sent(at=PAUSE - 1) == []
        assert sent(at=PAUSE) == [(BEN, "Confirmed"), (RUI, "Cancelled")]
        ids = [*booking.events.order_by("id").values_list("pk", flat=True)]
        found = mails.announcements(booking=booking, event_ids=ids)
        assert [str(each.label) for each in found] == ["Requested", "Confirmed"]

    def test_only_the_last_attendee_is_told_if_a_confirmed_booking_changes_hands_again(
        self, booking
    ):
        name(booking, BEN)
        confirm(booking, at=10)
        name(booking, ZOE, at=20)
        assert sent(at=2 * PAUSE) == [(RUI, "Cancelled"), (ZOE, "Confirmed")]

    def test_the_new_attendee_of_a_moved_booking_reads_only_the_new_time(self, booking):
        move(booking, 1, at=0)
        name(booking, BEN, at=10)
        found = {each.to[0]: each for each in messages(at=2 * PAUSE)}
        assert {*found} == {BEN, RUI}
        assert found[BEN].subject == "Requested: Haircut, Tue 1 Dec 2026, 11:00"
        assert "Before" not in found[BEN].body

    def test_the_email_to_the_new_attendee_shows_a_move_during_its_pause(self, booking):
        name(booking, BEN)
        move(booking, 1, at=10)
        found = {each.to[0]: each for each in messages(at=3 * PAUSE)}
        assert {*found} == {BEN, RUI}
        assert found[BEN].subject == "Requested: Haircut, Tue 1 Dec 2026, 11:00"
        entry = file_of(found[BEN])[1]
        assert (entry["DTSTART"].dt, entry["SEQUENCE"]) == (START + HOUR, 2)
        mails.resend(booking=booking, at=NOW)
        [copy] = messages(at=3 * PAUSE)
        assert (copy.to, copy.subject) == ([BEN], found[BEN].subject)

    @pytest.mark.parametrize("order", ["move change back", "change move back"])
    def test_the_new_attendee_gets_an_email_if_the_booking_is_moved_back(self, booking, order):
        hours = 1
        for number, step in enumerate(order.split()):
            if step == "change":
                name(booking, BEN, at=10 * number)
            else:
                move(booking, hours, at=10 * number)
                hours = 0
        found = {each.to[0]: each for each in messages(at=3 * PAUSE)}
        assert {*found} == {BEN, RUI}
        assert file_of(found[BEN])[1]["DTSTART"].dt == START

    def test_a_move_that_is_undone_after_the_pause_is_told(self, booking):
        name(booking, BEN)
        move(booking, 1, at=50)
        assert sent(at=PAUSE) == [(BEN, "Requested"), (RUI, "Cancelled")]
        move(booking, 0, at=70)
        assert sent(at=3 * PAUSE) == [(BEN, "Moved")]

    def test_the_new_attendee_learns_the_right_time_if_emails_are_late(self, booking, ana):
        move(booking, 1, at=0)
        name(booking, BEN, at=10)
        services.reschedule_booking(
            booking_id=booking.pk,
            actor=ana,
            start_time=START,
            at=NOW + timedelta(seconds=2 * PAUSE),
        )
        work(until=NOW + timedelta(seconds=10))  # Follow the move up, and send no email.
        found = {each.to[0]: each for each in messages(at=4 * PAUSE)}
        assert {*found} == {BEN, RUI}
        assert file_of(found[BEN])[1]["DTSTART"].dt == START

    def test_the_provider_gets_no_email_if_the_booking_is_moved_back(self, booking, haircut):
        haircut.calendar.provider = ProviderFactory()
        haircut.calendar.save()
        move(booking, 1, at=0)
        name(booking, BEN, at=10)
        move(booking, 0, at=20)
        assert {to for to, _label in sent(at=3 * PAUSE)} == {BEN, RUI}

    def test_somebody_who_never_heard_of_the_booking_gets_no_cancellation_after_a_move(
        self, booking
    ):
        name(booking, BEN)
        move(booking, 1, at=10)
        name(booking, ZOE, at=20)
        assert {to for to, _label in sent(at=3 * PAUSE)} == {RUI, ZOE}

    def test_a_job_that_waits_for_webhooks_does_not_repeat_emails_if_the_booking_is_deleted(
        self, booking
    ):
        [event] = booking.events.all()
        app.configure_task("bookings.follow_up").defer(
            calendar_ids=[str(booking.calendar_id)], event_ids=[str(event.pk)], only_webhooks=True
        )
        services.delete_booking(booking_id=booking.pk, actor=booking.user, at=NOW)
        assert sent(at=PAUSE) == [(RUI, "Cancelled")]

    @pytest.mark.parametrize("former", [RUI, ""])
    @pytest.mark.parametrize("end", [services.cancel_booking, services.delete_booking])
    def test_only_the_former_attendee_learns_that_the_booking_has_ended_during_the_pause(
        self, book, ana, haircut, end, former
    ):
        haircut.calendar.provider = ProviderFactory()
        haircut.calendar.save()
        booking = book(attendee_email=former)
        name(booking, BEN)
        with clock_at(10) as now:
            end(booking_id=booking.pk, actor=ana, at=now)
        provider = haircut.calendar.provider.email
        assert sent(at=10) == [(provider, "Cancelled")]
        assert sent(at=2 * PAUSE) == [(former or ANA, "Cancelled")]

    def test_only_the_former_attendee_learns_that_a_request_has_expired_during_the_pause(
        self, booking
    ):
        seconds = (START - NOW).total_seconds()
        name(booking, BEN, at=seconds - 10)
        clock.expire_bookings(at=START)
        assert sent(at=seconds + 2 * PAUSE) == [(RUI, "Cancelled")]

    @pytest.mark.parametrize("again_at", [20, 50])
    def test_an_attendee_who_is_named_again_learns_that_the_booking_has_ended(
        self, booking, ana, again_at
    ):
        """If Rui is named again after 50 seconds, his cancellation is due before the end."""
        name(booking, BEN)
        name(booking, RUI, at=again_at)
        end_at = again_at + 25
        assert sent(at=end_at) == []
        with clock_at(end_at) as now:
            services.cancel_booking(booking_id=booking.pk, actor=ana, at=now)
        assert sent(at=3 * PAUSE) == [(RUI, "Cancelled")]
        assert addresses_in_jobs() == set()

    def test_only_the_new_attendee_learns_that_the_booking_has_ended_after_the_pause(
        self, booking, ana
    ):
        name(booking, BEN)
        assert sent(at=PAUSE) == [(BEN, "Requested"), (RUI, "Cancelled")]
        with clock_at(PAUSE + 1) as now:
            services.cancel_booking(booking_id=booking.pk, actor=ana, at=now)
        assert sent(at=2 * PAUSE) == [(BEN, "Cancelled")]

    def test_an_attendee_who_is_named_again_is_told_once_that_the_booking_has_ended(
        self, booking, ana
    ):
        name(booking, BEN)
        name(booking, RUI, at=30)
        assert sent(at=30 + PAUSE) == [(RUI, "Requested")]
        with clock_at(32 + PAUSE) as now:
            services.cancel_booking(booking_id=booking.pk, actor=ana, at=now)
        assert sent(at=3 * PAUSE) == [(RUI, "Cancelled")]

    def test_an_email_to_the_user_is_not_sent_if_an_attendee_is_named_before(self, haircut, ana):
        """A client can book, and name the attendee with a second request."""
        booking = services.create_booking(
            actor=ana, service_id=haircut.pk, start_time=START, at=BOOKED
        )
        services.change_details(
            booking_id=booking.pk, actor=ana, at=NOW, details={"attendee_email": BEN}
        )
        assert sent(at=PAUSE) == [(BEN, "Requested")]

    def test_a_reminder_goes_to_the_new_attendee(self, booking):
        confirm(booking, at=0)
        name(booking, BEN, at=1)
        sent(at=1 + PAUSE)
        clock.send_reminders(at=START - 23 * HOUR)
        assert sent(at=PAUSE) == [(BEN, "Reminder")]


class TestSlowRequests:
    """A request that arrives in the pause can be committed after the emails have been sent."""

    DURING, AFTER = NOW + timedelta(seconds=PAUSE - 10), PAUSE + 10

    @pytest.fixture
    def booking(self, booking):
        name(booking, BEN)
        assert sent(at=PAUSE) == [(BEN, "Requested"), (RUI, "Cancelled")]
        return booking

    @pytest.mark.parametrize("end", [services.cancel_booking, services.delete_booking])
    def test_the_new_attendee_learns_that_the_booking_has_ended(self, booking, ana, end):
        end(booking_id=booking.pk, actor=ana, at=self.DURING)
        assert sent(at=self.AFTER) == [(BEN, "Cancelled")]

    def test_the_new_attendee_learns_that_the_account_is_deleted(self, booking, ana):
        privacy.erase_user(user_id=ana.pk, actor=AdminFactory(), at=self.DURING)
        assert sent(at=self.AFTER) == [(BEN, "Cancelled")]

    def test_the_new_attendee_learns_of_a_move(self, booking, ana):
        services.reschedule_booking(
            booking_id=booking.pk, actor=ana, start_time=START + HOUR, at=self.DURING
        )
        assert sent(at=2 * PAUSE) == [(BEN, "Moved")]

    def test_the_new_attendee_learns_of_the_next_handover(self, booking, ana):
        details = {"attendee_email": ZOE}
        services.change_details(booking_id=booking.pk, actor=ana, at=self.DURING, details=details)
        assert sent(at=2 * PAUSE) == [(BEN, "Cancelled"), (ZOE, "Requested")]


class TestLateJobs:
    """The mail server refuses an email, or workers were not running."""

    @pytest.fixture
    def refused(self, booking):
        """Return a booking that was given to Ben, whose email is sent only after an hour."""
        name(booking, BEN)
        with refused_for(BEN):
            messages(at=PAUSE)
        assert sent(at=PAUSE) == [(RUI, "Cancelled")]
        return booking

    @pytest.mark.parametrize("hours", [[1], [1, 0]])
    def test_the_new_attendee_gets_one_email_with_the_present_time(self, refused, hours):
        for number, each in enumerate(hours):
            move(refused, each, at=2 * PAUSE + number)
        confirm(refused, at=3 * PAUSE)
        assert sent(at=10 * PAUSE) == []
        [found] = messages(at=2 * 3600)
        assert (found.to, found.subject.partition(":")[0]) == ([BEN], "Confirmed")
        assert file_of(found)[1]["DTSTART"].dt == START + hours[-1] * HOUR

    @pytest.mark.parametrize("end", [services.cancel_booking, services.delete_booking])
    def test_the_new_attendee_hears_nothing_if_the_booking_has_ended(self, refused, ana, end):
        with clock_at(2 * PAUSE) as now:
            end(booking_id=refused.pk, actor=ana, at=now)
        assert sent(at=2 * 3600) == []

    def test_the_new_attendee_hears_nothing_if_the_booking_has_another_attendee(self, refused):
        name(refused, ZOE, at=2 * PAUSE)
        assert sent(at=2 * 3600) == [(ZOE, "Requested")]

    def test_a_late_email_about_a_move_does_not_go_to_the_next_attendee(self, booking):
        move(booking, 1, at=0)
        with refused_for(RUI):
            messages(at=PAUSE)
        name(booking, BEN, at=2 * PAUSE)
        move(booking, 2, at=2 * PAUSE + 10)
        assert sent(at=3 * PAUSE) == [(BEN, "Requested"), (RUI, "Cancelled")]
        assert sent(at=2 * 3600) == []

    @pytest.mark.parametrize("is_deleted", [False, True])
    def test_the_new_attendee_hears_nothing_if_the_end_is_followed_up_late(
        self, booking, ana, is_deleted
    ):
        """The job of the email to the new attendee is due before the follow-up runs."""
        name(booking, BEN)
        end = services.delete_booking if is_deleted else services.cancel_booking
        with clock_at(10) as now:
            end(booking_id=booking.pk, actor=ana, at=now)
        assert sent(at=3 * PAUSE) == [(RUI, "Cancelled")]
        assert sent(at=4 * PAUSE) == []

    def test_the_new_attendee_gets_nothing_if_the_booking_ends_before_the_follow_up(
        self, booking, ana
    ):
        details = {"attendee_email": BEN}
        services.change_details(booking_id=booking.pk, actor=ana, at=NOW, details=details)
        services.cancel_booking(booking_id=booking.pk, actor=ana, at=NOW)
        assert sent(at=2 * PAUSE) == [(RUI, "Cancelled")]

    def test_the_former_attendee_learns_of_the_end_if_the_other_email_is_then_refused(
        self, book, ana
    ):
        """Workers send both emails at the same time, before the mail server refuses one of them."""
        booking = book(attendee_email="")
        name(booking, BEN)
        other = ProcrastinateJob.objects.get(task_name=mails.SEND, args__audience="attendee")
        set_job(other, status="doing")
        assert sent(at=PAUSE) == []
        set_job(other, status="todo", scheduled_at=NOW + HOUR)
        with clock_at(PAUSE + 1) as now:
            services.cancel_booking(booking_id=booking.pk, actor=AdminFactory(), at=now)
        assert sent(at=3600) == [(ANA, "Cancelled")]

    def test_the_former_attendee_learns_of_the_end_if_the_handover_is_followed_up_late(
        self, book, ana
    ):
        booking = book(attendee_email="")
        details = {"attendee_email": BEN}
        services.change_details(booking_id=booking.pk, actor=ana, at=NOW, details=details)
        relay_jobs()
        late = NOW + timedelta(seconds=PAUSE + 1)
        set_job(ProcrastinateJob.objects.get(task_name="bookings.follow_up"), scheduled_at=late)
        assert sent(at=PAUSE) == []
        services.cancel_booking(booking_id=booking.pk, actor=AdminFactory(), at=late)
        assert sent(at=2 * PAUSE) == [(ANA, "Cancelled")]

    def test_the_new_attendee_gets_one_email_if_a_move_is_followed_up_late(self, booking, ana):
        name(booking, BEN)
        with clock_at(10) as now:
            services.reschedule_booking(
                booking_id=booking.pk, actor=ana, start_time=START + HOUR, at=now
            )
        assert sent(at=3 * PAUSE) == [(RUI, "Cancelled")]
        [found] = messages(at=4 * PAUSE)
        assert found.subject == "Requested: Haircut, Tue 1 Dec 2026, 11:00"
        assert sent(at=6 * PAUSE) == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("lock", "free"), [("FOR UPDATE", 0), ("", 1)], ids=["locks the job", "control"]
)
def test_no_worker_sends_the_email_before_a_deletion_is_committed(
    booking, ana, monkeypatch, lock, free
):
    """Otherwise, the new attendee could be told of a booking whose cancellation nobody sends."""
    name(booking, BEN)
    monkeypatch.setattr(mails, "WAITING", mails.WAITING.replace("FOR UPDATE", lock))
    with transaction.atomic():
        services.delete_booking(booking_id=booking.pk, actor=ana, at=NOW)
        [outcome] = at_once([partial(ask, FREE_JOBS)])
    assert outcome.value == free


class TestSilence:
    def test_nobody_is_told_about_a_hold(self, book):
        booking = book(hold=True)
        name(booking, BEN)
        assert sent(at=PAUSE) == []
        services.book_hold(booking_id=booking.pk, actor=booking.user, at=NOW)
        assert sent(at=PAUSE) == [(BEN, "Requested")]

    @pytest.mark.parametrize("status", ["cancelled", "completed", "no_show"])
    def test_nobody_is_told_about_a_booking_that_is_over(self, booking, status):
        services.change_status(booking_id=booking.pk, status=status, actor=AdminFactory(), at=NOW)
        sent(at=0)
        name(booking, BEN)
        assert sent(at=PAUSE) == []

    def test_nobody_is_told_after_the_start(self, booking):
        confirm(booking, at=0)
        sent(at=0)
        seconds = (START - NOW).total_seconds()
        with time_machine.travel(START, tick=False):
            services.change_details(
                booking_id=booking.pk,
                actor=AdminFactory(),
                at=START,
                details={"attendee_email": BEN},
            )
        assert sent(at=seconds + PAUSE) == []

    def test_a_change_that_is_rolled_back_causes_no_email(self, booking):
        with transaction.atomic():
            name(booking, BEN)
            transaction.set_rollback(True)
        assert sent(at=PAUSE) == []
        assert addresses_in_jobs() == set()


class TestLimits:
    def test_a_booking_reaches_no_more_addresses_a_day_than_its_limit_allows(self, booking, ana):
        """Rui got the first of eight emails. A ninth may only say that the booking has ended."""
        told = []
        for number in range(10):
            name(booking, f"stranger{number}@example.com", at=10 * number * PAUSE)
            told += sent(at=(10 * number + 5) * PAUSE)
        assert len(told) == 7
        with clock_at(100 * PAUSE) as now:
            services.cancel_booking(booking_id=booking.pk, actor=ana, at=now)
        assert sent(at=100 * PAUSE) == [("stranger9@example.com", "Cancelled")]

    def test_the_limit_of_an_address_applies_to_emails_about_handovers(self, booking, settings):
        settings.MAILS_PER_ADDRESS = 1
        name(booking, BEN)
        assert sent(at=PAUSE) == [(BEN, "Requested")]


class TestPrivacy:
    def test_history_contains_neither_address(self, booking):
        name(booking, BEN)
        sent(at=PAUSE)
        stored = str([*BookingEvent.objects.values_list("data", flat=True)])
        assert RUI not in stored
        assert BEN not in stored

    @pytest.mark.parametrize("former", [RUI, ""])
    def test_only_a_former_attendee_with_another_address_is_told_if_the_account_is_deleted(
        self, book, ana, former
    ):
        booking = book(attendee_email=former)
        name(booking, BEN)
        with clock_at(10) as now:
            privacy.erase_user(user_id=ana.pk, actor=AdminFactory(), at=now)
        assert ANA not in addresses_in_jobs()
        assert sent(at=2 * PAUSE) == ([(RUI, "Cancelled")] if former else [])
        assert addresses_in_jobs() == set()
        assert Booking.objects.get(pk=booking.pk).attendee_email == ""
