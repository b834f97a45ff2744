"""Staff book for customers who call."""

import json
import re
from datetime import UTC, date, datetime, timedelta
from functools import partial
from html import unescape
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.core import mail
from django.core.mail import EmailMultiAlternatives
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import services as accounts
from accounts.models import User
from accounts.privacy import services as privacy
from accounts.privacy.tests.test_privacy import places
from accounts.tests.factories import AdminFactory, UserFactory, staff
from bookings import services
from bookings.mails import services as mails
from bookings.models import Booking, BookingEvent
from bookings.phone import forms
from bookings.phone import services as phone
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory, WaitlistEntryFactory
from bookings.tests.jobs import work
from bookit.errors import Forbidden
from bookit.mails.sending import send_within_limits
from bookit.tests.plans import planning_without
from catalog.models import Service
from catalog.tests.factories import CalendarFactory, ServiceFactory, TimeOffFactory

pytestmark = pytest.mark.django_db

PAGE = "/admin/phone/"
CUSTOMERS, VISITS, TIMES, HOLD, RELEASE = (
    f"{PAGE}{name}/" for name in ("customers", "visits", "times", "hold", "release")
)
NOW = TUESDAY - timedelta(hours=20)
HOUR = timedelta(hours=1)
UNKNOWN = "01a00000-0000-7000-8000-000000000000"
RECEPTION = ["bookings.add_booking", "bookings.view_booking", "bookings.change_booking"]


@pytest.fixture(autouse=True)
def now():
    with time_machine.travel(NOW, tick=False):
        yield


@pytest.fixture
def receptionist():
    return staff(RECEPTION, name="Rita", email="rita@example.com")


@pytest.fixture
def desk(receptionist):
    return at_the_desk(receptionist)


@pytest.fixture
def service():
    calendar = CalendarFactory(name="Chair 1", timezone="Europe/Lisbon")
    return ServiceFactory(calendar=calendar, title="Haircut", requires_confirmation=False)


def at_the_desk(user):
    browser = Client()
    browser.force_login(user)
    return browser


