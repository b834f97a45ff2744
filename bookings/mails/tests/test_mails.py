"""Emails about bookings: who gets which email, what it says, and that no email is lost."""

import email
import re
import smtplib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import icalendar
import pytest
import time_machine
import vobject  # type: ignore[import-untyped]
from django.core import mail
from django.core.management import call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from procrastinate.contrib.django.models import ProcrastinateJob

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings import clock, events, services
from bookings.mails import samples, tasks, texts
from bookings.mails import services as mails
from bookings.mails.occasions import NEWS, NEWS_OF_TYPE
from bookings.models import Booking, BookingEvent
from bookings.slots import services as slots
from bookings.tests.factories import BookingFactory, SlotFactory
from bookings.tests.jobs import attendee_mail, follow_events_up, relay_jobs, work
from bookings.tests.smtp import AnyPort, Mailbox
from bookings.waitlist import services as waitlist
from bookit.jobs.queues import PATIENT
from bookit.languages import speaking
from bookit.runtime import environment
from bookit.runtime.startup import BASE_DIR
from catalog.tests.factories import CalendarFactory, ServiceFactory

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
START = datetime(2026, 12, 1, 10, tzinfo=UTC)
DAY = timedelta(days=1)

database = pytest.mark.django_db


@pytest.fixture
def ana():
    return UserFactory(name="Ana Silva", email="ana@example.com", timezone="Europe/Lisbon")


@pytest.fixture
def helena():
    return ProviderFactory(name="Helena", email="helena@example.com", timezone="Europe/Paris")


@pytest.fixture
def admin():
    return AdminFactory(email="admin@example.com")


@pytest.fixture
def haircut(helena):
    return ServiceFactory(
        title="Haircut", calendar=CalendarFactory(name="Helena's chair", provider=helena)
    )


@pytest.fixture
def book(haircut, ana):
    """Return a function that books, by default at START."""

    def make(**wish):
        return services.create_booking(
            **{"actor": ana, "service_id": haircut.pk, "start_time": START, "at": NOW, **wish}
        )

    return make


def sent():
    """Run the waiting jobs; return the recipient and subject of each email since the last call."""
    work()
    found = [(message.to[0], message.subject) for message in mail.outbox]
    mail.outbox.clear()
    return found


def sent_one(to):
    """Send the waiting emails, and return the only email to a recipient."""
    work()
    [message] = [each for each in mail.outbox if each.to == [to]]
    mail.outbox.clear()
    return message


def file_of(message):
    """Parse an email's calendar file with two libraries, and return its method and its event."""
    [(name, content, content_type)] = message.attachments
    assert name == "booking.ics"
    read = icalendar.Calendar.from_ical(content)
    [event] = read.walk("VEVENT")
    assert content_type == f"text/calendar; method={read['METHOD']}"
    other = vobject.readOne(content)
    assert other.method.value == read["METHOD"]
    assert other.vevent.uid.value == event["UID"]
    assert other.vevent.dtstart.value == event["DTSTART"].dt
    return str(read["METHOD"]), event


# --- who gets which email ---------------------------------------------------------------------

TO_ANA, TO_HELENA = "ana@example.com", "helena@example.com"
ON = "Haircut, Tue 1 Dec 2026, "


