"""The page of a booking: what it shows, and what its buttons do."""

import re
from datetime import UTC, date, datetime, timedelta
from html import unescape
from uuid import uuid4

import pytest
from django.core import mail
from django.test import Client
from django.utils.html import escape

from accounts.keys.services import create_key
from accounts.privacy.services import erase_user
from accounts.tests.factories import AdminFactory, UserFactory, staff
from bookings import clock, services
from bookings.desk.admin import BookingAdmin
from bookings.desk.models import StaffNote
from bookings.desk.page import MAX_OTHERS, BookingPage
from bookings.desk.tests.conftest import NOW, START, path_of
from bookings.desk.words import DETAILS, sentence
from bookings.events import record
from bookings.mails.models import MailText
from bookings.models import Booking, BookingEvent
from bookings.slots.services import change_slot
from bookings.tests.factories import BookingFactory, SlotFactory
from bookings.tests.jobs import work
from bookings.viewsets import DETAILS as CHANGEABLE
from bookings.waitlist import services as waitlist
from bookit.database.versions import version_of
from bookit.languages import speaking

pytestmark = pytest.mark.django_db

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def text_of(browser, booking, query=""):
    response = browser.get(path_of(booking) + query)
    assert response.status_code == 200
    return response.content.decode()


def version_on(text):
    """Return the version of the booking that a page sends with its forms."""
    return re.search(r'name="version" value="(\d+)"', text)[1]


def press(browser, booking, do, **values):
    """Press a button, refresh the booking, and return the text of the page that follows."""
    response = browser.post(path_of(booking), {"do": do, **values}, follow=True)
    assert response.status_code == 200
    booking.refresh_from_db()
    return response.content.decode()


# --- what it shows ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "days", "ahead", "ago"),
    [
        ("en", 3, "in 3 days", "3 days ago"),
        ("de", 3, "noch 3 Tage", "3 Tage her"),
        ("ru", 7, "осталось: 1 неделя", "прошло: 1 неделя"),
    ],
)
def test_the_page_says_how_far_away_the_booking_is(book, rui, language, days, ahead, ago):
    """Django's periods are in the nominative, so the words around them must go with that case."""
    booking = book()
    with speaking(language):
        for at, words in ((START - days * DAY, ahead), (booking.end_time + days * DAY, ago)):
            distance = BookingPage(booking, viewer=rui, at=at).distance
            assert distance.replace("\N{NO-BREAK SPACE}", " ") == words


@pytest.mark.parametrize("kind", BookingEvent.Type)
def test_the_history_has_a_sentence_for_every_event_type(kind):
    """Without a sentence in `words._sentence`, the page shows the type, such as `booking.held`."""
    assert kind not in sentence(BookingEvent(type=kind, at=NOW, data={"hours": 24}), UTC)


def test_the_history_has_words_for_every_detail():
    """Without words in `words.DETAILS`, the page shows the column, such as `attendee_name`."""
    assert {*DETAILS} == {*CHANGEABLE} - {"metadata"}


def test_the_page_says_who_what_and_when_in_both_zones(desk, book):
    text = text_of(desk, book(notes="Short at the sides"))
    for words in (
        "Haircut",
        "Chair",
        "Ana Silva",
        'href="tel:+351912345678"',
        'href="mailto:ana@example.com"',
        "Short at the sides",
        "Tue 1 Dec 2026, 10:00\N{EN DASH}11:00",
        "Europe/Lisbon",
        "For you: Tue 1 Dec 2026, 11:00\N{EN DASH}12:00 (Europe/Paris)",
        "25.00 USD",
    ):
        assert words in text, words


def test_a_time_that_is_the_same_in_both_zones_is_shown_once(desk, rui, book):
    rui.timezone = "Europe/London"
    rui.save()
    assert "For you" not in text_of(desk, book())


