"""Two people change the same row, or one person saves a page that was opened long ago."""

import html
import re

import pytest

from accounts.models import User
from accounts.roles.models import Role
from accounts.tests.factories import AdminFactory, UserFactory, staff
from bookit.adminsite.tests.test_pages import page
from catalog.models import Calendar, Service
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

INPUT = re.compile(r"<input[^>]*>|<textarea[^>]*>.*?</textarea>|<select.*?</select>", re.DOTALL)


@pytest.fixture
def site(client):
    client.force_login(AdminFactory())
    return client


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
    return shown(site.get(page(type(row), "change", row.pk)).content.decode())


def send(site, row, form, **changes):
    return site.post(page(type(row), "change", row.pk), {**form, **changes})


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
    form, here = opened(site, service), page(Service, "change", service.pk)
    service.delete()
    response = site.post(here, form, follow=True)
    assert response.status_code == 200
    assert "deleted" in response.content.decode()
