"""Users on a waitlist get an email if their wait ends without a seat."""

from datetime import timedelta

import pytest
from django.core import mail
from procrastinate.contrib.django.models import ProcrastinateJob

from accounts.privacy.services import erase_user
from accounts.tests.factories import AdminFactory, UserFactory
from bookings import clock, services
from bookings.mails import texts
from bookings.models import Booking
from bookings.slots import services as slots
from bookings.tests.factories import TUESDAY, SlotFactory, WaitlistEntryFactory
from bookings.tests.jobs import work
from bookings.waitlist import emails
from bookings.waitlist import services as waitlist
from bookings.waitlist.models import WaitlistEntry
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

NOW = TUESDAY - timedelta(days=10)
TO_BEN, TO_EVA = "ben@example.com", "eva@example.com"


@pytest.fixture
def ben():
    return UserFactory(name="Ben", email=TO_BEN, timezone="Europe/Lisbon")


@pytest.fixture
def eva():
    return UserFactory(name="Eva", email=TO_EVA)


@pytest.fixture
def yoga(ben, eva):
    """Return a full class of one seat, for which Ben and then Eva are waiting."""
    service = ServiceFactory(title="Yoga", calendar=CalendarFactory(name="Studio 2"))
    slot = SlotFactory(service=service, capacity=1, start_time=TUESDAY)
    services.create_booking(actor=UserFactory(email="ana@example.com"), slot_id=slot.pk, at=NOW)
    waitlist.join(slot_id=slot.pk, actor=ben, at=NOW)
    waitlist.join(slot_id=slot.pk, actor=eva, at=NOW + timedelta(seconds=1))
    work()
    mail.outbox.clear()
    return slot


def sent():
    """Send all emails, and return them by their recipient. Nobody may get two."""
    work()
    found = {message.to[0]: message for message in mail.outbox}
    assert len(found) == len(mail.outbox)
    mail.outbox.clear()
    return found


def check_cancellation(message):
    assert message.subject.startswith("Cancelled: Yoga, ")
    assert "You were waiting for a seat, but this session has been cancelled." in message.body
    assert "(Europe/Lisbon)" in message.body
    assert message.attachments == []


def test_everybody_on_the_waitlist_learns_that_the_session_is_cancelled(yoga):
    slots.change_slot(slot_id=yoga.pk, actor=AdminFactory(), status="cancelled", at=NOW)
    found = sent()
    assert {"ana@example.com", TO_BEN, TO_EVA} <= found.keys()
    check_cancellation(found[TO_BEN])
    assert sent() == {}


def test_everybody_on_the_waitlist_learns_that_no_seat_became_free(yoga):
    waitlist.offer_seats(at=yoga.start_time)
    found = sent()
    assert found.keys() == {TO_BEN, TO_EVA}
    for message in found.values():
        assert message.subject.startswith("No seat became free: Yoga, ")


def test_a_person_who_does_not_confirm_learns_that_the_seat_is_no_longer_kept(yoga, ben):
    booking = Booking.objects.get(slot=yoga)
    services.cancel_booking(booking_id=booking.pk, actor=booking.user, at=NOW)
    waitlist.offer_seats(at=NOW)
    assert sent()[TO_BEN].subject.startswith("A seat for you: ")
    hold = Booking.objects.get(user=ben)
    clock.expire_bookings(at=hold.hold_expires_at)
    message = sent()[TO_BEN]
    assert message.subject.startswith("Your seat is no longer kept: ")
    assert message.attachments == []


def test_deactivated_accounts_and_people_who_left_get_no_email(yoga, ben, eva):
    entry = yoga.waitlist.get(user=ben)
    waitlist.leave(slot_id=yoga.pk, entry_id=entry.pk, actor=ben, at=NOW)
    eva.is_active = False
    eva.save()
    slots.change_slot(slot_id=yoga.pk, actor=AdminFactory(), status="cancelled", at=NOW)
    assert not {TO_BEN, TO_EVA} & sent().keys()