def test_an_attendee_is_shown_with_the_account_of_the_booking(desk, book):
    text = text_of(desk, book(attendee_name="Tiago", attendee_email="tiago@example.com"))
    assert "tiago@example.com" in text
    assert "Account: Ana Silva (ana@example.com)" in text


def test_a_user_without_an_email_address_is_named_without_one(desk, book, ana):
    ana.email = f"{ana.pk}@customer.invalid"
    ana.save()
    # The account is named only if the attendee has another name.
    text = text_of(desk, book(attendee_name="ANA SILVA"))
    assert "Account: Ana Silva<" in text
    assert ".invalid" not in text


def test_the_page_shows_the_other_bookings_of_the_customer(desk, book, ana):
    booking = book()
    assert "This is the only booking of this account." in text_of(desk, booking)
    BookingFactory.create_batch(MAX_OTHERS + 1, user=ana, status="no_show")
    text = text_of(desk, booking)
    assert f"No-show: {MAX_OTHERS + 1}" in text
    assert "And 1 more" in text


def test_holds_that_were_released_or_have_expired_are_no_other_bookings(desk, book, ana):
    """Otherwise, staff could think that the customer had cancelled bookings."""
    booking, released = book(), book(START + HOUR, hold=True)
    book(START + 2 * HOUR, hold=True)
    services.cancel_booking(booking_id=released.pk, actor=ana, at=NOW)
    assert clock.expire_bookings(at=NOW + HOUR) == 1
    assert "This is the only booking of this account." in text_of(desk, booking)
    BookingFactory.create_batch(MAX_OTHERS, user=ana, status="no_show")
    book(START + 3 * HOUR)
    text = text_of(desk, booking)
    assert "Cancelled:" not in text
    assert "Expired:" not in text
    [link] = re.findall(r'href="([^"]+)">And 1 more', text)
    # The list has the booking itself, too.
    assert desk.get(unescape(link)).context["cl"].result_count == MAX_OTHERS + 2


def test_a_plus_shows_that_not_all_other_bookings_were_counted(desk, book, monkeypatch):
    monkeypatch.setattr("bookings.desk.page.MAX_OTHERS", 1)
    monkeypatch.setattr("bookings.desk.page.MAX_COUNTED", 3)
    booking = book()
    for hours in range(1, 5):
        book(start_time=START + timedelta(hours=hours))
        text = text_of(desk, booking)
        expected = {1: [], 2: ["1"], 3: ["2"], 4: ["2+"]}[hours]
        assert re.findall(r"And (\S+) more", text) == expected


def test_history_is_told_in_words(desk, rui, book, ana):
    booking = book()
    rui.api_key_id = create_key(owner=rui, name="website", at=NOW)[0].pk
    for change in (
        lambda: services.change_status(
            booking_id=booking.pk, status="confirmed", actor=rui, at=NOW
        ),
        lambda: services.reschedule_booking(
            booking_id=booking.pk, actor=rui, at=NOW, start_time=START + HOUR
        ),
        lambda: services.change_details(
            booking_id=booking.pk,
            actor=ana,
            at=NOW,
            details={"notes": "Late", "attendee_name": "T"},
        ),
        lambda: services.cancel_booking(booking_id=booking.pk, actor=ana, at=NOW, reason="Ill"),
    ):
        change()
    key = "by Rui, by API key \N{LEFT DOUBLE QUOTATION MARK}website\N{RIGHT DOUBLE QUOTATION MARK}"
    assert history(desk, booking) == [
        ("Cancelled by Ana Silva (customer)", "Ill"),
        ("Details changed (name, customer's notes) by Ana Silva (customer)",),
        (f"Moved from Tue 1 Dec, 10:00 to Tue 1 Dec, 11:00 {key}",),
        (f"Confirmed {key}",),
        ("Requested for Tue 1 Dec, 10:00 by Ana Silva (customer)",),
    ]