@database
class TestRecipients:
    def test_the_attendee_and_the_provider_get_an_email_about_a_request(self, book):
        book()
        assert sent() == [
            (TO_ANA, f"Requested: {ON}10:00"),
            (TO_HELENA, f"Requested: {ON}11:00"),
        ]

    def test_a_booking_that_needs_no_confirmation_is_announced_as_confirmed(self, book, haircut):
        haircut.requires_confirmation = False
        haircut.save()
        book()
        assert sent() == [
            (TO_ANA, f"Confirmed: {ON}10:00"),
            (TO_HELENA, f"Confirmed: {ON}11:00"),
        ]

    def test_a_provider_gets_no_email_about_their_own_actions(self, book, helena):
        booking = book()
        sent()
        services.change_status(booking_id=booking.pk, status="confirmed", actor=helena, at=NOW)
        assert sent() == [(TO_ANA, f"Confirmed: {ON}10:00")]
        services.cancel_booking(booking_id=booking.pk, actor=helena, at=NOW)
        assert sent() == [(TO_ANA, f"Cancelled: {ON}10:00")]

    def test_the_attendee_and_the_provider_get_an_email_if_an_admin_confirms_a_booking(
        self, book, admin
    ):
        booking = book()
        sent()
        services.change_status(booking_id=booking.pk, status="confirmed", actor=admin, at=NOW)
        assert [to for to, _ in sent()] == [TO_ANA, TO_HELENA]

    def test_an_attendee_who_moves_or_cancels_a_booking_gets_an_email_too(self, book, ana):
        booking = book()
        sent()
        services.reschedule_booking(
            booking_id=booking.pk, actor=ana, start_time=START + DAY, at=NOW
        )
        assert sent() == [
            (TO_ANA, "Moved: Haircut, Wed 2 Dec 2026, 10:00"),
            (TO_HELENA, "Moved: Haircut, Wed 2 Dec 2026, 11:00"),
        ]
        services.cancel_booking(booking_id=booking.pk, actor=ana, at=NOW)
        assert sent() == [
            (TO_ANA, "Cancelled: Haircut, Wed 2 Dec 2026, 10:00"),
            (TO_HELENA, "Cancelled: Haircut, Wed 2 Dec 2026, 11:00"),
        ]

    def test_a_hold_causes_no_emails_until_it_is_booked(self, book, ana):
        first, second, third = (book(hold=True, start_time=START + n * DAY) for n in range(3))
        services.cancel_booking(booking_id=first.pk, actor=ana, at=NOW)
        assert sent() == []
        services.book_hold(booking_id=second.pk, actor=ana, at=NOW)
        assert [to for to, _ in sent()] == [TO_ANA, TO_HELENA]
        clock.expire_bookings(at=NOW + DAY)
        assert Booking.objects.get(pk=third.pk).status == "expired"
        assert sent() == []

    def test_an_attendee_gets_an_email_if_the_request_expires(self, book):
        book()
        sent()
        clock.expire_bookings(at=START)
        assert sent() == [(TO_ANA, f"Not confirmed: {ON}10:00")]

    def test_only_attendees_get_reminders(self, book, admin):
        booking = book()
        services.change_status(booking_id=booking.pk, status="confirmed", actor=admin, at=NOW)
        sent()
        clock.send_reminders(at=START - timedelta(hours=23))
        assert sent() == [(TO_ANA, f"Reminder: {ON}10:00")]

    def test_no_reminder_is_sent_if_the_booking_is_cancelled_first(self, book, ana, admin):
        booking = book()
        services.change_status(booking_id=booking.pk, status="confirmed", actor=admin, at=NOW)
        sent()
        clock.send_reminders(at=START - timedelta(hours=23))
        services.cancel_booking(booking_id=booking.pk, actor=ana, at=START - timedelta(hours=22))
        assert {subject.partition(":")[0] for _, subject in sent()} == {"Cancelled"}

    def test_a_booking_that_is_completed_or_missed_causes_no_email(self, book, admin):
        booking = book()
        services.change_status(booking_id=booking.pk, status="confirmed", actor=admin, at=NOW)
        sent()
        clock.complete_bookings(at=START + DAY)
        services.change_status(booking_id=booking.pk, status="no_show", actor=admin, at=START + DAY)
        assert sent() == []

    def test_all_attendees_of_a_cancelled_slot_get_the_reason(self, haircut, ana, helena):
        slot = SlotFactory(service=haircut, capacity=2, start_time=START)
        for user in (ana, UserFactory(email="ben@example.com")):
            services.create_booking(actor=user, slot_id=slot.pk, at=NOW)
        sent()
        slots.change_slot(slot_id=slot.pk, actor=helena, status="cancelled", at=NOW)
        work()
        assert [message.to for message in mail.outbox] == [[TO_ANA], ["ben@example.com"]]
        assert all("Reason: The slot was cancelled." in message.body for message in mail.outbox)

    def test_an_offer_to_the_waitlist_says_until_when_the_seat_is_kept(self, ana, haircut):
        offer = BookingFactory(
            user=ana,
            service=haircut,
            start_time=START,
            status="held",
            hold_expires_at=NOW + timedelta(hours=1),
        )
        events.record(offer, BookingEvent.Type.HELD, actor=None, at=NOW, waitlist=True)
        message = sent_one(TO_ANA)
        assert message.subject == f"A seat for you: {ON}10:00"
        assert "until Saturday, 21 November 2026, 10:00 (Europe/Lisbon)" in message.body
        # If the offer expired, nothing would remove it from the user's calendar.
        assert message.attachments == []

    def test_a_user_gets_an_email_if_somebody_else_cancels_their_offer(self, ana, haircut, admin):
        offer = BookingFactory(user=ana, service=haircut, start_time=START, status="held")
        events.record(offer, BookingEvent.Type.HELD, actor=None, at=NOW, waitlist=True)
        sent()
        services.change_status(booking_id=offer.pk, status="cancelled", actor=admin, at=NOW)
        message = sent_one(TO_ANA)
        assert message.subject == f"Your seat is no longer kept: {ON}10:00"
        assert "the seat that was kept for you is no longer available" in message.body
        # The email about the offer had no file, so there is nothing to remove from a calendar.
        assert message.attachments == []

    def test_a_user_who_declines_an_offer_gets_no_email(self, ana, haircut):
        offer = BookingFactory(user=ana, service=haircut, start_time=START, status="held")
        events.record(offer, BookingEvent.Type.HELD, actor=None, at=NOW, waitlist=True)
        sent()
        services.cancel_booking(booking_id=offer.pk, actor=ana, at=NOW)
        assert sent() == []

    def test_a_user_whose_offer_expires_gets_one_email_and_the_provider_none(self, ana, haircut):
        offer = BookingFactory(user=ana, service=haircut, start_time=START, status="held")
        events.record(offer, BookingEvent.Type.HELD, actor=None, at=NOW, waitlist=True)
        clock.expire_bookings(at=offer.hold_expires_at)
        assert sent() == [(TO_ANA, f"Your seat is no longer kept: {ON}10:00")]

    def test_emails_go_to_the_attendee_that_the_booking_names(self, book):
        book(attendee_name="Rui", attendee_email="rui@example.com")
        work()
        to_rui, to_helena = mail.outbox
        assert (to_rui.to, to_helena.to) == (["rui@example.com"], [TO_HELENA])
        # The email does not greet Rui by name, because his address is not verified.
        assert to_rui.body.startswith("Hello,")

    def test_the_provider_sees_the_name_address_and_phone_number_of_the_user(self, book, ana):
        ana.phone = "+351 912 345 678"
        ana.save()
        book()
        assert f"\nWho: {ana.name}, {TO_ANA}, +351 912 345 678\n" in sent_one(TO_HELENA).body

    def test_the_provider_sees_the_attendee_that_the_booking_names(self, book, ana):
        ana.phone = "+351 912 345 678"
        ana.save()
        book(
            attendee_name="Rui", attendee_email="rui@example.com", attendee_phone="+351 933 333 333"
        )
        text = sent_one(TO_HELENA).message().as_string()
        assert "\nWho: Rui, rui@example.com, +351 933 333 333\n" in text
        assert TO_ANA not in text
        assert ana.phone not in text

    def test_deactivated_accounts_get_no_email(self, book, ana, helena):
        booking = book()
        ana.is_active = helena.is_active = False
        ana.save()
        helena.save()
        assert sent() == []
        Booking.objects.filter(pk=booking.pk).update(attendee_email="rui@example.com")
        services.change_status(
            booking_id=booking.pk, status="confirmed", actor=AdminFactory(), at=NOW
        )
        assert [to for to, _ in sent()] == ["rui@example.com"]

    @pytest.mark.parametrize("role", ["user", "provider", "admin"])
    def test_a_provider_gets_emails_unless_they_are_demoted_to_a_user(self, book, helena, role):
        helena.role = role
        helena.save()
        book()
        assert (TO_HELENA in [to for to, _ in sent()]) == (role != "user")

    def test_a_provider_who_is_demoted_gets_no_pending_emails(self, book, helena):
        booking = book()
        relay_jobs()
        follow_events_up([event.pk for event in booking.events.all()], at=NOW)
        assert len(waiting()) == 2
        helena.role = "user"
        helena.save()
        assert [to for to, _ in sent()] == [TO_ANA]

    def test_only_the_attendee_gets_emails_if_the_calendar_has_no_provider(self, ana):
        room = ServiceFactory(title="Room")
        services.create_booking(actor=ana, service_id=room.pk, start_time=START, at=NOW)
        assert [to for to, _ in sent()] == [TO_ANA]


