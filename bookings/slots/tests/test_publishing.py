"""The admin site's pages for slots: the form for publishing, its preview, a slot, and the list."""

import re
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.contrib.admin.models import LogEntry
from django.urls import reverse

from accounts.models import User
from accounts.tests.factories import AdminFactory, UserFactory, staff
from bookings.models import Slot
from bookings.slots import services as slots
from bookings.slots.recurrence import parse_rule
from bookings.slots.wording import series_in_words, weeks_in_words
from bookings.tests.factories import BookingFactory, SlotFactory, WaitlistEntryFactory
from bookit import languages
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

ADD, PREVIEW = reverse("admin:bookings_slot_add"), reverse("admin:bookings_slot_preview")
# A Friday.
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def friday():
    with time_machine.travel(NOW, tick=False):
        yield


@pytest.fixture
def site(client):
    client.force_login(AdminFactory())
    return client


@pytest.fixture
def service():
    calendar = CalendarFactory(timezone="Europe/Lisbon")
    return ServiceFactory(title="Yoga", calendar=calendar, mode="slots", capacity=12)


def form(service, /, **changes):
    """Return the fields of a form for ten slots: every Tuesday and Friday at 18:00."""
    return {
        "service": service.pk,
        "day": "2026-11-30",
        "clock": "18:00",
        "capacity": "",
        "repeat": "weekly",
        "interval": "1",
        "weekdays": ["1", "4"],
        "count": "10",
        "until": "",
        **changes,
    }


def dates():
    """Return the starts of all slots, in UTC."""
    return [f"{start:%a %d %b %H:%M}" for start in starts()]


def starts():
    return [*Slot.objects.order_by("start_time").values_list("start_time", flat=True)]


class TestPreview:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {},
                (
                    "Every Tuesday and Friday at 18:00, ten times,"
                    " from 1 December 2026 until 1 January 2027."
                ),
            ),
            (
                {"until": "2026-12-24"},
                (
                    "Every Tuesday and Friday at 18:00, seven times,"
                    " from 1 December until 22 December 2026."
                ),
            ),
            (
                {"weekdays": [], "interval": "2", "count": "3"},
                (
                    "Every two weeks on Monday at 18:00, three times,"
                    " from 30 November until 28 December 2026."
                ),
            ),
            (
                {"repeat": "daily", "count": "14"},
                "Every day at 18:00, 14 times, from 30 November until 13 December 2026.",
            ),
            (
                {"repeat": "daily", "interval": "3", "count": "2"},
                "Every three days at 18:00, two times, from 30 November until 3 December 2026.",
            ),
            (
                {"repeat": "monthly", "count": "2"},
                (
                    "Every month on day 30 (if there is one) at 18:00, two times,"
                    " from 30 November until 30 December 2026."
                ),
            ),
            (
                {"repeat": "monthly", "day": "2026-12-28", "count": "3"},
                (
                    "Every month on day 28 at 18:00, three times,"
                    " from 28 December 2026 until 28 February 2027."
                ),
            ),
            (
                {"repeat": "nth", "interval": "2", "count": "2"},
                (
                    "Every two months on the last Monday at 18:00, two times,"
                    " from 30 November 2026 until 25 January 2027."
                ),
            ),
            (
                {"repeat": "nth", "day": "2026-12-08", "count": "2"},
                (
                    "Every month on the second Tuesday at 18:00, two times,"
                    " from 8 December 2026 until 12 January 2027."
                ),
            ),
            ({"repeat": "once"}, "Once, on Monday 30 November 2026 at 18:00."),
            ({"count": "1"}, "Once, on Tuesday 1 December 2026 at 18:00."),
        ],
    )
    def test_the_series_is_described_in_words(self, site, service, changes, words):
        text = site.get(PREVIEW, form(service, **changes)).content.decode()
        assert f"<strong>{words}</strong>" in text
        assert not Slot.objects.exists()

    def test_each_date_is_listed_in_the_zone_of_the_calendar(self, site, service):
        text = site.get(PREVIEW, form(service, count="3")).content.decode()
        for date in ("Tue 1 Dec 2026, 18:00", "Fri 4 Dec 2026, 18:00", "Tue 8 Dec 2026, 18:00"):
            assert date in text
        assert "Europe/Lisbon" in text

    def test_the_preview_lists_24_dates_of_a_long_series_including_a_late_clash(
        self, site, service, django_assert_max_num_queries
    ):
        taken = datetime(2027, 3, 2, 18, 30, tzinfo=UTC)
        SlotFactory(service=service, start_time=taken)
        with django_assert_max_num_queries(6):
            text = site.get(PREVIEW, form(service, count="60")).content.decode()
        assert text.count("<li") == 24
        assert "and 36 more" in text
        assert "1 date overlaps another slot or booking, so nothing would be published." in text
        assert 'class="publish-clash"><time datetime="2027-03-02T18:00:00+00:00">' in text

    def test_an_expired_hold_does_not_clash(self, service):
        start = NOW + timedelta(days=1)
        BookingFactory(
            service=ServiceFactory(calendar=service.calendar),
            start_time=start,
            status="held",
            hold_expires_at=NOW - timedelta(seconds=5),
        )
        plan = slots.plan_slots(
            actor=AdminFactory(), service_id=service.pk, start_time=start, at=NOW
        )
        assert plan == slots.Plan([start], frozenset())

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"service": ""}, "Choose a service, a day and a time"),
            ({"clock": ""}, "Choose a service, a day and a time"),
            ({"service": "\0"}, "Service: Null characters are not allowed."),
            ({"day": "0001-01-01"}, "Must be in the years 1900 to 2999."),
            ({"day": "2026-11-01"}, "The start is in the past."),
            ({"count": "400"}, "less than or equal to 366"),
            ({"count": "", "until": ""}, "Give the number of slots, or the last day."),
            # The first day is a Monday, but the first slot is on Tuesday.
            ({"until": "2026-11-30"}, "The last day must not be before the first slot."),
            ({"until": "2999-01-01"}, "more than 366 slots"),
            ({"interval": "0"}, "greater than or equal to 1"),
            ({"weekdays": ["9"]}, "9 is not one of the available choices"),
            ({"day": "2027-03-28", "clock": "01:30", "repeat": "once"}, "The clocks skip this"),
            # The first day is a Friday, but the first slot is on Sunday.
            (
                {"day": "2027-03-26", "clock": "01:30", "weekdays": ["6"]},
                "The clocks skip this time on the day of the first slot.",
            ),
        ],
    )
    def test_the_preview_says_why_there_are_no_dates(self, site, service, changes, words):
        response = site.get(PREVIEW, form(service, **changes))
        assert response.status_code == 200
        assert words in response.content.decode()