def test_an_automatic_event_names_nobody(desk, book):
    booking = book()
    clock.expire_bookings(at=START + 2 * HOUR)
    sentence = "Expired, because nobody confirmed it before the start"
    assert history(desk, booking)[0] == (sentence,)
    assert "automatic" in text_of(desk, booking)


def history(desk, booking):
    """Return the sentences of the history, latest first."""
    return [
        (each.text, *each.notes) for _, each in desk.get(path_of(booking)).context["page"].history
    ]


def test_history_says_that_staff_overrode_a_limit(desk, haircut, ana):
    clerk = staff(["bookings.add_booking", "bookings.change_booking"], name="Clara")
    haircut.min_notice_minutes = 7 * 24 * 60
    haircut.save()
    booking = services.create_booking(
        actor=clerk,
        service_id=haircut.pk,
        start_time=START,
        at=NOW,
        hold=True,
        user_id=ana.pk,
        overrides_limits=True,
    )
    services.book_hold_for(
        booking_id=booking.pk, user=ana, actor=clerk, at=NOW, attendee={}, confirm=True
    )
    assert history(desk, booking) == [
        ("Booked for Tue 1 Dec, 10:00 by Clara", "At shorter notice than the service allows."),
        ("Held until Mon 30 Nov, 09:10 by Clara",),
    ]


def test_history_says_how_long_before_the_start_a_reminder_was_sent(desk, rui, book, settings):
    settings.REMINDER_TIMES = [48 * HOUR, HOUR]
    booking = book(START + 2 * DAY)
    services.change_status(booking_id=booking.pk, status="confirmed", actor=rui, at=NOW)
    for hours in (48, 1):
        clock.send_reminders(at=booking.start_time - hours * HOUR)
    assert history(desk, booking)[:2] == [
        ("Reminder sent 1 hour before Thu 3 Dec, 10:00",),
        ("Reminder sent 48 hours before Thu 3 Dec, 10:00",),
    ]


def test_a_reminder_that_was_recorded_without_its_hours_does_not_break_the_page(desk, book):
    """BookIt writes no such event, but SQL can, and nobody can change the event afterwards."""
    booking = book()
    record(booking, BookingEvent.Type.REMINDED, actor=None, at=NOW)
    assert ("booking.reminded",) in history(desk, booking)


def test_history_names_a_year_only_if_it_is_not_the_year_of_the_event(desk, rui, book):
    booking = book()
    services.reschedule_booking(
        booking_id=booking.pk, actor=rui, at=NOW, start_time=datetime(2027, 1, 5, 10, tzinfo=UTC)
    )
    assert history(desk, booking)[0] == (
        "Moved from Tue 1 Dec, 10:00 to Tue 5 Jan 2027, 10:00 by Rui",
    )


def test_history_says_that_the_slot_was_cancelled(desk, haircut, ana):
    haircut.mode = "slots"
    haircut.save()
    slot = SlotFactory(service=haircut, start_time=START)
    booking = services.create_booking(actor=ana, slot_id=slot.pk, at=NOW)
    change_slot(slot_id=slot.pk, status="cancelled", actor=AdminFactory(name="Helena"), at=NOW)
    assert history(desk, booking)[0] == ("Cancelled by Helena", "The slot was cancelled.")


def test_the_reason_of_a_cancellation_is_translated_if_bookit_wrote_it(desk, rui, haircut, ana):
    rui.language = "de"
    rui.save()
    slot = SlotFactory(service=haircut, start_time=START)
    booking = services.create_booking(actor=ana, slot_id=slot.pk, at=NOW)
    change_slot(slot_id=slot.pk, status="cancelled", actor=AdminFactory(), at=NOW)
    text = text_of(desk, booking)
    assert "Der Termin wurde abgesagt." in text
    # Only the stored columns, which are for support, keep the stored words.
    assert text.count("The slot was cancelled.") == 1