# --- what the emails say ----------------------------------------------------------------------


@database
class TestContent:
    def test_a_price_has_the_decimals_of_its_currency(self, ana):
        bath = ServiceFactory(title="Onsen", price=1500, currency="JPY")
        services.create_booking(actor=ana, service_id=bath.pk, start_time=START, at=NOW)
        assert "\nPrice: 1500 JPY\n" in sent_one(TO_ANA).body

    def test_an_email_consists_of_text_html_and_the_booking_in_icalendar_format(self, book, ana):
        # An unverified address would not get the notes.
        ana.verified_email = ana.email
        ana.save()
        booking = book(notes="Short, please.\nPrice: 0.00 USD")
        message = sent_one(TO_ANA)
        [html] = message.alternatives
        assert html.mimetype == "text/html"
        for text in (message.body, html.content):
            assert "Tuesday, 1 December 2026, 10:00-11:00 (Europe/Lisbon)" in text
            assert "Haircut" in text
            assert "25.00 USD" in text
            assert str(booking.pk) in text
        # Text that a user wrote does not look like a line of the email.
        assert "\nPrice: 25.00 USD\n" in message.body
        assert "\nNotes: Short, please.\n    Price: 0.00 USD\n" in message.body
        assert "\nPrice: 0.00" not in message.body
        method, event = file_of(message)
        assert (method, event["STATUS"], event["SEQUENCE"]) == ("REQUEST", "TENTATIVE", 0)
        assert (event["UID"], event["SUMMARY"]) == (str(booking.pk), "Haircut")
        assert event["DTSTART"].dt == START
        assert event["ATTENDEE"] == "mailto:ana@example.com"
        assert event["ORGANIZER"] == "mailto:bookit@localhost"

    def test_times_are_in_the_readers_own_time_zone(self, book):
        book()
        message = sent_one(TO_HELENA)
        assert "Tuesday, 1 December 2026, 11:00-12:00 (Europe/Paris)" in message.body
        assert file_of(message)[1]["SUMMARY"] == "Haircut: Ana Silva"

    @pytest.mark.parametrize(
        ("zone", "start", "shown"),
        [
            ("Europe/Lisbon", "2027-07-01T10:00Z", "Thursday, 1 July 2027, 11:00-12:00"),
            ("Asia/Kathmandu", "2027-07-01T10:00Z", "Thursday, 1 July 2027, 15:45-16:45"),
            (
                "Pacific/Auckland",
                "2027-07-01T11:30Z",
                "Thursday, 1 July 2027, 23:30 - Friday, 2 July 2027, 00:30",
            ),
            # In Lisbon, clocks jump from 01:00 to 02:00 in spring, and from 02:00 back to 01:00 in
            # autumn.
            ("Europe/Lisbon", "2027-03-28T00:30Z", "Sunday, 28 March 2027, 00:30-02:30"),
            (
                "Europe/Lisbon",
                "2027-10-31T00:30Z",
                "Sunday, 31 October 2027, 01:30 WEST-01:30 WET",
            ),
        ],
    )
    def test_times_have_the_offset_that_the_readers_time_zone_has_on_that_day(
        self, book, ana, zone, start, shown
    ):
        ana.timezone = zone
        ana.save()
        book(start_time=datetime.fromisoformat(start))
        assert f"When: {shown} ({zone})\n" in sent_one(TO_ANA).body

    def test_an_email_about_a_move_shows_the_old_time_and_that_confirmation_is_missing(
        self, book, ana
    ):
        booking = book()
        sent()
        services.reschedule_booking(
            booking_id=booking.pk, actor=ana, start_time=START + DAY, at=NOW
        )
        text = sent_one(TO_ANA).body
        assert "has been moved. It still has to be confirmed." in text
        assert "When: Wednesday, 2 December 2026, 10:00" in text
        assert "Before: Tuesday, 1 December 2026, 10:00" in text

    @time_machine.travel(NOW, tick=False)
    def test_each_email_shows_the_booking_as_it_was_after_the_event(self, book, ana):
        booking = book()
        services.reschedule_booking(
            booking_id=booking.pk, actor=ana, start_time=START + DAY, at=NOW
        )
        work()
        first, second = [each for each in mail.outbox if each.to == [TO_ANA]]
        assert "When: Tuesday, 1 December 2026" in first.body
        assert "When: Wednesday, 2 December 2026" in second.body

    @time_machine.travel(NOW, tick=False)
    def test_the_calendar_files_describe_one_event_with_a_rising_sequence(self, book, ana, admin):
        booking = book()
        services.change_status(booking_id=booking.pk, status="confirmed", actor=admin, at=NOW)
        services.reschedule_booking(
            booking_id=booking.pk, actor=ana, start_time=START + DAY, at=NOW
        )
        work()
        services.cancel_booking(booking_id=booking.pk, actor=ana, at=NOW)
        work()
        files = [file_of(each) for each in mail.outbox if each.to == [TO_ANA]]
        assert {event["UID"] for _, event in files} == {str(booking.pk)}
        assert [(method, event["STATUS"], event["SEQUENCE"]) for method, event in files] == [
            ("REQUEST", "TENTATIVE", 0),
            ("REQUEST", "CONFIRMED", 1),
            ("REQUEST", "CONFIRMED", 2),
            ("CANCEL", "CANCELLED", 3),
        ]
        assert files[-1][1]["DTSTART"].dt == START + DAY

    def test_text_that_users_wrote_adds_no_headers_html_or_calendar_properties(
        self, book, haircut, ana
    ):
        haircut.title = "Hair\r\nBcc: evil@example.com\r\n\r\n<b>cut</b>{name}"
        haircut.save()
        haircut.calendar.name = 'Chair\r\nATTENDEE:mailto:evil@example.com "quoted"'
        haircut.calendar.save()
        ana.name = "Ana\r\nBcc: evil@example.com <script>alert(1)</script>"
        ana.verified_email = ana.email
        ana.save()
        book(notes="<img src=x onerror=alert(1)>\x1b[31m")
        message = sent_one(TO_ANA)
        received = email.message_from_bytes(message.message().as_bytes())
        assert received["Bcc"] is None
        assert received["To"] == TO_ANA
        assert message.recipients() == [TO_ANA]
        assert "Requested: Hair Bcc: evil@example.com <b>cut</b>{name}, Tue" in message.subject
        html = message.alternatives[0].content
        assert not any(tag in html for tag in ("<script", "<img", "<b>"))
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
        _, event = file_of(message)
        assert event["ATTENDEE"] == "mailto:ana@example.com"


