"""Emails cannot be used to harass people: their number and their content are limited."""

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import time_machine
from django.core import mail
from django.core.mail import EmailMultiAlternatives
from django.core.management import call_command
from django.db import connection, connections
from hypothesis import given
from hypothesis import strategies as st
from procrastinate.contrib.django.models import ProcrastinateJob

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings import clock, followup, services
from bookings.events import SLOT_CANCELLED
from bookings.mails import composition, samples, tasks
from bookings.mails.occasions import Occasion
from bookings.mails.waitlist import compose_end
from bookings.models import BookingEvent
from bookings.tests.jobs import attendee_mail, follow_events_up, relay_jobs, work
from bookit.mails import limits as mail_limits
from bookit.mails.models import MailCount
from catalog.tests.factories import CalendarFactory, ServiceFactory

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
START = datetime(2026, 12, 1, 10, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
STRANGER, TO_HELENA, TO_MALLORY = "rui@example.com", "helena@example.com", "mallory@example.com"

database = pytest.mark.django_db


@pytest.fixture(autouse=True)
def frozen():
    with time_machine.travel(NOW, tick=False):
        yield


@pytest.fixture
def mallory():
    return UserFactory(name="Mallory", email=TO_MALLORY)


@pytest.fixture
def helena():
    return ProviderFactory(name="Helena", email=TO_HELENA)


@pytest.fixture
def haircut(helena):
    calendar = CalendarFactory(name="Helena's chair", provider=helena)
    return ServiceFactory(title="Haircut", calendar=calendar)


@pytest.fixture
def book(haircut, mallory):
    """Return a function that makes Mallory book for a stranger; arguments override the defaults."""

    def make(**wish):
        usual = {"actor": mallory, "service_id": haircut.pk, "start_time": START, "at": NOW}
        return services.create_booking(**{**usual, "attendee_email": STRANGER, **wish})

    return make


@pytest.fixture
def move(mallory):
    """Return a function that moves a booking to a number of hours after START."""

    def to(booking, hours, actor=mallory):
        return services.reschedule_booking(
            booking_id=booking.pk, actor=actor, start_time=START + hours * HOUR, at=NOW
        )

    return to


def sent():
    """Run the waiting jobs; return the recipient and label of each email since the last call."""
    work()
    found = [(message.to[0], message.subject.partition(":")[0]) for message in mail.outbox]
    mail.outbox.clear()
    return found


def follow_up_all():
    """Run the jobs that enqueue emails, and return the jobs that send them."""
    relay_jobs()
    for job in ProcrastinateJob.objects.filter(task_name="bookings.follow_up").order_by("id"):
        followup.follow_up(**job.args, at=NOW)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM procrastinate_jobs WHERE task_name = 'bookings.follow_up'")
    return ProcrastinateJob.objects.filter(task_name="bookings.send_mail").order_by("id")


# --- consecutive moves ------------------------------------------------------------------------


@database
class TestMoves:
    def test_a_hundred_moves_cause_one_email_per_reader(self, book, move):
        booking = book()
        assert len(sent()) == 2
        for hours in range(1, 101):
            move(booking, hours)
            follow_up_all()
        assert sent() == [(STRANGER, "Moved"), (TO_HELENA, "Moved")]
        assert sent() == []

    def test_the_email_shows_the_time_before_all_moves_and_the_current_time(self, book, move):
        booking = book()
        sent()
        for hours in (24, 48, 72):
            move(booking, hours)
        work()
        assert len(mail.outbox) == 2
        for message in mail.outbox:
            assert "When: Friday, 4 December 2026, 10:00" in message.body
            assert "Before: Tuesday, 1 December 2026, 10:00" in message.body

    def test_a_move_after_an_email_causes_another_email(self, book, move):
        booking = book()
        sent()
        for hours in (1, 2):
            move(booking, hours)
            assert sent() == [(STRANGER, "Moved"), (TO_HELENA, "Moved")]

    def test_an_email_about_a_move_is_delayed_but_not_one_about_a_request_or_a_new_status(
        self, book, move, helena, settings
    ):
        settings.MAIL_PAUSE = timedelta(seconds=90)
        booking = book(at=NOW - HOUR)
        assert {job.scheduled_at for job in follow_up_all()} == {None}
        sent()
        move(booking, 1)
        assert {job.scheduled_at for job in follow_up_all()} == {NOW + timedelta(seconds=90)}
        sent()
        services.change_status(booking_id=booking.pk, status="confirmed", actor=helena, at=NOW)
        assert {job.scheduled_at for job in follow_up_all()} == {None}
        sent()
        services.cancel_booking(booking_id=booking.pk, actor=helena, at=NOW)
        assert {job.scheduled_at for job in follow_up_all()} == {None}

    def test_a_move_is_not_announced_if_the_booking_is_cancelled_soon_after_it(
        self, book, move, mallory
    ):
        booking = book()
        sent()
        move(booking, 1)
        services.cancel_booking(booking_id=booking.pk, actor=mallory, at=NOW)
        assert sent() == [(STRANGER, "Cancelled"), (TO_HELENA, "Cancelled")]

    def test_a_move_is_not_announced_if_the_booking_is_deleted_soon_after_it(
        self, book, move, mallory
    ):
        booking = book()
        sent()
        for hours in range(1, 20):
            move(booking, hours)
        services.delete_booking(booking_id=booking.pk, actor=mallory, at=NOW)
        assert sent() == [(STRANGER, "Cancelled"), (TO_HELENA, "Cancelled")]

    def test_an_email_about_a_confirmation_also_announces_earlier_moves(self, book, move, helena):
        booking = book()
        sent()
        move(booking, 24)
        follow_up_all()
        services.change_status(booking_id=booking.pk, status="confirmed", actor=helena, at=NOW)
        work()
        emails = [(message.to[0], message.subject) for message in mail.outbox]
        # Helena confirmed the booking herself, so she gets only the email about the move.
        assert sorted(emails) == [
            (TO_HELENA, "Moved: Haircut, Wed 2 Dec 2026, 10:00"),
            (STRANGER, "Confirmed: Haircut, Wed 2 Dec 2026, 10:00"),
        ]
        assert "still has to be confirmed" not in "".join(message.body for message in mail.outbox)

    def test_a_provider_gets_no_email_if_the_last_move_was_their_own(self, book, move, helena):
        booking = book()
        sent()
        move(booking, 1)
        move(booking, 2, actor=helena)
        assert sent() == [(STRANGER, "Moved")]

    def test_a_booking_that_was_moved_back_causes_no_email(self, book, move):
        booking = book()
        sent()
        for hours in (1, 2, 0):
            move(booking, hours)
        assert sent() == []
        # The email about a later move shows the time that the booking had before that move.
        move(booking, 24)
        work()
        assert len(mail.outbox) == 2
        for message in mail.outbox:
            assert "Before: Tuesday, 1 December 2026, 10:00" in message.body

    def test_readers_get_an_email_if_somebody_else_moved_the_booking_back(
        self, book, move, mallory, helena
    ):
        booking = book()
        sent()
        move(booking, 1)
        move(booking, 0, actor=helena)
        assert sent() == [(STRANGER, "Moved")]
        move(booking, 1, actor=helena)
        move(booking, 0, actor=mallory)
        assert sent() == [(STRANGER, "Moved"), (TO_HELENA, "Moved")]

    def test_readers_get_an_email_if_the_booking_was_confirmed_before_it_was_moved_back(
        self, book, move, helena
    ):
        booking = book()
        sent()
        move(booking, 1)
        services.change_status(booking_id=booking.pk, status="confirmed", actor=helena, at=NOW)
        move(booking, 0)
        assert (STRANGER, "Moved") in (emails := sent())
        assert (TO_HELENA, "Moved") in emails

    def test_two_moved_bookings_get_separate_emails_although_one_job_follows_both_up(
        self, book, move
    ):
        bookings = [book(start_time=START + 100 * DAY), book(start_time=START + 101 * DAY)]
        sent()
        for number, booking in enumerate(bookings):
            for hours in (1, 2):
                move(booking, 10 * number + hours)
        ids = [event.pk for event in BookingEvent.objects.filter(type="booking.rescheduled")]
        relay_jobs()
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM procrastinate_jobs")
        follow_events_up(ids, at=NOW)
        assert [to for to, _ in sent()] == [STRANGER, TO_HELENA] * 2


# --- limits -----------------------------------------------------------------------------------


@database
class TestLimits:
    def test_a_reader_gets_at_most_eight_emails_a_day_about_a_booking_and_one_about_its_end(
        self, book, move, mallory, settings
    ):
        settings.MAILS_PER_ADDRESS = 1000
        booking = book()
        emails = sent()
        for hours in range(1, 12):
            move(booking, hours)
            emails += sent()
        assert [what for to, what in emails if to == STRANGER] == ["Requested"] + 7 * ["Moved"]
        services.cancel_booking(booking_id=booking.pk, actor=mallory, at=NOW)
        assert sent() == [(STRANGER, "Cancelled"), (TO_HELENA, "Cancelled")]

    def test_an_address_gets_at_most_twenty_emails_a_day_from_all_users_together(self, book):
        for number in range(25):
            book(actor=UserFactory(), start_time=START + number * DAY)
        recipients = [to for to, _ in sent()]
        assert recipients.count(STRANGER) == 20
        # In emails to the provider of a calendar, their address counts as verified, so its limit is
        # higher.
        assert recipients.count(TO_HELENA) == 25
        with time_machine.travel(NOW + DAY, tick=False):
            book(start_time=START + 30 * DAY)
            assert (STRANGER, "Requested") in sent()

    def test_all_spellings_of_a_mailbox_count_as_one_address(self, book):
        spellings = ["victim+{n}@gmail.com", "Victim+{n}@GMail.com", "v.ictim+{n}@googlemail.com"]
        for number in range(25):
            spelling = spellings[number % len(spellings)]
            book(attendee_email=spelling.format(n=number), start_time=START + number * DAY)
        assert len([to for to, _ in sent() if to != TO_HELENA]) == 20

    def test_a_reminder_is_withheld_if_its_address_has_reached_the_limit(
        self, book, helena, settings
    ):
        settings.MAILS_PER_ADDRESS = 1
        booking = book()
        services.change_status(booking_id=booking.pk, status="confirmed", actor=helena, at=NOW)
        sent()
        clock.send_reminders(at=START - HOUR)
        assert sent() == []
        # The emails about the confirmation and the reminder were withheld.
        assert MailCount.objects.get(withheld__gt=0).withheld == 2

    def test_the_unverified_address_of_an_account_gets_at_most_twenty_emails_a_day(self, book):
        for number in range(25):
            book(attendee_email="", start_time=START + number * DAY)
        assert [to for to, _ in sent()].count(TO_MALLORY) == 20

    def test_a_withheld_email_is_logged_and_counted_without_the_address(
        self, book, settings, caplog
    ):
        settings.MAILS_PER_ADDRESS = 1
        book()
        booking = book(start_time=START + DAY)
        with caplog.at_level(logging.WARNING, logger="bookit.mails.sending"):
            sent()
        [record] = [each for each in caplog.records if each.name == "bookit.mails.sending"]
        assert record.getMessage() == "mail withheld: the limit of its address has been reached"
        assert (record.booking_id, record.audience) == (str(booking.pk), "attendee")
        assert STRANGER not in str(vars(record))
        [count] = MailCount.objects.filter(withheld__gt=0)
        assert (count.sent, count.most, count.withheld) == (1, 1, 1)
        assert "rui" not in count.subject
        # The email that was not sent does not count towards the limit of its booking.
        assert MailCount.objects.get(subject=f"booking/{booking.pk}/attendee").sent == 0

    def test_an_email_that_the_server_refuses_is_not_counted(self, book, monkeypatch):
        [event] = book().events.all()

        class Down(OSError):
            pass

        def fail(*args, **kwargs):
            raise Down

        with monkeypatch.context() as down:
            down.setattr(EmailMultiAlternatives, "send", fail)
            for _ in range(30):
                with pytest.raises(Down):
                    tasks.send_mail(**attendee_mail(event))
        assert set(MailCount.objects.values_list("sent", flat=True)) == {0}
        tasks.send_mail(**attendee_mail(event))
        assert len(mail.outbox) == 1

    def test_counts_are_deleted_after_a_month(self, book):
        book()
        sent()
        # Both emails count towards a limit of the booking and towards a limit of an address.
        assert MailCount.objects.count() == 4
        with time_machine.travel(NOW + timedelta(days=29), tick=False):
            call_command("prune")
        assert MailCount.objects.count() == 4
        with time_machine.travel(NOW + timedelta(days=31), tick=False):
            call_command("prune")
        assert MailCount.objects.count() == 0


def limits(booking_id, most):
    return [
        mail_limits.Limit("booking", f"booking/{booking_id}/attendee", 1000),
        mail_limits.Limit("address", "address/x", most),
    ]


def count_in_two_statements(wanted, at):
    """Count like `take`, but read and write in separate statements."""
    address = wanted[1]
    row, _ = MailCount.objects.get_or_create(
        subject=address.subject, day=at.date(), defaults={"most": address.most}
    )
    if row.sent >= address.most:
        return [address]
    MailCount.objects.filter(pk=row.pk).update(sent=row.sent + 1)
    return []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "take",
    [lambda wanted, at: mail_limits.take(wanted, at=at), count_in_two_statements],
    ids=["take", "control"],
)
def test_concurrent_workers_stay_within_a_limit(take):
    most, crowd = 10, 20

    def send_five(number):
        try:
            return [not take(limits(uuid4(), most), NOW) for _ in range(5)]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(crowd) as pool:
        allowed = sum(sum(each) for each in pool.map(send_five, range(crowd)))
    if take is count_in_two_statements:
        assert allowed > most, "the workers must exceed the limit if they read and write separately"
    else:
        assert allowed == most
        [address] = MailCount.objects.filter(subject="address/x")
        assert (address.sent, address.withheld) == (most, crowd * 5 - most)


