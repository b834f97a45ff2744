"""Two people change the same row, or one person saves a page that was opened long ago."""

import html
import re
from datetime import UTC, datetime, timedelta

import pytest

from accounts.models import User
from accounts.roles.models import Role
from accounts.tests.factories import UserFactory, staff
from bookit.adminsite.tests.addresses import url_of
from catalog.models import Calendar, Service, TimeOff
from catalog.tests.factories import CalendarFactory, ServiceFactory, TimeOffFactory

pytestmark = pytest.mark.django_db

INPUT = re.compile(r"<input[^>]*>|<textarea[^>]*>.*?</textarea>|<select.*?</select>", re.DOTALL)


def attribute(tag, name):
    found = re.search(rf'\b{name}="([^"]*)"', tag)
    return html.unescape(found[1]) if found else None


def shown(page_text):
    """Return the form of a page as a browser sends it if nobody changes anything."""
    form = page_text[page_text.index('id="content-main"') : page_text.index("submit-row")]
    sent = {}
    for tag in INPUT.findall(re.sub(r"<template.*?</template>", "", form, flags=re.DOTALL)):
        name, kind = attribute(tag, "name"), attribute(tag, "type")
        if not name or kind == "submit":
            continue
        if tag.startswith("<select"):
            chosen = re.findall(r"<option[^>]* selected[^>]*>", tag)
            values = [attribute(each, "value") for each in chosen]
        elif tag.startswith("<textarea"):
            values = [
                html.unescape(tag[tag.index(">") + 1 : -len("</textarea>")]).removeprefix("\n")
            ]
        elif kind in ("checkbox", "radio"):
            values = [attribute(tag, "value") or "on"] if " checked" in tag else []
        else:
            values = [attribute(tag, "value") or ""]
        sent.setdefault(name, []).extend(values)
    return sent


def opened(site, row):
    """Return the form that people see when they open the page of a row."""
    return shown(site.get(url_of(type(row), "change", row.pk)).content.decode())


def send(site, row, form, **changes):
    return site.post(url_of(type(row), "change", row.pk), {**form, **changes})


def test_two_people_who_change_different_fields_both_succeed(site):
    service = ServiceFactory(title="Cut", description="Old", capacity=1)
    mine, theirs = opened(site, service), opened(site, service)
    assert send(site, service, theirs, title="Haircut").status_code == 302
    assert send(site, service, mine, description="New", capacity="3").status_code == 302
    service.refresh_from_db()
    assert (service.title, service.description, service.capacity) == ("Haircut", "New", 3)


@pytest.mark.parametrize(
    ("field", "theirs", "mine", "words"),
    [
        ("title", "Haircut", "Trim", "\u201cHaircut\u201d"),
        ("price", "30.00", "35.00", "\u201c30.00\u201d"),
        ("duration_minutes", "45", "90", "\u201c45\u201d"),
        ("description", "Theirs", "Mine", "\u201cTheirs\u201d"),
    ],
)
def test_a_conflict_is_shown_at_its_field_and_keeps_the_input(site, field, theirs, mine, words):
    service = ServiceFactory(title="Cut", price="25.00")
    form = opened(site, service)
    Service.objects.update(**{field: theirs})
    response = send(site, service, form, **{field: mine})
    assert response.status_code == 200
    [error] = response.context["adminform"].form.errors[field]
    assert "Somebody else has changed this" in error
    assert words in error
    again = shown(response.content.decode())
    assert again[field] == [mine]
    # The person has seen the other value, and may replace it.
    assert send(site, service, again).status_code == 302
    service.refresh_from_db()
    assert str(getattr(service, field)).startswith(mine)


def test_the_line_ends_that_browsers_send_are_no_change_by_somebody_else(site):
    """A client of the API sends other line ends than a browser, which sends CRLF."""
    service = ServiceFactory(description="Wash\n\nand cut")
    form = opened(site, service)
    sent = {name: [each.replace("\n", "\r\n") for each in form[name]] for name in form}
    assert send(site, service, sent, description="Wash\r\n\r\nand dry").status_code == 302
    service.refresh_from_db()
    assert service.description == "Wash\n\nand dry"