# --- the layout and its links -----------------------------------------------------------------

FRONT_END = "https://app.example.com"


def links_of(message):
    """Return the paths of the links in an email. Its text and its HTML must have the same links."""
    html = message.alternatives[0].content
    paths = re.findall(rf'href="{FRONT_END}([^"]+)"', html)
    assert paths == re.findall(rf"^{FRONT_END}(\S+)$", message.body, re.MULTILINE)
    return paths


@database
class TestLayout:
    @pytest.fixture(autouse=True)
    def front_end(self, settings):
        settings.PUBLIC_URL = FRONT_END

    def test_an_attendee_gets_three_links_and_a_provider_only_the_link_to_the_booking(self, book):
        booking = book()
        work()
        links = {message.to[0]: links_of(message) for message in mail.outbox}
        page = f"/bookings/{booking.pk}"
        assert links == {TO_ANA: [page, f"{page}/move", f"{page}/cancel"], TO_HELENA: [page]}

    def test_emails_have_no_links_if_there_is_no_front_end(self, book, settings):
        settings.PUBLIC_URL = ""
        book()
        message = sent_one(TO_ANA)
        assert "http" not in message.body + message.alternatives[0].content

    def test_an_email_about_a_booking_that_can_no_longer_be_moved_links_only_to_its_page(
        self, book, haircut
    ):
        haircut.cancellation_notice_minutes = 10 * 24 * 60
        haircut.save()
        booking = book(at=START - 10 * DAY)
        assert links_of(sent_one(TO_ANA)) == [f"/bookings/{booking.pk}"]

    def test_an_email_about_a_cancelled_booking_has_no_links(self, book, ana):
        booking = book()
        sent()
        services.cancel_booking(booking_id=booking.pk, actor=ana, at=NOW)
        assert links_of(sent_one(TO_ANA)) == []

    def test_an_attendee_who_cannot_sign_in_as_the_user_gets_no_links(self, book):
        book(attendee_name="Rui", attendee_email="rui@example.com")
        assert links_of(sent_one("rui@example.com")) == []

    def test_an_offer_links_to_the_hold(self, ana, haircut):
        offer = BookingFactory(user=ana, service=haircut, start_time=START, status="held")
        events.record(offer, BookingEvent.Type.HELD, actor=None, at=NOW, waitlist=True)
        message = sent_one(TO_ANA)
        assert links_of(message) == [f"/bookings/{offer.pk}"]
        assert "Confirm your seat:" in message.body

    def test_an_email_shows_the_name_of_the_business_or_its_logo_if_there_is_one(
        self, book, settings
    ):
        settings.BUSINESS_NAME = "Maré & Co"
        book()
        message = sent_one(TO_ANA)
        html = message.alternatives[0].content
        assert message.body.rstrip().endswith("-- \nMaré & Co")
        assert "Maré &amp; Co" in html
        assert "<img" not in html
        settings.BUSINESS_LOGO_URL = "https://app.example.com/logo.png"
        [event] = BookingEvent.objects.all()
        mails.send(calendar_id=event.calendar_id, event_id=event.pk, audience="attendee", at=NOW)
        html = mail.outbox[-1].alternatives[0].content
        assert '<img src="https://app.example.com/logo.png" alt="Maré &amp; Co"' in html