# --- the content of emails to strangers -------------------------------------------------------

TEXTS = {
    "attendee_name": "You won http://evil.example/claim evil",
    "attendee_phone": "+66 666 666",
    "notes": "Pay at https://evil.example now, evil www.evil.example evil@evil.example",
}


# The other texts of an occasion: codes, texts about accounts, services and calendars, and the
# address and the reason, which the tests below set in another way.
OTHER_TEXTS = {
    *("type", "status", "currency", "language", "attendee_email", "reason"),
    *("title", "calendar_name", "user_name", "user_email", "user_phone", "user_timezone"),
    *("provider_name", "provider_email", "provider_timezone", "provider_language"),
}


def test_every_text_of_an_occasion_is_known():
    """Add a text that users write in a booking to `TEXTS`, and any other text to `OTHER_TEXTS`."""
    texts = {each.name for each in fields(Occasion) if each.type in (str, str | None)}
    assert texts == {*TEXTS} | OTHER_TEXTS


def whole(message):
    """Return all text of an email."""
    parts = [message.subject, message.body, message.alternatives[0].content]
    return "\n".join([*parts, *(str(content) for _, content, _ in message.attachments)])


@database
class TestStrangers:
    @pytest.mark.parametrize("address", [STRANGER, ""], ids=["attendee", "account"])
    def test_an_unverified_address_gets_no_links_and_no_names_notes_or_reasons_of_users(
        self, book, move, mallory, haircut, helena, address
    ):
        mallory.name = "Evil http://evil.example"
        mallory.save()
        haircut.title, haircut.calendar.name = "Cut by evil.example", "www.evil.example"
        haircut.save()
        haircut.calendar.save()
        booking = book(attendee_email=address, **TEXTS)
        work()
        for step in (
            lambda: move(booking, 1),
            lambda: services.change_status(
                booking_id=booking.pk, status="confirmed", actor=helena, at=NOW
            ),
            lambda: clock.send_reminders(at=START - HOUR),
            lambda: services.change_status(
                booking_id=booking.pk,
                status="cancelled",
                actor=helena,
                at=NOW,
                reason="See http://evil.example",
            ),
        ):
            step()
            work()
        emails = [each for each in mail.outbox if each.to == [address or TO_MALLORY]]
        sent_now = [message.subject.partition(":")[0] for message in emails]
        assert sent_now == ["Requested", "Moved", "Confirmed", "Reminder", "Cancelled"]
        for message in emails:
            text = whole(message)
            assert "http" not in re.sub(r"<!DOCTYPE.*?>", "", text).lower()
            # The title of the service is there, but it is not a link.
            assert "Cut by evil. example" in text
            assert not re.search(r"evil\.\S", text)
            for word in ("Pay", "won", "Evil", "See", "666 666"):
                assert word not in text
            assert message.body.startswith("Hello,\n")
            assert "somebody gave this address" in message.body

    def test_an_email_to_an_unverified_address_contains_the_reason_that_is_bookits_own_text(
        self, haircut, mallory, helena
    ):
        booking = services.create_booking(
            actor=mallory, service_id=haircut.pk, start_time=START, at=NOW
        )
        sent()
        services.change_status(
            booking_id=booking.pk,
            status="cancelled",
            actor=helena,
            at=NOW,
            reason=SLOT_CANCELLED,
        )
        work()
        assert f"Reason: {SLOT_CANCELLED}" in mail.outbox[0].body

    def test_an_email_to_a_provider_contains_text_of_users_but_no_links_in_names(self, book):
        book(**TEXTS)
        work()
        [message] = [each for each in mail.outbox if each.to == [TO_HELENA]]
        assert "You won http:// evil. example/claim evil would like to book." in message.body
        assert "Notes: Pay at https://evil.example now" in message.body
        assert "You won http:// evil. example/claim evil, rui@example.com" in message.body

    @pytest.mark.parametrize("role", ["user", "provider"])
    @pytest.mark.parametrize("is_verified", [False, True])
    def test_only_users_with_a_verified_address_get_text_that_users_wrote(
        self, book, mallory, role, is_verified
    ):
        mallory.role, mallory.verified_email = role, TO_MALLORY if is_verified else "old@a.example"
        mallory.save()
        book(attendee_email="", notes="By the window")
        work()
        [message] = [each for each in mail.outbox if each.to == [TO_MALLORY]]
        assert ("Hello Mallory," in message.body) == is_verified
        assert ("Notes: By the window" in message.body) == is_verified
        assert ("somebody gave this address" in message.body) != is_verified

    @pytest.mark.parametrize("is_verified", [False, True])
    def test_an_email_about_a_waitlist_says_why_an_unverified_address_gets_it(self, is_verified):
        place = replace(samples.PLACE, user_is_verified=is_verified)
        text = compose_end(place, {}).text
        assert ("somebody joined a waitlist with this address" in text.replace("\n", " ")) != (
            is_verified
        )
        assert "when booking" not in text

    def test_a_verified_user_does_not_make_another_address_verified(self, book, mallory):
        mallory.verified_email = TO_MALLORY
        mallory.save()
        book(notes="By the window")
        work()
        [message] = [each for each in mail.outbox if each.to == [STRANGER]]
        assert "By the window" not in message.body