def delete(slot, *, at=NOW):
    """Delete a slot after its bookings, before a job has offered their seats."""
    for booking in slot.bookings.all():
        services.delete_booking(booking_id=booking.pk, actor=AdminFactory(), at=at)
    slots.delete_slot(slot_id=slot.pk, actor=AdminFactory(), at=at)
    assert not WaitlistEntry.objects.exists()


def test_everybody_on_the_waitlist_learns_that_the_session_was_deleted(yoga):
    delete(yoga)
    found = sent()
    assert {TO_BEN, TO_EVA} <= found.keys()
    check_cancellation(found[TO_BEN])
    assert sent() == {}


def test_everybody_on_the_waitlist_of_a_deleted_past_session_learns_that_no_seat_became_free(yoga):
    yoga.bookings.all().delete()
    slots.delete_slot(slot_id=yoga.pk, actor=AdminFactory(), at=yoga.start_time)
    found = sent()
    assert found.keys() == {TO_BEN, TO_EVA}
    for message in found.values():
        assert message.subject.startswith("No seat became free: Yoga, ")


def test_emails_that_wait_when_the_session_is_deleted_are_sent(yoga):
    slots.change_slot(slot_id=yoga.pk, actor=AdminFactory(), status="cancelled", at=NOW)
    delete(yoga)
    found = sent()
    assert {TO_BEN, TO_EVA} <= found.keys()
    assert found[TO_BEN].subject.startswith("Cancelled: Yoga, ")


def test_an_email_that_was_sent_is_not_sent_again_when_the_session_is_deleted(yoga):
    slots.change_slot(slot_id=yoga.pk, actor=AdminFactory(), status="cancelled", at=NOW)
    sent()
    delete(yoga)
    assert not {TO_BEN, TO_EVA} & sent().keys()


def test_deactivated_accounts_and_erased_users_get_no_email_about_a_deleted_session(yoga, ben, eva):
    eva.is_active = False
    eva.save()
    delete(yoga)
    erase_user(user_id=ben.pk, actor=AdminFactory(), at=NOW)
    assert not {TO_BEN, TO_EVA} & sent().keys()


def test_only_the_limit_of_the_address_applies_to_emails_about_deleted_sessions(
    yoga, ben, settings
):
    settings.MAILS_PER_BOOKING = settings.MAILS_PER_ADDRESS = 1
    delete(yoga)
    assert {TO_BEN, TO_EVA} <= sent().keys()
    other = WaitlistEntryFactory(user=ben).slot
    delete(other)
    assert sent() == {}


def test_the_admin_site_says_that_an_email_is_about_a_deleted_slot(yoga, client):
    client.force_login(AdminFactory())
    delete(yoga)
    page = client.get("/admin/procrastinate/procrastinatejob/").content.decode()
    assert "a slot that was deleted" in page
    assert "Email after the deletion of a booking, slot or account, or to a former attendee" in page


def test_ending_the_wait_twice_enqueues_one_email_for_each_entry(yoga):
    waitlist.end(slot=yoga, at=NOW)
    waitlist.end(slot=yoga, at=NOW)
    jobs = ProcrastinateJob.objects.filter(task_name="bookings.send_queue_mail")
    assert {job.args["entry_id"] for job in jobs} == {
        str(pk) for pk in yoga.waitlist.values_list("pk", flat=True)
    }
    assert len(jobs) == 2


def test_an_email_that_is_sent_twice_keeps_its_id_and_has_the_words_of_the_operator(yoga, ben):
    """A worker can die after it has sent an email, so the job runs again."""
    slots.change_slot(slot_id=yoga.pk, actor=AdminFactory(), status="cancelled", at=NOW)
    sent()
    words = {"label": "Off", "attendee": "{service} is off.", "provider": ""}
    texts.change(key="queue-cancelled", at=NOW, **words)
    entry = yoga.waitlist.get(user=ben)
    for _ in range(2):
        emails.send(entry_id=entry.pk, at=NOW)
    first, second = mail.outbox
    assert first.subject.startswith("Off: Yoga, ")
    assert "Yoga is off." in first.body
    assert first.extra_headers["Message-ID"] == second.extra_headers["Message-ID"]