# --- no email is lost or enqueued twice -------------------------------------------------------


def waiting():
    return [job.args for job in ProcrastinateJob.objects.filter(task_name="bookings.send_mail")]


@database
class TestJobs:
    def test_following_up_an_event_twice_enqueues_its_emails_once(self, book):
        booking = book()
        ids = [event.pk for event in booking.events.all()]
        for _ in range(2):
            follow_events_up(ids, at=NOW)
            assert waiting() == [
                {**attendee_mail(booking.events.get()), "audience": "attendee"},
                {**attendee_mail(booking.events.get()), "audience": "provider"},
            ]

    def test_waiting_emails_do_not_prevent_other_emails_from_being_enqueued(self, book):
        first, second = book(), book(start_time=START + DAY)
        for bookings in ([first], [first, second]):
            ids = [event.pk for booking in bookings for event in booking.events.all()]
            follow_events_up(ids, at=NOW)
        assert len(waiting()) == 4

    def test_an_email_that_is_sent_twice_has_the_same_message_id(self, book):
        [event] = book().events.all()
        for audience in ("attendee", "attendee", "provider"):
            mails.send(calendar_id=event.calendar_id, event_id=event.pk, audience=audience, at=NOW)
        first, again, other = [message.message()["Message-ID"] for message in mail.outbox]
        assert first == again != other

    def test_the_number_of_queries_does_not_depend_on_the_number_of_events(self, haircut, ana):
        def enqueue(count):
            made = [
                events.record(
                    BookingFactory(service=haircut, user=ana, start_time=START + n * DAY),
                    BookingEvent.Type.CREATED,
                    actor=ana,
                    at=NOW,
                )
                for n in range(count)
            ]
            ids = [event.pk for event in made]
            # Free the times for the next call.
            Booking.objects.update(status="cancelled")
            with CaptureQueriesContext(connection) as queries:
                follow_events_up(ids, at=NOW)
            return len(queries)

        assert enqueue(1) == enqueue(20)
        assert len(waiting()) == 2 * (1 + 20)

    def test_sending_an_email_takes_three_queries(self, book):
        [event] = book().events.all()
        with CaptureQueriesContext(connection) as queries:
            mails.send(
                calendar_id=event.calendar_id, event_id=event.pk, audience="attendee", at=NOW
            )
        # One query reads the event, one reads the operator's texts, and one counts the email.
        assert len(queries) == 3
        assert len(mail.outbox) == 1

    def test_deleting_a_booking_cancels_it_first_and_sends_emails(self, book, ana):
        booking = book()
        sent()
        services.delete_booking(booking_id=booking.pk, actor=ana, at=NOW)
        assert not Booking.objects.exists()
        message = sent_one(TO_ANA)
        assert message.subject == f"Cancelled: {ON}10:00"
        method, event = file_of(message)
        assert (method, event["UID"], event["SEQUENCE"]) == ("CANCEL", str(booking.pk), 1)
        types = BookingEvent.objects.order_by("id").values_list("type", "data__status")
        assert list(types) == [
            ("booking.created", "pending"),
            ("booking.cancelled", "cancelled"),
            ("booking.deleted", "cancelled"),
        ]

    def test_deleting_a_hold_or_a_past_booking_causes_no_emails(self, book, ana, admin):
        past, held = book(), book(hold=True, start_time=START + DAY)
        sent()
        services.delete_booking(booking_id=held.pk, actor=ana, at=NOW)
        services.delete_booking(booking_id=past.pk, actor=admin, at=START)
        assert sent() == []
        cancelled = BookingEvent.objects.filter(type="booking.cancelled")
        assert [event.booking_id for event in cancelled] == [held.pk]

    def test_a_deletion_that_is_rolled_back_causes_no_emails(self, book, ana):
        booking = book()
        sent()
        with transaction.atomic():
            services.delete_booking(booking_id=booking.pk, actor=ana, at=NOW)
            transaction.set_rollback(True)
        assert sent() == []
        assert Booking.objects.exists()

    @pytest.mark.parametrize(
        ("delay", "labels"),
        [
            (timedelta(0), ["Requested", "Confirmed", "Cancelled"]),
            (mails.LATE + timedelta(seconds=1), ["Cancelled"]),
        ],
        ids=["in time", "late"],
    )
    def test_an_email_that_is_no_longer_true_is_not_sent_late(self, book, admin, delay, labels):
        """An email that is retried could arrive after the emails about later events."""
        booking = book()
        services.change_status(booking_id=booking.pk, status="confirmed", actor=admin, at=NOW)
        services.cancel_booking(booking_id=booking.pk, actor=admin, at=NOW)
        with time_machine.travel(NOW + delay, tick=False):
            subjects = [subject for to, subject in sent() if to == TO_ANA]
        assert [subject.partition(":")[0] for subject in subjects] == labels

    def test_the_email_about_a_request_is_not_sent_late_if_the_request_is_confirmed(
        self, book, admin
    ):
        booking = book()
        services.change_status(booking_id=booking.pk, status="confirmed", actor=admin, at=NOW)
        with time_machine.travel(NOW + timedelta(hours=1), tick=False):
            assert sent() == [
                (TO_ANA, f"Confirmed: {ON}10:00"),
                (TO_HELENA, f"Confirmed: {ON}11:00"),
            ]

    def test_pending_emails_are_sent_even_if_the_booking_is_deleted(self, book, ana):
        booking = book()
        services.delete_booking(booking_id=booking.pk, actor=ana, at=NOW)
        assert {subject.partition(":")[0] for _, subject in sent()} == {"Requested", "Cancelled"}

    def test_a_pending_reminder_is_not_sent_if_the_booking_is_deleted(self, book, admin):
        booking = book()
        services.change_status(booking_id=booking.pk, status="confirmed", actor=admin, at=NOW)
        sent()
        clock.send_reminders(at=START - timedelta(hours=23))
        services.delete_booking(booking_id=booking.pk, actor=admin, at=START - timedelta(hours=22))
        assert {subject.partition(":")[0] for _, subject in sent()} == {"Cancelled"}

    def test_a_pending_offer_is_not_sent_if_the_hold_is_deleted(self, ana, haircut):
        offer = BookingFactory(user=ana, service=haircut, start_time=START, status="held")
        events.record(offer, BookingEvent.Type.HELD, actor=None, at=NOW, waitlist=True)
        services.delete_booking(booking_id=offer.pk, actor=ana, at=NOW)
        assert sent() == []

    def test_pending_emails_about_a_deleted_booking_have_no_links(self, book, ana, settings):
        settings.PUBLIC_URL = "https://book.example"
        services.delete_booking(booking_id=book().pk, actor=ana, at=NOW)
        work()
        assert len(mail.outbox) == 4
        for message in mail.outbox:
            assert "https://book.example" not in message.body
            assert "https://book.example" not in message.alternatives[0].content

    def test_a_copy_is_not_sent_if_the_booking_is_deleted_before_the_job_runs(self, book, ana):
        booking = book()
        sent()
        mails.resend(booking=booking, at=NOW)
        services.delete_booking(booking_id=booking.pk, actor=ana, at=NOW)
        assert {subject.partition(":")[0] for _, subject in sent()} == {"Cancelled"}

    def test_a_cancellation_is_announced_once_if_the_booking_is_deleted_right_after_it(
        self, book, ana
    ):
        booking = book()
        sent()
        services.cancel_booking(booking_id=booking.pk, actor=ana, at=NOW)
        services.delete_booking(booking_id=booking.pk, actor=ana, at=NOW)
        emails = sent()
        assert {subject.partition(":")[0] for _, subject in emails} == {"Cancelled"}
        assert len(emails) == 2
        assert sent() == []