class TestPublish:
    def test_browsers_without_scripts_show_the_services_as_a_list(self, site, service):
        text = site.get(ADD).content.decode()
        assert f'<option value="{service.pk}">Yoga</option>' in text

    def test_a_series_is_published_as_the_preview_shows_it(self, site, service):
        preview = site.get(PREVIEW, form(service, count="3")).content.decode()
        response = site.post(ADD, form(service, count="3"), follow=True)
        assert "3 slots were published." in response.content.decode()
        assert dates() == ["Tue 01 Dec 18:00", "Fri 04 Dec 18:00", "Tue 08 Dec 18:00"]
        assert re.findall('<time datetime="(.*?)"', preview) == [
            start.isoformat() for start in starts()
        ]
        assert {*Slot.objects.values_list("capacity", flat=True)} == {12}
        log = LogEntry.objects.get()
        assert log.get_change_message() == "3 slots were published."

    def test_a_slot_can_have_another_number_of_seats_than_its_service(self, site, service):
        site.post(ADD, form(service, repeat="once", capacity="5", day="2027-07-05"))
        slot = Slot.objects.get()
        assert slot.capacity == 5
        assert slot.start_time == datetime(2027, 7, 5, 17, tzinfo=UTC)  # 18:00 in Lisbon

    @pytest.mark.parametrize(
        "hidden", [{"count": "400"}, {"interval": "99"}, {"until": "nonsense"}]
    )
    def test_a_slot_that_does_not_repeat_needs_no_valid_repetition(self, site, service, hidden):
        site.post(ADD, form(service, repeat="once", day="2026-12-01", **hidden))
        assert dates() == ["Tue 01 Dec 18:00"]

    @pytest.mark.parametrize("count", ["400", "0", "many"])
    def test_a_series_until_a_last_day_needs_no_valid_number_of_slots(self, site, service, count):
        site.post(ADD, form(service, count=count, until="2026-12-04"))
        assert dates() == ["Tue 01 Dec 18:00", "Fri 04 Dec 18:00"]

    def test_a_series_keeps_its_time_when_the_clocks_change(self, site, service):
        site.post(ADD, form(service, day="2027-03-26", weekdays=["4"], count="2"))
        assert dates() == ["Fri 26 Mar 18:00", "Fri 02 Apr 17:00"]

    def test_the_preview_button_publishes_nothing(self, site, service):
        response = site.post(ADD, form(service, _preview="Preview"))
        assert "Every Tuesday and Friday at 18:00, ten times," in response.content.decode()
        assert not Slot.objects.exists()

    @pytest.mark.parametrize(
        ("changes", "field", "words"),
        [
            ({"day": "2026-11-02", "repeat": "once"}, "day", "The start is in the past."),
            ({"count": "366", "interval": "52"}, "repeat", "too far ahead"),
            ({"service": ""}, "service", "This field is required."),
        ],
    )
    def test_a_refusal_is_shown_at_its_field(self, site, service, changes, field, words):
        response = site.post(ADD, form(service, **changes))
        assert response.status_code == 200
        assert words in str(response.context["form"].errors[field])
        assert "Nothing was published." in response.content.decode()
        assert not Slot.objects.exists()

    def test_a_series_with_a_clash_is_refused_with_the_reason(self, site, service):
        SlotFactory(service=service, start_time=datetime(2026, 12, 4, 17, 30, tzinfo=UTC))
        response = site.post(ADD, form(service))
        assert response.status_code == 200
        text = response.content.decode()
        assert "overlaps another slot or booking of the calendar. No slot was created." in text
        assert Slot.objects.count() == 1

    def test_an_inactive_service_cannot_be_chosen(self, site, service):
        service.is_active = False
        service.save()
        response = site.post(ADD, form(service))
        assert "service" in response.context["form"].errors