def test_a_key_that_was_deleted_has_no_name(desk, rui, book):
    booking = book()
    rui.api_key_id = uuid4()
    services.change_status(booking_id=booking.pk, status="confirmed", actor=rui, at=NOW)
    assert history(desk, booking)[0] == ("Confirmed by Rui, by an API key that was deleted",)


def test_stored_zeros_are_shown(desk, haircut):
    booking = BookingFactory(service=haircut, price=0)
    columns = dict(desk.get(path_of(booking)).context["page"].columns)
    assert float(columns["price"]) == 0
    assert columns["slot"] == "\N{EN DASH}"


def test_words_of_customers_are_escaped(desk, book):
    words = "<script>alert(1)</script>"
    text = text_of(desk, book(notes=words, attendee_name=words))
    assert words not in text
    assert escape(words) in text


def test_the_page_of_a_booking_opens_after_its_user_was_erased(desk, book, ana):
    booking = book()
    erase_user(user_id=ana.pk, actor=AdminFactory(), at=NOW)
    text = text_of(desk, booking)
    assert "<title>Haircut, a former user" in text.replace("\n", "")
    assert "deleted.invalid</a>" not in text


def test_only_an_account_that_was_not_erased_is_linked(client, book, ana):
    booking, account = book(), f"/admin/accounts/user/{ana.pk}/change/"
    client.force_login(AdminFactory())
    assert account in text_of(client, booking)
    erase_user(user_id=ana.pk, actor=AdminFactory(), at=NOW)
    assert account not in text_of(client, booking)


def test_the_number_of_queries_does_not_depend_on_the_history(
    desk, rui, book, ana, django_assert_num_queries
):
    booking = book()
    press(desk, booking, "note", text="One")
    press(desk, booking, "confirmed")
    with django_assert_num_queries(QUERIES):
        text_of(desk, booking)
    for number in range(1, 5):
        press(desk, booking, "note", text=f"Note {number}")
        press(desk, booking, "move", to=(START + number * HOUR).isoformat())
        BookingFactory(user=ana)
    with django_assert_num_queries(QUERIES):
        text_of(desk, booking)


QUERIES = 12


# --- buttons ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "started", "shown"),
    [
        ("held", False, ["confirmed", "cancel"]),
        ("pending", False, ["confirmed", "cancel", "move"]),
        ("pending", True, ["confirmed", "completed", "no_show", "cancel", "move"]),
        ("confirmed", False, ["cancel", "move"]),
        ("confirmed", True, ["completed", "no_show", "cancel", "move"]),
        ("completed", True, ["no_show"]),
        ("no_show", True, ["completed"]),
        ("cancelled", False, []),
        ("expired", True, []),
    ],
)
def test_the_page_has_the_buttons_that_the_status_and_the_start_allow(
    desk, haircut, status, started, shown
):
    booking = BookingFactory(service=haircut, status=status)
    if started:
        Booking.objects.filter(pk=booking.pk).update(
            start_time=NOW - HOUR, end_time=NOW, blocked=(NOW - HOUR, NOW)
        )
    text = text_of(desk, booking)
    buttons = ["confirmed", "completed", "no_show", "cancel"]
    found = [each for each in buttons if f'name="do" value="{each}"' in text]
    found += ["move"] if "?move=#move" in text else []
    assert found == shown


def test_a_button_changes_the_status_on_behalf_of_the_user(desk, rui, book):
    booking = book()
    assert "Confirmed." in press(desk, booking, "confirmed")
    assert booking.status == "confirmed"
    assert booking.events.latest("id").actor == rui


def test_a_button_that_is_pressed_too_late_explains_the_refusal(desk, book):
    booking = book()
    Booking.objects.filter(pk=booking.pk).update(status="cancelled")
    text = press(desk, booking, "confirmed")
    assert "A booking that is cancelled cannot become confirmed." in text