def written(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def call(service, start=TUESDAY, **more):
    """Return the fields of the form with which staff book for a new customer who calls."""
    form = {"service": str(service.pk), "start": written(start)}
    return {**form, "name": "Ada Lovelace", "email": "ada@example.com", "phone": "", **more}


def errors(response):
    assert response.status_code == 200
    return {name: [*texts] for name, texts in response.context["form"].errors.items()}


def offered(response):
    return re.findall(r'name="start" value="([^"]*)"', unescape(response.content.decode()))


class TestBooking:
    def test_a_new_customer_gets_an_account_and_a_booking(self, desk, service, receptionist):
        response = desk.post(PAGE, call(service, phone="+351 912 345 678", notes="Left side."))

        booking = Booking.objects.get()
        assert response["Location"] == f"/admin/bookings/booking/{booking.pk}/change/"
        assert (booking.status, booking.start_time) == ("confirmed", TUESDAY)
        assert booking.notes == "Left side."
        customer = booking.user
        assert (customer.name, customer.email) == ("Ada Lovelace", "ada@example.com")
        assert (customer.phone, customer.role) == ("+351 912 345 678", "user")
        assert customer.timezone == "Europe/Lisbon"
        assert not customer.has_usable_password()
        assert (booking.attendee_name, booking.attendee_email) == ("", "")
        events = booking.events.values_list("type", "actor")
        made = [("booking.held", receptionist.pk), ("booking.created", receptionist.pk)]
        assert [*events] == made

    def test_the_message_repeats_the_booking_in_the_zone_of_its_calendar(self, desk, service):
        service.calendar.timezone = "Asia/Tokyo"
        service.calendar.save()

        response = desk.post(PAGE, call(service), follow=True)

        booked = "Booked: Ada Lovelace, Haircut, Tuesday, 1 January 2999, 19:00 (Asia/Tokyo)"
        assert booked in response.content.decode()

    def test_an_account_is_found_by_its_address_in_any_case(self, desk, service):
        customer = UserFactory(name="Ada King", email="ada@example.com")

        desk.post(PAGE, call(service, email="ADA@Example.com"))

        booking = Booking.objects.get()
        assert booking.user == customer
        assert booking.attendee_name == "Ada Lovelace"
        assert booking.attendee_email == ""

    def test_a_chosen_customer_gets_the_booking(self, desk, service):
        # The receptionist can find only users who have a booking.
        customer = BookingFactory().user

        desk.post(PAGE, call(service, customer=str(customer.pk), name=customer.name, email=""))

        booking = Booking.objects.get(service=service)
        assert booking.user == customer
        assert booking.attendee_name == ""

    def test_a_customer_without_an_address_gets_an_account_that_the_next_call_finds(
        self, desk, service
    ):
        desk.post(PAGE, call(service, email="", phone="912 345 678"))
        desk.post(PAGE, call(service, TUESDAY + HOUR, email="", phone="912345678"))

        first, second = Booking.objects.order_by("start_time")
        assert first.user == second.user
        assert first.attendee() == {
            "attendee_name": "Ada Lovelace",
            "attendee_email": "",
            "attendee_phone": "912 345 678",
            "language": "en",
        }
        found = desk.get(CUSTOMERS, {"q": "lovelace"}).json()["customers"]
        assert [(each["phone"], each["email"]) for each in found] == [("912 345 678", "")]
        # The address that BookIt made up, `<id>@customer.invalid`, is not searched.
        for part in ("customer", str(first.user_id)[:8]):
            assert desk.get(CUSTOMERS, {"q": part}).json()["customers"] == []
        assert not first.user.has_usable_password()

    @pytest.mark.parametrize(
        "other", [{"name": "Ada King"}, {"phone": "912 345 679"}], ids=["name", "phone"]
    )
    def test_customers_without_an_address_are_told_apart_by_name_and_phone(
        self, desk, service, other
    ):
        desk.post(PAGE, call(service, email="", phone="912 345 678"))
        desk.post(
            PAGE, call(service, TUESDAY + HOUR, **{"email": "", "phone": "912345678", **other})
        )

        assert len({*Booking.objects.values_list("user", flat=True)}) == 2

    @pytest.mark.parametrize(("confirm", "status"), [("on", "confirmed"), ("", "pending")])
    def test_staff_choose_whether_a_booking_that_requires_confirmation_is_confirmed(
        self, desk, confirm, status
    ):
        desk.post(PAGE, call(ServiceFactory(), **({"confirm": confirm} if confirm else {})))

        assert Booking.objects.get().status == status
        assert [each.type for each in BookingEvent.objects.all()] == [
            "booking.held",
            "booking.created",
        ]

    def test_the_input_of_a_phone_number_opens_the_keypad_of_a_phone(self, desk):
        page = desk.get(PAGE).content.decode()
        assert '<input type="tel" name="phone"' in page

    def test_the_checkbox_for_confirmation_refers_to_its_help_text(self, desk):
        page = desk.get(PAGE).content.decode()
        [box] = re.findall(r'<input type="checkbox" name="confirm"[^>]*>', page)
        [help_id] = re.findall(r'aria-describedby="([^"]*)"', box)
        assert f'id="{help_id}">Otherwise, the booking is pending' in page

    def test_only_staff_who_may_change_bookings_can_confirm_them(self):
        desk = at_the_desk(staff(["bookings.add_booking"]))

        assert b"Confirm at once" not in desk.get(PAGE).content
        response = desk.post(PAGE, call(ServiceFactory(), confirm="on"))

        assert response["Location"] == PAGE
        assert Booking.objects.get().status == "pending"

    def test_a_class_has_a_seat_for_each_caller_until_it_is_full(self, desk):
        service = ServiceFactory(mode="slots", capacity=2, requires_confirmation=False)
        slot = SlotFactory(service=service)
        for number in (1, 2):
            desk.post(PAGE, call(service, email=f"person-{number}@example.org"))
        response = desk.post(PAGE, call(service, email="late@example.org"))

        assert "start" in errors(response)
        assert sorted(slot.bookings.values_list("seat", flat=True)) == [1, 2]
        assert not User.objects.filter(email="late@example.org").exists()

    def test_a_customer_who_gets_a_seat_is_no_longer_on_the_waitlist(self, desk):
        service = ServiceFactory(mode="slots", capacity=1, requires_confirmation=False)
        slot = SlotFactory(service=service)
        customer = BookingFactory().user
        entry = WaitlistEntryFactory(slot=slot, user=customer)

        desk.post(PAGE, call(service, customer=str(customer.pk)))

        entry.refresh_from_db()
        assert (slot.bookings.get().user, entry.status) == (customer, "booked")

    def test_booking_for_a_caller_keeps_the_receptionists_own_place_on_the_waitlist(
        self, desk, receptionist
    ):
        service = ServiceFactory(mode="slots", capacity=1, requires_confirmation=False)
        slot = SlotFactory(service=service)
        entry = WaitlistEntryFactory(slot=slot, user=receptionist)
        services.create_booking(actor=receptionist, slot_id=slot.pk, hold=True, at=timezone.now())
        held = slot.bookings.get()
        entry.refresh_from_db()
        assert (entry.status, entry.booking) == ("offered", held)

        callers_entry = WaitlistEntryFactory(slot=slot, user=UserFactory(email="ada@example.com"))

        desk.post(PAGE, call(service, hold=str(held.pk)))

        entry.refresh_from_db()
        callers_entry.refresh_from_db()
        assert slot.bookings.get().user == callers_entry.user
        assert (entry.status, entry.booking) == ("waiting", None)
        assert (callers_entry.status, callers_entry.booking) == ("booked", held)

    def test_a_form_that_is_sent_twice_books_once(self, desk):
        service = ServiceFactory(mode="slots", capacity=2)
        SlotFactory(service=service)
        held = desk.post(HOLD, call(service)).json()["hold"]

        first = desk.post(PAGE, call(service, hold=held))
        second = desk.post(PAGE, call(service, hold=held), follow=True)

        assert str(Booking.objects.get().pk) == held
        assert second.redirect_chain[0][0] == first["Location"]
        assert "This was booked already" in second.content.decode()


class TestRefusals:
    @pytest.mark.parametrize(
        ("more", "field"),
        [
            ({"name": ""}, "name"),
            ({"email": "nobody"}, "email"),
            ({"email": "\uff41@example.com"}, "email"),
            ({"email": "", "phone": ""}, "phone"),
            ({"phone": "call me"}, "phone"),
            ({"service": UNKNOWN}, "service"),
            ({"service": "abc"}, "service"),
            ({"start": ""}, "start"),
            ({"start": "2999-01-01T10:00:00"}, "start"),
            ({"start": "2020-01-01T10:00:00Z"}, "start"),
            ({"customer": UNKNOWN}, "customer"),
            ({"customer": "abc"}, "customer"),
            ({"notes": "x" * 2001}, "notes"),
            ({"day": "9999-12-31"}, "day"),
            ({"hold": "abc"}, "hold"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_a_wrong_field_is_named_and_nothing_is_booked(self, desk, service, more, field):
        response = desk.post(PAGE, {**call(service), **more})

        assert [*errors(response)] == [field]
        assert not Booking.objects.exists()
        assert not User.objects.filter(email="ada@example.com").exists()

    def test_a_conflict_is_reported_at_the_time_field_with_the_nearest_free_times(
        self, desk, service
    ):
        BookingFactory(service=service, start_time=TUESDAY)

        response = desk.post(PAGE, call(service, overrides="on"))

        assert errors(response) == {"start": ["This time is already booked."]}
        assert "The nearest free times" in response.content.decode()
        assert written(TUESDAY + HOUR) in offered(response)
        assert written(TUESDAY) not in offered(response)

    def test_time_off_cannot_be_overridden(self, desk, service):
        TimeOffFactory(calendar=service.calendar, start_time=TUESDAY, end_time=TUESDAY + HOUR)

        response = desk.post(PAGE, call(service, overrides="on"))

        assert "start" in errors(response)

    def test_an_inactive_service_is_reported_at_its_field(self, desk, service):
        held = desk.post(HOLD, call(service)).json()["hold"]
        Service.objects.filter(pk=service.pk).update(is_active=False)

        assert [*errors(desk.post(PAGE, call(service, hold=held)))] == ["service"]

    def test_the_address_of_an_inactive_account_is_refused_and_the_time_stays_held(
        self, desk, service
    ):
        UserFactory(email="ada@example.com", is_active=False)

        response = desk.post(PAGE, call(service))

        assert [*errors(response)] == ["email"]
        held = Booking.objects.get()
        assert held.status == "held"
        assert str(held.pk) in response.content.decode()
        desk.post(PAGE, call(service, email="other@example.com", hold=str(held.pk)))
        held.refresh_from_db()
        assert (held.status, held.user.email) == ("confirmed", "other@example.com")

    def test_too_many_holds_of_a_customer_are_reported_at_the_customer_field(self, desk, service):
        customer = BookingFactory().user
        for number in range(1, services.MAX_HOLDS + 1):
            services.create_booking(
                actor=customer,
                service_id=service.pk,
                start_time=TUESDAY + number * HOUR,
                at=NOW,
                hold=True,
            )

        for path in (HOLD, PAGE):
            response = desk.post(path, call(service, customer=str(customer.pk)))
            found = response.json()["errors"] if path == HOLD else errors(response)
            assert [*found] == ["customer"]

    def test_too_many_calls_at_once_are_reported_at_the_time_field(self, desk, service):
        for number in range(1, services.MAX_HOLDS + 1):
            assert "hold" in desk.post(HOLD, call(service, TUESDAY + number * HOUR)).json()

        assert [*errors(desk.post(PAGE, call(service)))] == ["start"]


class TestLimits:
    @pytest.fixture
    def service(self):
        return ServiceFactory(
            min_notice_minutes=24 * 60, max_advance_days=2, requires_confirmation=False
        )

    def test_short_notice_is_refused_unless_staff_override_the_limit(self, desk, service):
        assert [*errors(desk.post(PAGE, call(service)))] == ["start"]
        assert not Booking.objects.exists()

        desk.post(PAGE, call(service, overrides="on"))

        made = BookingEvent.objects.get(booking=Booking.objects.get(), type="booking.created")
        assert made.data["overridden"] == "too_soon"

    def test_a_time_beyond_the_horizon_is_refused_unless_staff_override_the_limit(
        self, desk, service
    ):
        later = TUESDAY + timedelta(days=5)
        assert [*errors(desk.post(PAGE, call(service, later)))] == ["start"]

        desk.post(PAGE, call(service, later, overrides="on"))

        assert (
            BookingEvent.objects.get(type="booking.created").data["overridden"] == "too_far_ahead"
        )

    def test_history_records_an_override_only_if_it_was_needed(self, desk, service):
        desk.post(PAGE, call(service, TUESDAY + 5 * HOUR, overrides="on"))

        assert "overridden" not in BookingEvent.objects.get(type="booking.created").data

    def test_a_time_is_marked_if_customers_cannot_book_it(self, desk, service):
        query = {"service": str(service.pk), "day": TUESDAY.date().isoformat()}
        assert written(TUESDAY) not in offered(desk.get(TIMES, query))

        response = desk.get(TIMES, {**query, "overrides": "on"})

        assert written(TUESDAY) in offered(response)
        assert "short notice" in response.content.decode()
        assert "far ahead" in response.content.decode()

    def test_the_timeline_of_the_booking_says_what_was_overridden(self, desk, service):
        made = desk.post(PAGE, call(service, overrides="on"), follow=True)

        text = made.content.decode()
        assert text.count("At shorter notice than the service allows.") == 1

    def test_only_staff_who_may_change_bookings_override_a_limit(self, service):
        desk = at_the_desk(staff(["bookings.add_booking", "bookings.view_booking"]))

        assert "overrides" not in desk.get(PAGE).context["form"].fields
        query = {"service": str(service.pk), "day": TUESDAY.date().isoformat(), "overrides": "on"}
        assert written(TUESDAY) not in offered(desk.get(TIMES, query))
        assert "start" in desk.post(HOLD, call(service, overrides="on")).json()["errors"]
        assert [*errors(desk.post(PAGE, call(service, overrides="on")))] == ["start"]
        assert not Booking.objects.exists()

    def test_limits_are_overridden_only_for_a_hold_by_staff_who_may_change_bookings(self, service):
        reception = staff(["bookings.add_booking", "bookings.view_booking"])
        for actor, hold in ((UserFactory(), True), (reception, True), (AdminFactory(), False)):
            with pytest.raises(Forbidden):
                services.create_booking(
                    actor=actor,
                    service_id=service.pk,
                    start_time=TUESDAY,
                    at=NOW,
                    hold=hold,
                    overrides_limits=True,
                )


class TestHold:
    def test_a_hold_keeps_the_time_during_the_call(self, desk, service, receptionist):
        answer = desk.post(HOLD, call(service)).json()

        held = Booking.objects.get(pk=answer["hold"])
        assert (held.status, held.user) == ("held", receptionist)
        assert NOW + timedelta(seconds=answer["seconds"]) == held.hold_expires_at
        rival = at_the_desk(AdminFactory()).post(HOLD, call(service)).json()
        assert rival["errors"] == {"start": ["This time is already booked."]}
        assert "The nearest free times" in rival["times"]

    def test_holding_the_same_time_again_keeps_the_hold(self, desk, service):
        first = desk.post(HOLD, call(service)).json()
        with time_machine.travel(NOW + timedelta(minutes=1), tick=False):
            again = desk.post(HOLD, call(service, hold=first["hold"])).json()

        assert again == {"hold": first["hold"], "seconds": first["seconds"] - 60}
        assert Booking.objects.get().status == "held"

    def test_a_hold_from_before_the_customer_was_known_is_kept(self, desk, service):
        first = desk.post(HOLD, call(service)).json()["hold"]
        customer = BookingFactory().user

        again = desk.post(HOLD, call(service, hold=first, customer=str(customer.pk))).json()

        assert again["hold"] == first
        assert Booking.objects.filter(service=service).count() == 1
        desk.post(PAGE, call(service, hold=first, customer=str(customer.pk)))
        booked = Booking.objects.get(service=service)
        assert (str(booked.pk), booked.status, booked.user) == (first, "confirmed", customer)

    def test_a_held_time_is_offered_only_to_the_call_that_holds_it(self, desk, service):
        held = desk.post(HOLD, call(service)).json()["hold"]
        query = {"service": str(service.pk), "day": TUESDAY.date().isoformat()}

        assert written(TUESDAY) not in offered(desk.get(TIMES, query))
        assert written(TUESDAY) in offered(desk.get(TIMES, {**query, "hold": held}))
        rival = at_the_desk(AdminFactory())
        assert written(TUESDAY) not in offered(rival.get(TIMES, {**query, "hold": held}))
        # A form that is refused keeps the chosen time.
        refused = desk.post(PAGE, call(service, hold=held, name="", day=query["day"]))
        assert f'value="{written(TUESDAY)}" checked' in refused.content.decode()

    def test_holding_another_time_releases_the_previous_hold(self, desk, service):
        first = desk.post(HOLD, call(service)).json()["hold"]

        second = desk.post(HOLD, call(service, TUESDAY + HOUR, hold=first)).json()["hold"]

        statuses = {str(each.pk): each.status for each in Booking.objects.all()}
        assert statuses == {first: "cancelled", second: "held"}

    def test_the_end_of_the_call_releases_the_hold(self, desk, service):
        held = desk.post(HOLD, call(service)).json()["hold"]

        for _ in range(2):
            assert desk.post(RELEASE, {"hold": held}).status_code == 204

        assert Booking.objects.get(pk=held).status == "cancelled"

    def test_a_hold_that_is_booked_at_the_moment_of_its_release_stays_booked(
        self, desk, service, receptionist, monkeypatch
    ):
        held = desk.post(HOLD, call(service)).json()["hold"]
        release_hold = services.release_hold

        def release_late(**arguments):
            services.book_hold_for(
                booking_id=held, user=UserFactory(), actor=receptionist, at=NOW, attendee={}
            )
            return release_hold(**arguments)

        monkeypatch.setattr(services, "release_hold", release_late)

        assert desk.post(RELEASE, {"hold": held}).status_code == 204
        assert Booking.objects.get(pk=held).status == "confirmed"

    @pytest.mark.parametrize("path", [PAGE, HOLD, RELEASE])
    def test_the_hold_of_somebody_else_is_left_alone(self, desk, service, receptionist, path):
        customer = UserFactory()
        held = services.create_booking(
            actor=customer, service_id=service.pk, start_time=TUESDAY, at=NOW, hold=True
        )

        response = desk.post(path, call(service, hold=str(held.pk), customer=""))

        assert response.status_code in (200, 204)
        held.refresh_from_db()
        assert (held.status, held.user) == ("held", customer)
        with pytest.raises(Forbidden):
            services.book_hold_for(
                booking_id=held.pk, user=customer, actor=receptionist, at=NOW, attendee={}
            )

    def test_a_hold_is_booked_only_once(self, desk, service, receptionist):
        service.requires_confirmation = True
        service.save()
        held = desk.post(HOLD, call(service)).json()["hold"]
        book = partial(
            services.book_hold_for,
            booking_id=held,
            user=UserFactory(),
            actor=receptionist,
            at=NOW,
            attendee={},
        )
        assert book().status == "pending"

        with pytest.raises(services.InvalidTransition):
            book(confirm=True, notes="Another call")

        booking = Booking.objects.get(pk=held)
        assert (booking.status, booking.notes) == ("pending", "")

    def test_an_expired_hold_is_replaced_if_the_time_is_still_free(self, desk, service):
        held = desk.post(HOLD, call(service)).json()["hold"]
        with time_machine.travel(NOW + HOUR, tick=False):
            desk.post(PAGE, call(service, hold=held))

        made = Booking.objects.get(status="confirmed")
        assert str(made.pk) != held

    def test_a_hold_for_another_customer_is_released(self, desk, service):
        before, after = BookingFactory().user, BookingFactory().user
        held = desk.post(HOLD, call(service, customer=str(before.pk))).json()["hold"]

        desk.post(PAGE, call(service, customer=str(after.pk), hold=held))

        assert Booking.objects.get(pk=held).status == "cancelled"
        assert Booking.objects.get(service=service, status="confirmed").user == after


class TestCustomers:
    @pytest.fixture
    def ada(self):
        ada = UserFactory(name="Ada Lovelace", email="ada@example.com", phone="+351 912-345 678")
        BookingFactory(user=ada)
        return ada

    @pytest.mark.parametrize("words", ["love", "ADA@", "912 345", "351912", "345678", " lovelace "])
    def test_a_customer_is_found_by_a_part_of_name_address_or_phone(self, desk, ada, words):
        found = desk.get(CUSTOMERS, {"q": words}).json()["customers"]

        assert found == [
            {"id": str(ada.pk), "name": ada.name, "email": ada.email, "phone": ada.phone}
        ]

    def test_a_search_by_words_without_three_letters_or_digits_reads_no_table(self, receptionist):
        with CaptureQueriesContext(connection) as queries:
            for words in ("", "ad", " a d ", "@.@", "9-1", "%%%", "__"):
                assert phone.find_customers(words=words, actor=receptionist) == []

        assert len(queries) == 0

    def test_the_search_shows_only_people_in_the_list_of_bookings(self, desk, ada):
        UserFactory(name="Ada Stranger", email="stranger@example.com")
        all_bookings = desk.get("/admin/bookings/booking/", {"start_time__isnull": "False"})

        found = desk.get(CUSTOMERS, {"q": "ada"}).json()["customers"]

        assert [each["name"] for each in found] == [ada.name]
        for column in (ada.name, ada.email, ada.phone):
            assert column in all_bookings.content.decode()

    def test_a_customer_is_shown_with_next_bookings_and_the_last_active_service(self, desk, ada):
        booking = Booking.objects.get(user=ada)
        other = ServiceFactory(is_active=False)
        BookingFactory(user=ada, service=other, start_time=NOW - HOUR, status="completed")
        BookingFactory(user=ada, start_time=TUESDAY + HOUR, status="cancelled")

        found = desk.get(VISITS, {"customer": str(ada.pk)}).json()

        assert found["service"] == str(booking.service_id)
        [coming] = found["coming"]
        assert coming["url"] == f"/admin/bookings/booking/{booking.pk}/change/"
        assert booking.service.title in coming["words"]

    @pytest.mark.parametrize("query", [{}, {"customer": "abc"}, {"customer": UNKNOWN}])
    def test_nothing_is_shown_about_an_unknown_customer(self, desk, query):
        assert desk.get(VISITS, query).json() == {"coming": [], "service": None}

    def test_bookings_are_shown_only_to_staff_who_may_see_them(self, ada):
        desk = at_the_desk(staff(["bookings.add_booking", "accounts.view_user"]))

        found = desk.get(VISITS, {"customer": str(ada.pk)}).json()

        assert found == {"coming": [], "service": None}

    @pytest.mark.parametrize(
        "words", ["", "ad", "a\0da", "9 1", "351", "nobody", "example.com", "%%%"]
    )
    def test_short_words_country_codes_unknown_words_and_domains_find_nobody(
        self, desk, ada, words
    ):
        assert desk.get(CUSTOMERS, {"q": words}).json() == {"customers": []}

    @pytest.mark.parametrize(
        ("permissions", "names"),
        [
            ([], []),
            (["bookings.view_booking"], ["Ada Lovelace"]),
            (["accounts.view_user"], ["Ada Lovelace", "Ada Stranger"]),
        ],
    )
    def test_staff_find_only_the_accounts_that_their_roles_show(self, ada, permissions, names):
        UserFactory(name="Ada Stranger")
        UserFactory(name="Ada Former", is_active=False)
        desk = at_the_desk(staff(["bookings.add_booking", *permissions]))

        found = desk.get(CUSTOMERS, {"q": "ada"}).json()["customers"]

        assert [each["name"] for each in found] == names

    def test_a_search_is_bounded_and_takes_one_query(self, receptionist):
        for number in range(phone.MOST_CUSTOMERS + 2):
            BookingFactory(user=UserFactory(name=f"Joana Silva {number}"))
        BookingFactory(user=UserFactory(name="Ana Silveira"))
        receptionist.may("bookings.view_booking")  # This loads the permissions.

        with CaptureQueriesContext(connection) as queries:
            found = phone.find_customers(words="ana", actor=receptionist)

        assert (len(found), len(queries)) == (phone.MOST_CUSTOMERS, 1)
        others = [f"Joana Silva {number}" for number in range(phone.MOST_CUSTOMERS - 1)]
        assert [each.name for each in found] == ["Ana Silveira", *others]
        assert f" LIMIT {phone.MOST_MATCHES}" in queries[0]["sql"]

    def test_an_index_finds_phone_numbers(self):
        found = User.objects.all().reached_by("912345").order_by()
        with planning_without("seqscan", "indexscan", "indexonlyscan"):
            plan = found.explain()

        assert "user_by_phone" in plan
        assert "Seq Scan" not in plan

    @pytest.mark.parametrize(("email", "sent"), [("", 0), ("ada@example.com", 1)])
    def test_emails_go_only_to_customers_with_an_address(self, desk, service, email, sent):
        made = desk.post(PAGE, call(service, email=email, phone="912 345 678"), follow=True)
        work()

        assert len(mail.outbox) == sent
        booking = Booking.objects.get()
        if not sent:
            with pytest.raises(mails.NothingToResend):
                mails.resend(booking=booking, at=NOW)
            assert ".invalid" not in made.content.decode()
        assert ("Send the last email again" in made.content.decode()) == bool(sent)

    def test_a_caller_never_gets_the_account_of_somebody_who_has_a_password(self, desk, service):
        """Anybody could register with the caller's name and phone number and a made-up address."""
        other = UserFactory(name="Zita", phone="912 345 678", email="eve@nowhere.invalid")
        for days in range(2):
            start = TUESDAY + timedelta(days=days)
            desk.post(PAGE, call(service, start, name="Zita", email="", phone="912 345 678"))
        [first, second] = [booking.user_id for booking in Booking.objects.all()]

        assert first == second
        assert first != other.pk

    def test_no_email_is_sent_to_an_address_that_cannot_receive_any(self):
        for address in ("a@customer.invalid", "a@example.com"):
            message = EmailMultiAlternatives("Subject", "Text", to=[address])
            send_within_limits(message, limits=[], at=NOW)

        assert [each.to for each in mail.outbox] == [["a@example.com"]]

    @pytest.mark.parametrize("email", ["", "zita.lace@example.com"])
    def test_all_personal_data_that_a_call_stores_is_exported_and_erased(
        self, desk, service, email
    ):
        words = ["Zita Lace", "+351 912 000 777", "Left-handed scissors", *filter(None, [email])]
        name, number, notes = words[:3]
        desk.post(PAGE, call(service, name=name, email=email, phone=number, notes=notes))
        customer = Booking.objects.get().user

        exported = json.dumps(privacy.export(user=customer), default=str)
        privacy.erase_user(user_id=customer.pk, actor=AdminFactory(), at=NOW)

        assert [word for word in words if word not in exported] == []
        assert places(words) == set()
        assert Booking.objects.get().status == "cancelled"

    def test_adding_a_customer_enqueues_no_email(self):
        accounts.add_customer(
            name="A", email="a@example.com", phone="", timezone="UTC", language="en", at=NOW
        )

        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM procrastinate_jobs")
            assert cursor.fetchone() == (0,)


class TestTimes:
    def test_a_week_of_free_times_is_offered_by_day(self, service):
        day = TUESDAY.date()

        offers = phone.offer(service_id=service.pk, day=day, at=NOW, actor=AdminFactory())

        assert [each for each, _times in offers.days] == [
            day + timedelta(days=number) for number in range(phone.DAYS)
        ]
        assert offers.last_day == day + timedelta(6)
        assert offers.later == day + timedelta(7)
        # The earlier days begin today at the earliest.
        assert offers.earlier == NOW.date() < day
        first = phone.offer(service_id=service.pk, day=None, at=NOW, actor=AdminFactory())
        assert first.earlier is None

    def test_the_first_day_is_today_in_the_zone_of_the_calendar(self):
        service = ServiceFactory(calendar=CalendarFactory(timezone="Pacific/Kiritimati"))

        offers = phone.offer(service_id=service.pk, day=None, at=NOW, actor=AdminFactory())

        assert offers.first_day == NOW.astimezone(ZoneInfo("Pacific/Kiritimati")).date()
        assert offers.days[0][1][0].start_time >= NOW

    def test_a_long_list_of_times_is_cut(self):
        service = ServiceFactory(step_minutes=5)

        offers = phone.offer(service_id=service.pk, day=None, at=NOW, actor=AdminFactory())

        assert offers.later == offers.cut_at == offers.last_day + timedelta(days=1)
        assert 0 < sum(len(times) for _day, times in offers.days) <= phone.MOST_TIMES

    def test_the_times_of_the_first_day_are_never_cut(self):
        service = ServiceFactory(step_minutes=1)
        day = NOW.date() + timedelta(days=1)

        offers = phone.offer(service_id=service.pk, day=day, at=NOW, actor=AdminFactory())

        assert offers.later == offers.cut_at == day + timedelta(days=1)
        [(first, times)] = offers.days
        assert first == day
        assert len(times) == 24 * 60

    def test_the_next_day_with_a_free_time_is_named_if_a_week_has_none(self, desk):
        service = ServiceFactory(mode="slots")
        SlotFactory(service=service, start_time=TUESDAY + timedelta(days=20))

        response = desk.get(TIMES, {"service": str(service.pk)})

        assert response.context["offers"].next_day == date(2999, 1, 21)
        assert 'data-day="2999-01-21"' in response.content.decode()

    def test_times_in_the_receptionists_zone_are_shown_too_if_it_differs(self, service):
        desk = at_the_desk(staff(RECEPTION, timezone="Asia/Tokyo"))
        query = {"service": str(service.pk), "day": TUESDAY.date().isoformat()}

        text = desk.get(TIMES, query).content.decode()

        assert "Times are in Europe/Lisbon." in text
        assert "(Asia/Tokyo)" in text
        assert f"<small>{TUESDAY.astimezone(ZoneInfo('Asia/Tokyo')):%H:%M}</small>" in text

    def test_seats_left_are_shown_for_a_class(self, desk):
        service = ServiceFactory(capacity=3)
        query = {"service": str(service.pk), "day": TUESDAY.date().isoformat()}

        assert "3 seats left" in desk.get(TIMES, query).content.decode()

    @pytest.mark.parametrize("query", [{}, {"service": "abc"}, {"service": "\0", "day": "x"}])
    def test_without_a_service_no_time_is_offered(self, desk, service, query):
        assert offered(desk.get(TIMES, query)) == []

    def test_without_a_script_a_button_shows_the_times(self, desk, service):
        response = desk.post(PAGE, {"service": str(service.pk), "name": "Ada", "show": "1"})

        text = response.content.decode()
        assert offered(response)
        assert 'value="Ada"' in text
        assert "errornote" not in text

    def test_the_only_service_is_chosen_already(self, desk, service):
        assert offered(desk.get(PAGE))
        ServiceFactory()
        assert not offered(desk.get(PAGE))
        assert offered(desk.get(PAGE, {"service": str(service.pk)}))

    def test_a_service_that_is_not_listed_can_be_booked_through_a_link(self, desk, monkeypatch):
        monkeypatch.setattr(forms, "MOST_SERVICES", 2)
        listed = ServiceFactory.create_batch(2, calendar=CalendarFactory(name="A"))
        last = ServiceFactory(calendar=CalendarFactory(name="B"), requires_confirmation=False)
        page = desk.get(PAGE, {"service": str(last.pk)})
        assert offered(page)
        assert "Only the first 2 services are listed." in page.content.decode()
        assert page.content.decode().count(f'value="{last.pk}"') == 1
        assert str(last.pk) not in desk.get(PAGE, {"service": str(listed[0].pk)}).content.decode()
        assert offered(desk.get(TIMES, {"service": str(last.pk)}))
        assert desk.post(HOLD, call(last)).json()["hold"]
        assert desk.post(PAGE, call(last, TUESDAY + HOUR)).status_code == 302
        for wrong in (UNKNOWN, "x", "\0"):
            assert not offered(desk.get(PAGE, {"service": wrong}))

    def test_a_complete_list_of_services_does_not_say_that_services_are_left_out(
        self, desk, service, monkeypatch
    ):
        monkeypatch.setattr(forms, "MOST_SERVICES", 1)
        assert "are listed" not in desk.get(PAGE).content.decode()

    def test_calendars_of_the_same_name_are_separate_groups(self, desk):
        for _ in range(2):
            ServiceFactory(calendar=CalendarFactory(name="Yoga"))
        assert desk.get(PAGE).content.decode().count('<optgroup label="Yoga">') == 2

    def test_an_hour_that_occurs_twice_has_two_names_and_can_be_booked_twice(self, desk, service):
        # On 2999-10-27, the clocks of Lisbon show the hour from 01:00 twice.
        first = datetime(2999, 10, 27, 0, tzinfo=UTC)
        query = {"service": str(service.pk), "day": "2999-10-27"}
        text = desk.get(TIMES, query).content.decode()
        for start, name in ((first, "01:00 WEST"), (first + HOUR, "01:00 WET")):
            assert re.search(f'value="{written(start)}"[^>]*><span>{name}', text)
            assert f'data-words="Sunday, 27 October, {name}' in text
            response = desk.post(PAGE, call(service, start), follow=True)
            booked = f"Sunday, 27 October 2999, {name} (Europe/Lisbon)"
            assert booked in response.content.decode()
            assert Booking.objects.filter(start_time=start).exists()

    @pytest.mark.parametrize(
        "send",
        [
            lambda desk, service: desk.get(PAGE, {"service": str(service.pk)}),
            lambda desk, service: desk.post(PAGE, call(service, name="")),
            lambda desk, service: desk.post(HOLD, call(service, NOW - HOUR)),
        ],
        ids=["page", "refused form", "refused hold"],
    )
    def test_the_services_are_read_once(self, desk, service, send):
        with CaptureQueriesContext(connection) as queries:
            assert "10:00" in send(desk, service).content.decode()
        limit = f"LIMIT {forms.MOST_SERVICES + 1}"
        assert len([each for each in queries if limit in each["sql"]]) == 1

    def test_the_number_of_queries_does_not_depend_on_services_bookings_and_times(
        self, desk, service
    ):
        query = {"service": str(service.pk)}
        desk.get(PAGE, query)
        with CaptureQueriesContext(connection) as few:
            desk.get(PAGE, query)
        ServiceFactory.create_batch(5)
        for number in range(3):
            BookingFactory(service=service, start_time=TUESDAY + number * HOUR)
        # Offer more start times.
        Service.objects.filter(pk=service.pk).update(step_minutes=30)
        with CaptureQueriesContext(connection) as many:
            desk.get(PAGE, query)

        assert len(few) == len(many) <= 12


class TestPermissions:
    @pytest.mark.parametrize(
        "permissions",
        [["bookings.view_booking", "bookings.change_booking"], ["accounts.view_user"]],
        ids=["bookings", "accounts"],
    )
    def test_staff_who_may_not_book_for_others_get_a_403(self, service, permissions):
        desk = at_the_desk(staff(permissions))

        for method, path in (
            ("get", PAGE),
            ("post", PAGE),
            ("get", TIMES),
            ("get", CUSTOMERS),
            ("get", VISITS),
            ("post", HOLD),
            ("post", RELEASE),
        ):
            assert getattr(desk, method)(path, call(service)).status_code == 403, path
        assert not Booking.objects.exists()
        assert PAGE not in desk.get("/admin/").content.decode()

    @pytest.mark.parametrize("path", [PAGE, TIMES, CUSTOMERS, VISITS])
    def test_people_who_are_not_staff_must_sign_in(self, path):
        for browser in (Client(), at_the_desk(UserFactory())):
            assert browser.get(path)["Location"].startswith("/admin/login/")

    @pytest.mark.parametrize("path", [PAGE, HOLD, RELEASE])
    def test_a_post_from_another_site_is_refused(self, receptionist, service, path):
        browser = Client(enforce_csrf_checks=True)
        browser.force_login(receptionist)

        assert browser.post(path, call(service)).status_code == 403
        assert not Booking.objects.exists()

    @pytest.mark.parametrize("path", [HOLD, RELEASE])
    def test_get_cannot_hold_or_release_a_time(self, desk, path):
        assert desk.get(path).status_code == 405


def test_the_list_of_bookings_links_to_two_pages_with_the_form_for_callers(desk):
    BookingFactory(start_time=timezone.now() + HOUR)

    add = "/admin/bookings/booking/add/"
    text = desk.get("/admin/bookings/booking/").content.decode()
    assert f'href="{add}"' in text
    assert f'href="{PAGE}"' in text
    assert (
        desk.get(add).context["form"].fields.keys() == desk.get(PAGE).context["form"].fields.keys()
    )