def test_the_longest_text_can_be_saved_although_browsers_send_more_characters(site):
    text = "x\n" * 4999 + "xx"
    service = ServiceFactory(description=text)
    form = opened(site, service)
    sent = {name: [each.replace("\n", "\r\n") for each in form[name]] for name in form}
    assert send(site, service, sent, title="Trim").status_code == 302
    service.refresh_from_db()
    assert (service.title, service.description) == ("Trim", text)


def test_a_text_that_was_stored_with_other_line_ends_counts_as_unchanged(site):
    service = ServiceFactory(description="Wash\r\nand cut")
    form = opened(site, service)
    Service.objects.update(description="Theirs")
    assert send(site, service, form, title="Trim").status_code == 302
    assert Service.objects.get().description == "Theirs"


def test_a_price_must_fit_the_currency_that_somebody_else_has_chosen(site):
    service = ServiceFactory(price="25.00", currency="USD")
    form = opened(site, service)
    Service.objects.update(currency="JPY")
    errors = send(site, service, form, price="25.50").context["adminform"].form.errors
    assert errors["price"] == ["A price in JPY has no decimals."]
    assert send(site, service, form, price="30").status_code == 302
    service.refresh_from_db()
    assert (service.price, service.currency) == (30, "JPY")


def test_two_people_who_choose_the_same_value_do_not_conflict(site):
    service = ServiceFactory()
    form = opened(site, service)
    Service.objects.update(mode="slots")
    assert send(site, service, form, mode="slots").status_code == 302


def test_a_conflict_shows_the_label_of_a_choice(site):
    user = UserFactory(timezone="UTC", is_active=True)
    form = opened(site, user)
    User.objects.filter(pk=user.pk).update(timezone="Europe/Lisbon")
    errors = send(site, user, form, timezone="Asia/Tokyo").context["adminform"].form.errors
    assert "\u201cLisbon\u201d" in errors["timezone"][0]


def test_changes_of_the_permissions_of_a_role_can_conflict(site):
    staff(["bookings.view_booking"])
    role = Role.objects.get()
    mine, theirs = opened(site, role), opened(site, role)
    both = ["bookings.view_booking", "bookings.add_booking"]
    assert send(site, role, theirs, permissions=both).status_code == 302
    response = send(site, role, mine, permissions=["reviews.view_review"])
    assert "Somebody else" in response.context["adminform"].form.errors["permissions"][0]
    assert {*Role.objects.get().permissions} == {*both}
    again = shown(response.content.decode())
    assert send(site, role, again).status_code == 302
    assert [*Role.objects.get().permissions] == ["reviews.view_review"]


def test_a_form_that_was_opened_long_ago_saves_only_what_was_changed(site):
    """The form still contains the old time zone, which must not replace the new time zone."""
    calendar = CalendarFactory(name="Chair", timezone="UTC")
    form = opened(site, calendar)
    Calendar.objects.update(timezone="Asia/Tokyo")
    assert send(site, calendar, form, name="Stool").status_code == 302
    calendar.refresh_from_db()
    assert (calendar.name, calendar.timezone) == ("Stool", "Asia/Tokyo")