class TestPermissions:
    def test_staff_publish_with_the_permission_to_add_slots(self, client, service):
        names = ["bookings.add_slot", "bookings.view_slot"]
        client.force_login(staff(names))
        assert client.get(ADD).status_code == 200
        assert client.post(ADD, form(service)).status_code == 302
        assert Slot.objects.count() == 10

    def test_staff_who_may_only_add_slots_return_to_the_form(self, client, service):
        client.force_login(staff(["bookings.add_slot"]))
        every = reverse("admin:bookings_slot_changelist")
        assert f'href="{every}"' not in client.get(ADD).content.decode()
        response = client.post(ADD, form(service), follow=True)
        assert (response.status_code, response.redirect_chain) == (200, [(ADD, 302)])
        assert "10 slots were published." in response.content.decode()

    def test_users_who_may_not_add_slots_may_neither_publish_nor_preview(self, client, service):
        client.force_login(staff(["bookings.view_slot"]))
        assert client.get(ADD).status_code == 403
        assert client.post(ADD, form(service)).status_code == 403
        assert client.get(PREVIEW, form(service)).status_code == 403
        client.force_login(UserFactory())
        assert client.get(PREVIEW, form(service)).status_code == 302


def test_a_series_is_published_as_planned_unless_a_slot_clashes(service):
    """If a slot clashes, nothing is published, and the plan names the start of that slot."""
    start = NOW + timedelta(days=1)
    wish = {
        "actor": AdminFactory(),
        "service_id": service.pk,
        "start_time": start,
        "at": NOW,
        "rrule": parse_rule("FREQ=DAILY;COUNT=5"),
    }
    other = BookingFactory(
        service=ServiceFactory(calendar=service.calendar), start_time=start + timedelta(days=2)
    )
    plan = slots.plan_slots(**wish)
    assert plan.clashes == {other.start_time}
    with pytest.raises(slots.SlotConflict):
        slots.publish_slots(**wish)
    other.delete()
    assert slots.plan_slots(**wish).clashes == frozenset()
    assert [slot.start_time for slot in slots.publish_slots(**wish)] == plan.starts


def test_a_weekly_series_is_described_with_all_its_weekdays():
    pattern = weeks_in_words(1, [0, 2, 4])
    first = datetime(2026, 11, 30, 9)  # noqa: DTZ001 - wall-clock time
    assert pattern == "Every Monday, Wednesday and Friday"
    assert series_in_words(pattern, [first, first + timedelta(days=2)]) == (
        "Every Monday, Wednesday and Friday at 09:00, two times,"
        " from 30 November until 2 December 2026."
    )