@pytest.mark.parametrize(
    ("do", "values", "reason"),
    [
        ("cancel", {"reason": "Ill"}, "A booking that is no show cannot become cancelled."),
        ("cancel", {"reason": "x" * 501}, "at most 500 characters"),
        (
            "move",
            {"to": (START + HOUR).isoformat()},
            "A booking that is no show cannot be rescheduled.",
        ),
    ],
)
def test_a_form_that_the_page_no_longer_shows_explains_why_it_is_refused(
    desk, book, do, values, reason
):
    booking = book()
    Booking.objects.filter(pk=booking.pk).update(status="no_show")
    assert reason in press(desk, booking, do, **values)
    assert (booking.status, booking.start_time) == ("no_show", START)


CHANGED = "Somebody has changed this booking since you opened the page."


@pytest.mark.parametrize(
    ("do", "values"),
    [
        ("confirmed", {}),
        ("cancel", {"reason": "Helena is ill"}),
        ("move", {"to": (START + 2 * HOUR).isoformat()}),
    ],
)
def test_a_page_that_is_out_of_date_changes_nothing_until_it_is_sent_again(desk, book, do, values):
    booking = book()
    shown = version_on(text_of(desk, booking, "?move="))
    later = START + HOUR
    services.reschedule_booking(
        booking_id=booking.pk, actor=AdminFactory(), start_time=later, at=NOW
    )
    text = press(desk, booking, do, version=shown, **values)
    assert CHANGED in text
    assert "11:00\N{EN DASH}12:00" in text
    assert values.get("reason", "") in text
    assert (booking.status, booking.start_time) == ("pending", later)
    press(desk, booking, do, version=version_on(text_of(desk, booking, "?move=")), **values)
    assert (booking.status, booking.start_time) != ("pending", later)


@pytest.mark.parametrize(
    ("do", "values"), [("confirmed", {}), ("cancel", {"reason": "Helena is ill"})]
)
def test_a_button_does_nothing_if_the_booking_changes_during_the_request(
    desk, book, monkeypatch, do, values
):
    booking = book()
    shown = version_on(text_of(desk, booking))
    get_object = BookingAdmin.get_object

    def change_after_reading(*arguments):
        row = get_object(*arguments)
        Booking.objects.filter(notes="").update(notes="Changed by somebody else")
        return row

    monkeypatch.setattr(BookingAdmin, "get_object", change_after_reading)
    text = press(desk, booking, do, version=shown, **values)
    assert CHANGED in text
    assert (booking.status, booking.notes) == ("pending", "Changed by somebody else")
    # The page shows the current state, so its buttons work.
    assert version_on(text) == str(version_of(booking.updated_at))


def test_every_form_that_changes_the_booking_sends_the_version_of_the_page(desk, book):
    text = text_of(desk, book(), "?move=")
    forms = re.findall(r'<form method="post".*?</form>', text, re.DOTALL)
    changing = [each for each in forms if re.search('value="(confirmed|cancel|move)"', each)]
    assert len(changing) == 3
    assert {version_on(each) for each in changing} == {version_on(text)}


def test_a_cancellation_stores_its_reason(desk, book):
    booking = book()
    press(desk, booking, "cancel", reason="Helena is ill")
    assert (booking.status, booking.cancellation_reason) == ("cancelled", "Helena is ill")
    assert "Helena is ill" in text_of(desk, booking)


def test_a_reason_that_is_too_long_is_refused_at_its_field(desk, book):
    booking = book()
    text = press(desk, booking, "cancel", reason="x" * 501)
    assert "at most 500 characters" in text
    assert '<details class="booking-cancel" open>' in text
    assert booking.status == "pending"


@pytest.mark.parametrize("do", ["completed", "no_show"])
def test_nobody_can_record_before_the_start_whether_a_customer_came(desk, book, frozen_time, do):
    booking = book()
    text = press(desk, booking, do)
    assert "Whether the customer came can be recorded only after the start." in text
    assert booking.status == "pending"
    frozen_time.move_to(START)
    press(desk, booking, do)
    assert booking.status == do