# --- a real mail server -----------------------------------------------------------------------


@pytest.fixture
def smtp(settings):
    server = Mailbox()
    controller = AnyPort(server, hostname="127.0.0.1", port=0)
    controller.start()
    url = f"smtp://{controller.hostname}:{controller.port}"
    mailer = environment.mailer("EMAIL_URL", url, folder=BASE_DIR)
    for name, value in environment.mail_settings(mailer).items():
        setattr(settings, name, value)
    yield server
    controller.stop()


@database
def test_a_mail_server_receives_all_parts_of_an_email(smtp, book, haircut, ana):
    ana.name, ana.verified_email = "Zoë 渡辺", ana.email
    ana.save()
    haircut.title = "Häärcut"
    haircut.save()
    booking = book()
    work()
    envelope, message = next(each for each in smtp.mails if each[0].rcpt_tos == [TO_ANA])
    assert envelope.mail_from == "bookit@localhost"
    subject = str(email.header.make_header(email.header.decode_header(message["Subject"])))
    assert subject == "Requested: Häärcut, Tue 1 Dec 2026, 10:00"
    assert message["Auto-Submitted"] == "auto-generated"
    parts = {
        part.get_content_type(): part.get_payload(decode=True).decode()
        for part in message.walk()
        if not part.is_multipart()
    }
    assert list(parts) == ["text/plain", "text/html", "text/calendar"]
    assert message.get_payload()[0].get_content_type() == "multipart/alternative"
    assert "Hello Zoë 渡辺," in parts["text/plain"]
    assert "Hello Zoë 渡辺," in parts["text/html"]
    [event] = icalendar.Calendar.from_ical(parts["text/calendar"]).walk("VEVENT")
    assert (event["UID"], event["SUMMARY"]) == (str(booking.pk), "Häärcut")
    assert event["ATTENDEE"].params["CN"] == "Zoë 渡辺"