def test_the_end_of_a_series_in_russian_has_only_one_full_stop():
    first = datetime(2026, 11, 30, 9)  # noqa: DTZ001 - wall-clock time
    with languages.speaking("ru"):
        words = series_in_words("Каждый день", [first, first + timedelta(days=2)])
    assert words.endswith("2 декабря 2026 г.")  # noqa: RUF001


@pytest.mark.parametrize(("language", "unit"), [("de", "Terminen"), ("ru", "сеансов")])
def test_the_unit_after_the_number_of_slots_is_in_the_right_grammatical_case(
    site, service, language, unit
):
    User.objects.update(language=language)
    response = site.get(ADD)
    assert f'<span class="unit">{unit}</span>' in response.content.decode()


@pytest.mark.parametrize("field", ["service", "day", "clock", "capacity", "repeat", "interval"])
@pytest.mark.parametrize("value", ["\0", "9" * 400, "x", "-1", "1e9"])
def test_nonsense_is_refused_at_its_field_and_stays_in_the_form(site, service, field, value):
    response = site.post(ADD, form(service, **{field: value}))
    assert response.status_code == 200
    assert field in response.context["form"].errors
    assert response.context["form"][field].value() == value
    assert not Slot.objects.exists()


@pytest.mark.parametrize("field", ["count", "until", "weekdays"])
@pytest.mark.parametrize("value", ["\0", "9" * 400, "x", "-1"])
def test_nonsense_in_the_repetition_is_refused_at_its_field(site, service, field, value):
    response = site.post(ADD, form(service, **{field: value}))
    assert response.status_code == 200
    assert field in response.context["form"].errors
    assert not Slot.objects.exists()


def test_the_second_publication_of_the_same_series_is_refused(site, service):
    assert site.post(ADD, form(service)).status_code == 302
    response = site.post(ADD, form(service))
    assert response.status_code == 200
    text = response.content.decode()
    assert "No slot was created." in text
    assert "10 dates overlap other slots or bookings, so nothing would be published." in text
    assert Slot.objects.count() == 10


def booked(slot, **more):
    """Return a booking of a seat in a slot."""
    return BookingFactory(slot=slot, service=slot.service, start_time=slot.start_time, **more)