def test_an_unknown_button_is_a_bad_request(desk, book):
    booking = book()
    for do in ("", "expired", "held", "explode"):
        assert desk.post(path_of(booking), {"do": do}).status_code == 400


# --- moving -------------------------------------------------------------------------------------


def test_free_times_are_offered_in_the_zone_of_the_calendar(desk, book):
    booking = book()
    other = book(START + HOUR, actor=UserFactory())
    offers = desk.get(f"{path_of(booking)}?move=2026-12-01").context["offers"]
    first = offers.days[0]
    assert first.label == "Tue 1 Dec 2026"
    assert [time.label for time in first.times] == [
        "09:00", "12:00", "13:00", "14:00", "15:00", "16:00",
    ]  # fmt: skip
    assert [day.label[:3] for day in offers.days] == ["Tue", "Wed", "Thu", "Fri", "Mon"]
    value = f'value="{other.start_time.isoformat()}"'
    assert value not in text_of(desk, booking, "?move=2026-12-01")


@pytest.mark.parametrize("most", [5, 8, 12])
def test_every_free_time_is_offered_on_one_of_the_pages(desk, book, monkeypatch, most):
    """Each day has eight times. On 1 December, the booking takes place at one of them."""
    monkeypatch.setattr("bookings.desk.page.MAX_TIMES", most)
    booking, day, offered = book(), date(2026, 12, 1), set()
    while day <= date(2026, 12, 4):
        offers = desk.get(f"{path_of(booking)}?move={day}").context["offers"]
        offered |= {time.value for each in offers.days for time in each.times}
        assert offers.after > day
        # Each offered day is complete, apart from the time of the booking.
        assert {len(each.times) for each in offers.days} <= {7, 8}
        day = offers.after
    assert sum(value < "2026-12-05" for value in offered) == 4 * 8 - 1


def test_an_offered_time_can_be_taken(desk, rui, book):
    booking = book()
    text = text_of(desk, booking, "?move=2026-12-01")
    value = (START + 3 * HOUR).isoformat()
    assert f'value="{value}"' in text
    assert "Moved to Tue 1 Dec 2026, 13:00." in press(desk, booking, "move", to=value)
    assert booking.start_time == START + 3 * HOUR
    assert booking.events.latest("id").actor == rui


def test_a_conflict_is_reported_with_the_nearest_free_times(desk, book):
    booking, other = book(), book(START + HOUR, actor=UserFactory())
    text = press(desk, booking, "move", to=other.start_time.isoformat())
    assert "This time is already booked." in text
    assert "Nearest free times" in text
    assert booking.start_time == START


def test_a_booking_of_a_class_is_moved_to_another_slot(desk, haircut, ana):
    haircut.mode = "slots"
    haircut.save()
    one, other = (
        SlotFactory(service=haircut, start_time=START + number * HOUR) for number in (0, 2)
    )
    booking = services.create_booking(actor=ana, slot_id=one.pk, at=NOW)
    assert f'value="{other.pk}"' in text_of(desk, booking, "?move=")
    press(desk, booking, "move", to=str(other.pk))
    assert booking.slot_id == other.pk


@pytest.mark.parametrize("to", ["", "tomorrow", "\0", "2026-12-01T10:00:00", "9999-99-99T00:00Z"])
def test_a_move_without_a_valid_time_is_refused_at_its_field(desk, book, to):
    booking = book()
    text = press(desk, booking, "move", to=to)
    assert "errorlist" in text
    assert booking.start_time == START


@pytest.mark.parametrize("day", ["x", "0001-01-01", "9999-12-31", "2020-01-01", "%00"])
def test_the_page_opens_for_a_day_that_cannot_be_shown(desk, book, day):
    assert text_of(desk, book(), f"?move={day}")


# --- notes --------------------------------------------------------------------------------------