@database
def test_an_email_that_the_server_refuses_is_retried_for_a_day(smtp, book):
    [event] = book().events.all()
    smtp.reply = "451 Not now"
    with pytest.raises(smtplib.SMTPException):
        tasks.send_mail(**attendee_mail(event))
    assert tasks.send_mail.retry_strategy is PATIENT
    smtp.reply = "250 OK"
    tasks.send_mail(**attendee_mail(event))
    assert len(smtp.mails) == 1


@pytest.mark.parametrize(("silent", "reader"), [("attendee", "provider"), ("provider", "attendee")])
def test_a_reader_for_whom_an_email_has_no_text_gets_none(monkeypatch, silent, reader):
    news = replace(NEWS_OF_TYPE[BookingEvent.Type.CONFIRMED], **{silent: ""})
    monkeypatch.setitem(NEWS_OF_TYPE, BookingEvent.Type.CONFIRMED, news)
    assert samples.OCCASIONS["confirmed"].audiences == [reader]


# --- previews ---------------------------------------------------------------------------------


def test_all_emails_can_be_previewed_without_a_database(tmp_path, capsys):
    with time_machine.travel(NOW):
        call_command("preview_mails", str(tmp_path / "mails"))
    assert str(tmp_path) in capsys.readouterr().out
    files = {path.name for path in (tmp_path / "mails").iterdir()}
    for kind, news in NEWS.items():
        for audience in ("attendee", "provider"):
            assert (f"{kind}-{audience}.txt" in files) == bool(getattr(news, audience))
    for kind in ("requested", "booked", "confirmed", "moved", "cancelled"):
        for audience in ("attendee", "provider"):
            for form in ("txt", "html", "ics", "eml"):
                assert f"{kind}-{audience}.{form}" in files
    assert {"not-confirmed-attendee.ics", "seat-offered-attendee.html"} < files
    assert {"seat-passed-on-attendee.html", "seat-withdrawn-attendee.html"} < files
    assert "seat-withdrawn-attendee.ics" not in files
    assert "queue-ended-attendee.html" in files
    assert "queue-cancelled-attendee.eml" in files
    for path in (tmp_path / "mails").glob("*.ics"):
        assert icalendar.Calendar.from_ical(path.read_bytes()).walk("VEVENT")
    for name, label in (
        ("moved-attendee", "Moved"),
        ("handed-over-attendee", "Confirmed"),
        ("handed-over-former", "Cancelled"),
    ):
        text = (tmp_path / "mails" / f"{name}.txt").read_text()
        assert text.startswith(f"{label}: Haircut, Tue 1 Dec 2026, 10:00\n")