class TestTimeOff:
    """Time off from midnight to midnight in UTC, on the page of a calendar in Lisbon.

    The page shows it from 1:00 on one day to 1:00 on the next day.
    """

    @pytest.fixture
    def off(self):
        return TimeOffFactory(calendar=CalendarFactory(timezone="Europe/Lisbon"), reason="Fair")

    def change_end_and_reason(self, off):
        TimeOff.objects.update(end_time=off.end_time + timedelta(days=7), reason="Summer fair")

    def test_an_old_page_does_not_undo_changes_of_time_off(self, site, off):
        form = opened(site, off.calendar)
        self.change_end_and_reason(off)
        assert send(site, off.calendar, form, name="Stool").status_code == 302
        stored = TimeOff.objects.get()
        assert (stored.start_time, stored.end_time - off.end_time, stored.reason) == (
            *(off.start_time, timedelta(days=7), "Summer fair"),
        )

    def test_two_people_can_change_different_fields_of_time_off(self, site, off):
        form = opened(site, off.calendar)
        self.change_end_and_reason(off)
        changes = {"time_off-0-start_time_0": ["2999-07-30"], "time_off-0-start_time_1": [""]}
        assert send(site, off.calendar, form, **changes).status_code == 302
        stored = TimeOff.objects.get()
        assert stored.start_time == datetime(2999, 7, 29, 23, tzinfo=UTC)
        assert (stored.end_time - off.end_time, stored.reason) == (timedelta(days=7), "Summer fair")

    def test_a_conflict_about_time_off_is_shown_in_its_row(self, site, off):
        form = opened(site, off.calendar)
        self.change_end_and_reason(off)
        mine = {"time_off-0-end_time_0": ["2999-08-20"], "time_off-0-reason": ["Holiday"]}
        response = send(site, off.calendar, form, **mine)
        [_, formset] = response.context["inline_admin_formsets"]
        errors = formset.formset[0].errors
        assert "Somebody else has changed this since" in errors["end_time"][0]
        assert "\u201cSummer fair\u201d" in errors["reason"][0]
        again = shown(response.content.decode())
        assert again["time_off-0-end_time_0"] == ["2999-08-20"]
        assert send(site, off.calendar, again).status_code == 302
        stored = TimeOff.objects.get()
        assert stored.end_time == datetime(2999, 8, 20, tzinfo=UTC)
        assert (stored.start_time, stored.reason) == (off.start_time, "Holiday")

    @pytest.mark.parametrize("value", ["\0", "9" * 400, "x", ""])
    def test_nonsense_in_place_of_a_shown_time_causes_no_error_page(self, site, off, value):
        sent = opened(site, off.calendar)
        sent |= {"initial-time_off-0-start_time_0": value, "initial-time_off-0-end_time_1": value}
        assert send(site, off.calendar, sent, name="New").status_code in (200, 302)


def test_scripts_that_do_not_send_the_shown_values_replace_all_fields(site):
    """Browsers also send the shown values, in hidden fields (Django's `show_hidden_initial`)."""
    user = UserFactory(name="Ada", phone="+351 900 000 001")
    sent = {
        name: values
        for name, values in opened(site, user).items()
        if not name.startswith("initial-")
    }
    User.objects.filter(pk=user.pk).update(name="Grace")
    assert send(site, user, sent, phone="").status_code == 302
    user.refresh_from_db()
    assert (user.name, user.phone) == ("Ada", "")


@pytest.mark.parametrize("value", ["\0", "9" * 400, "x", ""])
@pytest.mark.parametrize("field", ["title", "price", "calendar", "capacity", "currency"])
def test_nonsense_in_place_of_a_shown_value_causes_no_error_page(site, field, value):
    service = ServiceFactory()
    sent = opened(site, service) | {f"initial-{field}": value}
    assert send(site, service, sent, title="New").status_code in (200, 302)


def test_a_message_says_that_the_row_was_deleted_while_its_page_was_open(site):
    service = ServiceFactory()
    form, here = opened(site, service), url_of(Service, "change", service.pk)
    service.delete()
    response = site.post(here, form, follow=True)
    assert response.status_code == 200
    assert "Perhaps it was deleted?" in response.content.decode()


@pytest.mark.parametrize("changes", [{}, {"time_off-0-reason": "Fair"}])
def test_time_off_that_somebody_has_deleted_gets_no_other_errors(site, changes):
    calendar = CalendarFactory()
    stored = TimeOffFactory(calendar=calendar, reason="Holidays")
    mine = opened(site, calendar)
    stored.delete()
    response = send(site, calendar, mine, name="Room", **changes)
    assert response.status_code == 200
    [_hours, off] = response.context["inline_admin_formsets"]
    [errors, *_others] = off.formset.errors
    assert [*errors] == ["id"]
    assert send(site, calendar, mine, name="Room", **{"time_off-0-DELETE": "on"}).status_code == 302