def test_the_page_says_that_earlier_notes_are_not_shown(desk, book, monkeypatch):
    monkeypatch.setattr("bookings.desk.page.MAX_NOTES", 1)
    booking = book()
    for number in (1, 2):
        assert "Earlier notes are not shown." not in text_of(desk, booking)
        press(desk, booking, "note", text=f"Note {number}")
    text = text_of(desk, booking)
    assert "Earlier notes are not shown." in text
    assert ("Note 1" in text, "Note 2" in text) == (False, True)


def test_a_note_has_an_author_and_a_time(desk, rui, book):
    booking = book()
    text = press(desk, booking, "note", text=" Prefers <b>mornings</b> ")
    note = StaffNote.objects.get()
    assert (note.booking, note.author, note.at) == (booking, rui, NOW)
    assert note.text == "Prefers <b>mornings</b>"
    assert escape(note.text) in text
    assert "Rui · Mon 30 Nov, 09:00" in text


@pytest.mark.parametrize("text", ["", "   ", "x" * 2001, "\0"])
def test_a_note_that_cannot_be_stored_is_refused_at_its_field(desk, book, text):
    assert "errorlist" in press(desk, book(), "note", text=text)
    assert not StaffNote.objects.exists()


def test_notes_are_in_the_data_export_but_not_in_bookings_and_their_history(api, desk, book, ana):
    booking = book()
    press(desk, booking, "note", text="Pays late")
    for user in (ana, AdminFactory()):
        for path in ("", "/history"):
            response = api.as_(user).get(f"/bookings/{booking.pk}{path}")
            assert response.status_code == 200
            assert b"Pays late" not in response.content
    exported = api.as_(ana).get("/me/export").json()["staff_notes"]
    assert [(each["booking_id"], each["text"]) for each in exported] == [
        (str(booking.pk), "Pays late")
    ]
    assert "author" not in exported[0]


def test_notes_are_deleted_with_their_booking(desk, book):
    booking = book()
    press(desk, booking, "note", text="Pays late")
    services.delete_booking(booking_id=booking.pk, actor=AdminFactory(), at=NOW)
    assert not StaffNote.objects.exists()


# --- mails --------------------------------------------------------------------------------------


def test_the_last_mail_is_sent_again_once_if_the_button_is_pressed_twice(desk, book):
    booking = book()
    work()
    assert "waiting to be sent" not in text_of(desk, booking)
    mail.outbox.clear()
    text = press(desk, booking, "resend")
    assert "The email will be sent again." in text
    assert "waiting to be sent" in text
    press(desk, booking, "resend")
    work()
    [message] = mail.outbox
    assert message.to == ["ana@example.com"]
    assert message.subject.startswith("Requested")


def test_a_copy_has_a_message_id_of_its_own(desk, book):
    """Email clients hide a second email with the same Message-ID."""
    booking = book()
    work()
    press(desk, booking, "resend")
    work()
    ids = [each.extra_headers["Message-ID"] for each in mail.outbox if "ana" in each.to[0]]
    assert len(ids) == len(set(ids)) == 2


def test_the_log_of_the_admin_site_says_who_sent_a_mail_again(desk, rui, book):
    booking = book()
    press(desk, booking, "resend")
    history = desk.get(f"/admin/bookings/booking/{booking.pk}/history/").content.decode()
    assert "Asked to send the last email to the attendee again." in history
    assert rui.email in history


def test_a_mail_that_is_no_longer_true_is_not_sent_again(desk, book, frozen_time):
    booking = book()
    frozen_time.move_to(START)
    press(desk, booking, "completed")
    text = press(desk, booking, "resend")
    assert "there is nothing to send again" in text


def mails_of(desk, booking):
    """Return the label and the audiences of each email about a booking, latest first."""
    return [
        (each.label, each.audiences)
        for _, each in desk.get(path_of(booking)).context["page"].mail_log
    ]