def test_the_day_until_which_a_seat_is_kept_fits_into_the_russian_sentence():
    """The name of the weekday is a nominative, so it cannot follow a preposition."""
    with speaking("ru"):
        text = samples.mail("seat-offered", "attendee", {}).text
    assert "сохраняется за вами до этого времени: Понедельник, 30 ноября" in text


# --- copies that staff send again -------------------------------------------------------------


@database
def test_a_copy_of_a_reminder_has_the_operators_words_and_an_id_of_its_own(book, ana, admin):
    booking = book()
    services.change_status(booking_id=booking.pk, status="confirmed", actor=admin, at=NOW)
    sent()
    clock.send_reminders(at=START - timedelta(hours=23))
    first = sent_one(TO_ANA)
    texts.change(key="reminder", label="See you", attendee="Bring a towel.", provider="", at=NOW)
    mails.resend(booking=booking, at=START - timedelta(hours=22))
    copy = sent_one(TO_ANA)
    assert copy.subject.startswith("See you: Haircut, ")
    assert "Bring a towel." in copy.body
    assert first.extra_headers["Message-ID"] != copy.extra_headers["Message-ID"]


@database
def test_a_copy_says_whether_the_offered_seat_is_still_kept(haircut, ana, admin):
    yoga = ServiceFactory(title="Yoga", mode="slots", calendar=haircut.calendar)
    slot = SlotFactory(service=yoga, capacity=1, start_time=START + DAY)
    taken = services.create_booking(actor=UserFactory(), slot_id=slot.pk, at=NOW)
    waitlist.join(slot_id=slot.pk, actor=ana, at=NOW)
    services.cancel_booking(booking_id=taken.pk, actor=taken.user, at=NOW)
    waitlist.offer_seats(at=NOW)
    offer = Booking.objects.get(user=ana)
    sent()
    mails.resend(booking=offer, at=NOW)
    assert sent_one(TO_ANA).subject.startswith("A seat for you: ")
    clock.expire_bookings(at=offer.hold_expires_at)
    sent()
    mails.resend(booking=offer, at=offer.hold_expires_at)
    assert sent_one(TO_ANA).subject.startswith("Your seat is no longer kept: ")