LINKS = re.compile(
    r"\w+://\S|www\.\w|\S@\S|[^\W_]\.[^\W\d_]|(mailto|tel|javascript|data):\S", re.IGNORECASE
)


@pytest.mark.parametrize(
    "text",
    [
        *("http://evil.example", "HTTPS://evil.example/x?y=z#w", "www.evil.example"),
        *("evil.example", "evil.example:8080/x", "a@evil.example", "mailto:a@evil.example"),
        *("tel:+351900000000", "//evil.example", "evil.рф", "javascript:alert(1)"),
        *("ftp://1.2.3.4/", "Ana(evil.example)", "http:\\\\evil.example"),
    ],
)
def test_unlinking_breaks_up_links(text):
    assert not LINKS.search(composition.unlinked(text)), composition.unlinked(text)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=100))
def test_unlinking_removes_all_links_and_unlinking_again_changes_nothing(text):
    plain = composition.unlinked(text)
    assert not re.search(r"//\S|@\S|\.[^\W\d]", plain)
    assert composition.unlinked(plain) == plain


@pytest.mark.parametrize("text", ["Haircut", "Yoga 10:30, 1.5 h", "Dr. Silva: teeth", "Zoë & Co."])
def test_unlinking_does_not_change_ordinary_names(text):
    assert composition.unlinked(text) == text


def test_admins_see_how_many_emails_were_withheld(client, db):
    MailCount.objects.create(
        subject="booking/1/attendee", day=NOW.date(), sent=8, most=8, withheld=92
    )
    client.force_login(AdminFactory())
    page = client.get("/admin/mails/mailcount/")
    assert page.status_code == 200
    assert b"booking/1/attendee" in page.content
    assert b'class="field-withheld">92<' in page.content