class TestPage:
    def page(self, slot):
        return reverse("admin:bookings_slot_change", args=[slot.pk])

    def seats(self, slot):
        return reverse("admin:bookings_slot_seats", args=[slot.pk])

    @pytest.fixture
    def slot(self, service):
        return SlotFactory(service=service, start_time=NOW + timedelta(days=180), capacity=3)

    def test_the_page_shows_the_period_in_the_zone_of_the_calendar_and_the_attendees(
        self, site, slot, django_assert_max_num_queries
    ):
        for seat in (1, 2):
            booked(slot, seat=seat, user=UserFactory(name=f"Ada {seat}"))
        booked(slot, status="cancelled", user=UserFactory(name="Kunigunde"))
        with django_assert_max_num_queries(12):
            text = site.get(self.page(slot)).content.decode()
        assert "Wed 26 May 2027, 13:00\N{EN DASH}14:00 (Europe/Lisbon)" in text
        assert "2 of 3" in text
        assert "Ada 1" in text
        assert "Ada 2" in text
        assert "Kunigunde" not in text
        assert f"?slot__id__exact={slot.pk}" in text
        listed = site.get(reverse("admin:bookings_slot_changelist")).content.decode()
        assert "Wed 26 May 2027, 13:00\N{EN DASH}14:00" in listed

    def test_users_who_may_only_see_slots_see_neither_names_nor_forms(self, client, slot):
        booked(slot, user=UserFactory(name="Kunigunde"))
        client.force_login(staff(["bookings.view_slot"]))
        text = client.get(self.page(slot)).content.decode()
        assert "Kunigunde" not in text
        assert "seats/" not in text
        assert reverse("admin:catalog_service_change", args=[slot.service_id]) not in text
        assert client.post(self.seats(slot), {"capacity": "5"}).status_code == 403

    def test_the_number_of_seats_is_changed_and_logged(self, site, slot):
        assert site.get(self.seats(slot)).status_code == 405
        assert site.post(self.seats(slot), {"capacity": "5"}).status_code == 302
        slot.refresh_from_db()
        assert slot.capacity == 5
        site.post(self.seats(slot), {"capacity": "5"})
        assert LogEntry.objects.get().get_change_message() == "Changed the number of seats."

    @pytest.mark.parametrize(("seats", "logged"), [("3", 1), ("5", 0)])
    def test_a_number_of_seats_that_somebody_else_has_just_changed_is_logged_if_it_changes_again(
        self, site, slot, monkeypatch, seats, logged
    ):
        self.meanwhile(monkeypatch, slot, capacity=5)
        site.post(self.seats(slot), {"capacity": seats})
        slot.refresh_from_db()
        assert slot.capacity == int(seats)
        assert LogEntry.objects.count() == logged

    def test_cancelling_a_slot_that_somebody_else_has_just_cancelled_is_not_logged(
        self, site, slot, monkeypatch
    ):
        self.meanwhile(monkeypatch, slot, status="cancelled")
        assert site.post(reverse("admin:bookings_slot_cancel", args=[slot.pk])).status_code == 302
        assert not LogEntry.objects.exists()

    def meanwhile(self, monkeypatch, slot, **values):
        """Let somebody else change a slot before the next request locks it."""
        lock = slots.lock_to_book

        def change_and_lock(calendar_id):
            Slot.objects.filter(pk=slot.pk).update(**values)
            lock(calendar_id)

        monkeypatch.setattr(slots, "lock_to_book", change_and_lock)

    @pytest.mark.parametrize(
        ("seats", "words"),
        [
            ("1", "2 seats are taken."),
            ("0", "greater than or equal to 1"),
            ("1001", "less than or equal to 1000"),
            ("", "This field is required."),
            ("x", "Enter a whole number."),
            ("9" * 400, "less than or equal to 1000"),
        ],
    )
    def test_a_refused_number_of_seats_is_explained_at_its_field(self, site, slot, seats, words):
        for seat in (1, 2):
            booked(slot, seat=seat)
        response = site.post(self.seats(slot), {"capacity": seats})
        assert response.status_code == 200
        assert words in str(response.context["seats_form"].errors["capacity"])
        assert response.context["seats_form"]["capacity"].value() == seats
        slot.refresh_from_db()
        assert slot.capacity == 3

    def test_a_refused_number_of_seats_is_explained_even_if_the_slot_was_cancelled(
        self, site, slot
    ):
        slots.change_slot(slot_id=slot.pk, status="cancelled", actor=AdminFactory(), at=NOW)
        response = site.post(self.seats(slot), {"capacity": "0"}, follow=True)
        assert "greater than or equal to 1" in response.content.decode()
        slot.refresh_from_db()
        assert slot.capacity == 3

    @pytest.mark.parametrize("hours", [4, 24])
    def test_a_slot_that_ends_on_a_later_day_shows_the_dates_of_its_start_and_end(
        self, site, service, hours
    ):
        start = datetime(2027, 5, 26, 21, tzinfo=UTC)  # 22:00 in Lisbon
        slot = SlotFactory(
            service=service, start_time=start, end_time=start + timedelta(hours=hours)
        )
        WaitlistEntryFactory(slot=slot)
        end = f"Thu 27 May 2027, {(22 + hours) % 24:02}:00"
        words = f"Wed 26 May 2027, 22:00 \N{EN DASH} {end}"
        for path in (
            self.page(slot),
            reverse("admin:bookings_slot_changelist"),
            reverse("admin:bookings_waitlistentry_changelist"),
        ):
            assert words in site.get(path).content.decode()

    def test_the_page_of_a_cancelled_slot_offers_no_changes(self, site, slot):
        slots.change_slot(slot_id=slot.pk, status="cancelled", actor=AdminFactory(), at=NOW)
        text = site.get(self.page(slot)).content.decode()
        assert "seats/" not in text
        assert f"{slot.pk}/cancel/" not in text

    def test_a_slot_that_does_not_exist_is_not_found(self, site, slot):
        path = self.seats(slot)
        slot.delete()
        assert site.post(path, {"capacity": "5"}).status_code == 404

    def test_a_slot_is_cancelled_with_its_bookings(self, site, slot):
        booking = booked(slot)
        path = reverse("admin:bookings_slot_cancel", args=[slot.pk])
        text = site.get(self.page(slot)).content.decode()
        assert path in text
        assert "1 booking is cancelled with it" in text
        assert site.get(path).status_code == 405
        assert site.post(path).status_code == 302
        booking.refresh_from_db()
        assert booking.status == "cancelled"
        assert site.post(path).status_code == 302
        assert LogEntry.objects.get().get_change_message() == "Cancelled."

    def test_the_list_asks_for_confirmation_before_slots_are_cancelled(self, site, slot):
        later = SlotFactory(service=slot.service, start_time=NOW + timedelta(days=181), capacity=3)
        bookings = [booked(slot), booked(slot, seat=2), booked(later)]
        booked(later, seat=2, status="cancelled")
        chosen = {"action": "cancel", "_selected_action": [str(slot.pk), str(later.pk)]}
        listed = reverse("admin:bookings_slot_changelist")

        text = site.post(listed, chosen).content.decode()

        assert "These 2 slots will be cancelled:" in text
        assert "3 bookings will be cancelled, too" in text
        slot.refresh_from_db()
        assert slot.status == "scheduled"

        text = site.post(listed, {**chosen, "sure": "1"}, follow=True).content.decode()

        assert "2 slots cancelled." in text
        for each in (slot, later, *bookings):
            each.refresh_from_db()
            assert each.status == "cancelled"

    def test_a_hold_and_a_completed_booking_are_not_counted_as_bookings_that_are_cancelled(
        self, site, slot
    ):
        booked(slot)
        booked(slot, seat=2, status="held", hold_expires_at=NOW + timedelta(minutes=5))
        booked(slot, seat=3, status="completed")
        listed = reverse("admin:bookings_slot_changelist")
        chosen = {"action": "cancel", "_selected_action": [str(slot.pk)]}
        assert "1 booking is cancelled with it" in site.get(self.page(slot)).content.decode()
        assert "1 booking will be cancelled, too" in site.post(listed, chosen).content.decode()

    def test_slots_that_are_cancelled_already_are_not_cancelled_again(self, site, slot):
        cancelled = SlotFactory(service=slot.service, status="cancelled")
        listed = reverse("admin:bookings_slot_changelist")
        both = {"action": "cancel", "_selected_action": [str(slot.pk), str(cancelled.pk)]}
        assert "This slot will be cancelled:" in site.post(listed, both).content.decode()
        one = {"action": "cancel", "_selected_action": [str(cancelled.pk)]}
        assert "Nothing was changed." in site.post(listed, one, follow=True).content.decode()
        assert not LogEntry.objects.exists()

    def test_the_question_counts_only_slots_that_have_not_ended(self, site, slot):
        ended = SlotFactory(service=slot.service, start_time=NOW - timedelta(days=1))
        listed = reverse("admin:bookings_slot_changelist") + "?start_time__isnull=False"
        both = {"action": "cancel", "_selected_action": [str(slot.pk), str(ended.pk)]}
        text = site.post(listed, both).content.decode()
        assert "This slot will be cancelled:" in text
        # The button sends only this slot.
        sent = re.findall(r'name="_selected_action" value="([^"]+)"', text)
        assert sent == [str(slot.pk)]
        one = {"action": "cancel", "_selected_action": [str(ended.pk)]}
        text = site.post(listed, one, follow=True).content.decode()
        assert "will be cancelled" not in text
        assert "A slot that has ended cannot be cancelled." in text

    def test_too_many_slots_are_not_cancelled_at_once(self, site, slot, monkeypatch):
        monkeypatch.setattr("bookings.slots.admin.MAX_CANCELLED", 0)
        chosen = {"action": "cancel", "_selected_action": [str(slot.pk)]}
        listed = reverse("admin:bookings_slot_changelist")
        text = site.post(listed, chosen, follow=True).content.decode()
        assert "Cancel at most 0 slots at a time." in text
        slot.refresh_from_db()
        assert slot.status == "scheduled"

    def test_only_users_who_may_change_slots_can_cancel_them(self, client, slot):
        client.force_login(staff(["bookings.view_slot"]))
        path = reverse("admin:bookings_slot_cancel", args=[slot.pk])
        assert client.post(path).status_code == 403
        slot.refresh_from_db()
        assert slot.status == "scheduled"