def test_mails_stay_listed_when_they_are_no_longer_true(desk, rui, book, settings):
    settings.REMINDER_TIMES = [48 * HOUR, HOUR]
    booking = book(START + 2 * DAY)
    services.change_status(booking_id=booking.pk, status="confirmed", actor=rui, at=NOW)
    for hours in (48, 1):
        clock.send_reminders(at=booking.start_time - hours * HOUR)
    clock.complete_bookings(at=booking.start_time + 2 * HOUR)
    both = ["attendee", "provider"]
    assert mails_of(desk, booking) == [
        ("Reminder", ["attendee"]),
        ("Reminder", ["attendee"]),
        ("Confirmed", both),
        ("Requested", both),
    ]


def test_moves_that_one_mail_covers_are_listed_as_one_mail(desk, rui, book, settings):
    booking = book()
    pause = settings.MAIL_PAUSE
    for number, at in enumerate((NOW, NOW + pause / 2, NOW + 2 * pause), 1):
        services.reschedule_booking(
            booking_id=booking.pk, actor=rui, at=at, start_time=START + number * HOUR
        )
    assert [label for label, _ in mails_of(desk, booking)] == ["Moved", "Moved", "Requested"]


def test_a_move_lists_only_the_readers_whose_previous_mail_does_not_cover_it(
    desk, ana, rui, book, haircut, settings
):
    """The provider gets no mail about their own move, but the attendee's mail covers both moves."""
    booking, provider = book(), haircut.calendar.provider
    movers = [(provider, NOW), (rui, NOW + settings.MAIL_PAUSE / 2)]
    for hours, (actor, at) in enumerate(movers, 1):
        services.reschedule_booking(
            booking_id=booking.pk, actor=actor, at=at, start_time=START + hours * HOUR
        )
    assert mails_of(desk, booking) == [
        ("Moved", ["provider"]),
        ("Moved", ["attendee"]),
        ("Requested", ["attendee", "provider"]),
    ]


def test_the_mails_about_an_offered_seat_are_the_offer_and_its_end(desk, ana, haircut):
    slot = SlotFactory(service=haircut, start_time=START + 3 * DAY, capacity=1)
    taken = services.create_booking(actor=UserFactory(), slot_id=slot.pk, at=NOW)
    waitlist.join(slot_id=slot.pk, actor=ana, at=NOW)
    services.cancel_booking(booking_id=taken.pk, actor=taken.user, at=NOW)
    waitlist.offer_seats(at=NOW)
    seat = Booking.objects.get(user=ana)
    clock.expire_bookings(at=NOW + 2 * DAY)
    assert [label for label, _ in mails_of(desk, seat)] == [
        "Your seat is no longer kept",
        "A seat for you",
    ]


def test_mails_are_listed_with_the_words_that_the_operator_chose(desk, book):
    MailText.objects.create(key="requested", label="We got it")
    assert [label for label, _ in mails_of(desk, book())] == ["We got it"]


# --- permissions --------------------------------------------------------------------------------


def test_staff_who_may_only_see_bookings_get_no_buttons(book):
    booking, browser = book(), Client()
    browser.force_login(staff(["bookings.view_booking"]))
    assert 'name="do"' not in text_of(browser, booking, "?move=")
    for do in ("confirmed", "cancel", "move", "note", "resend"):
        assert browser.post(path_of(booking), {"do": do, "text": "x"}).status_code == 403
    booking.refresh_from_db()
    assert booking.status == "pending"
    assert not StaffNote.objects.exists()


def test_staff_who_may_not_see_bookings_cannot_open_the_page(book):
    browser = Client()
    browser.force_login(staff(["reviews.view_review"]))
    assert browser.get(path_of(book())).status_code == 403


def test_a_form_without_a_csrf_token_is_refused(rui, book):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(rui)
    assert browser.post(path_of(book()), {"do": "confirmed"}).status_code == 403
