"""The admin pages of staff roles, and what staff see in the admin site."""

import re

import pytest
from django.test import Client

from accounts.extensions import PERMISSIONS
from accounts.models import User
from accounts.roles.models import Role
from accounts.tests.factories import PASSWORD, AdminFactory, ProviderFactory, UserFactory, staff
from bookings.models import Booking
from bookings.tests.factories import BookingFactory, SlotFactory, WaitlistEntryFactory
from catalog.models import OpeningHours
from catalog.tests.factories import CalendarFactory, TimeOffFactory
from reviews.tests.factories import ReviewFactory

pytestmark = pytest.mark.django_db

RECEPTION = ["bookings.change_booking", "bookings.view_booking"]


def site(user):
    browser = Client()
    browser.force_login(user)
    return browser


@pytest.fixture
def receptionist():
    return staff(RECEPTION)


def test_a_receptionist_signs_in_and_accounts_without_a_staff_role_do_not(receptionist):
    for user, status in ((receptionist, 302), (UserFactory(), 200), (ProviderFactory(), 200)):
        form = {"username": user.email, "password": PASSWORD}
        assert Client().post("/admin/login/?next=/admin/", form).status_code == status


def test_a_receptionist_sees_only_the_pages_of_bookings(receptionist):
    booking, browser = BookingFactory(), site(receptionist)
    index = browser.get("/admin/").content.decode()
    linked = set(re.findall(r'href="/admin/(\w+/\w+)/"', index))
    assert linked == {"bookings/booking"}
    pages = re.findall(
        r'href="/admin/(\w+/\w+)/"', site(AdminFactory()).get("/admin/").content.decode()
    )
    assert len(set(pages)) > 10
    for page in {*pages} - linked:
        assert browser.get(f"/admin/{page}/").status_code == 403, page
    shown = browser.get(f"/admin/bookings/booking/{booking.pk}/change/")
    assert shown.status_code == 200
    assert booking.user.email in shown.content.decode()
    assert b"deletelink" not in shown.content
    assert browser.get(f"/admin/bookings/booking/{booking.pk}/delete/").status_code == 403


def test_a_page_that_refuses_a_list_does_not_link_to_the_list(receptionist):
    browser = site(receptionist)
    refused = browser.get("/admin/catalog/service/")
    assert refused.status_code == 403
    assert "/admin/catalog/service/" not in refused.content.decode()
    # The list of bookings is not refused, only the action.
    form = {"action": "delete_selected", "_selected_action": str(BookingFactory().pk)}
    refused = browser.post("/admin/bookings/booking/", form)
    assert refused.status_code == 403
    assert 'href="/admin/bookings/booking/"' in refused.content.decode()


def test_a_receptionist_confirms_bookings_but_does_not_delete_them(receptionist):
    booking, browser = BookingFactory(), site(receptionist)
    page = "/admin/bookings/booking/"
    rows = {"_selected_action": str(booking.pk)}
    browser.post(page, {**rows, "action": "mark_confirmed"})
    booking.refresh_from_db()
    assert booking.status == "confirmed"
    assert booking.events.get().actor == receptionist
    refused = browser.post(page, {**rows, "action": "delete_selected", "post": "yes"})
    assert refused.status_code == 403
    assert Booking.objects.filter(pk=booking.pk).exists()


def test_staff_who_may_only_see_bookings_get_no_actions():
    booking, browser = BookingFactory(), site(staff(["bookings.view_booking"]))
    assert b"mark_confirmed" not in browser.get("/admin/bookings/booking/").content
    form = {"_selected_action": str(booking.pk), "action": "mark_confirmed"}
    # The list may have been opened when they still had actions.
    assert browser.post("/admin/bookings/booking/", form).status_code == 403
    booking.refresh_from_db()
    assert booking.status == "pending"


@pytest.mark.parametrize("verbs", [("view",), ("view", "change"), ("view", "add", "delete")])
def test_lists_and_pages_of_rows_work_for_staff_with_some_permissions(verbs):
    review = ReviewFactory(comment="Fine")
    service = review.service
    OpeningHours.objects.create(calendar=service.calendar, weekday=1, opens=540, closes=1440)
    TimeOffFactory(calendar=service.calendar)
    names = [name for name, each in PERMISSIONS.items() if each.in_roles]
    user = staff([name for name in names if name.split(".")[1].split("_")[0] in verbs])
    slot = SlotFactory()
    entry = WaitlistEntryFactory(slot=slot, user=user)
    rows = [
        review,
        service,
        service.calendar,
        review.booking,
        slot,
        entry,
        user,
        Role.objects.get(),
    ]
    browser = site(user)
    for row in rows:
        page = f"/admin/{row._meta.app_label}/{row._meta.model_name}/"
        assert browser.get(page).status_code == 200, page
        shown = browser.get(f"{page}{row.pk}/change/")
        assert shown.status_code == 200, page
        assert user.password not in shown.content.decode()
        may_add = "add" in verbs and f"{row._meta.app_label}.add_{row._meta.model_name}" in names
        assert browser.get(f"{page}add/").status_code == (200 if may_add else 403), page


@pytest.mark.parametrize("names", [["view", "delete"], ["view", "change", "delete"]])
@pytest.mark.parametrize("factory", [BookingFactory, CalendarFactory, SlotFactory])
def test_after_a_deletion_staff_see_the_list(factory, names):
    row = factory()
    app, model = row._meta.app_label, row._meta.model_name
    browser = site(staff([f"{app}.{name}_{model}" for name in names]))
    page = f"/admin/{app}/{model}/"
    response = browser.post(f"{page}{row.pk}/delete/", {"post": "yes"})
    assert not factory._meta.model.objects.exists()
    assert response["Location"] == page
    assert "was deleted successfully" in browser.get(page).content.decode()


def test_staff_delete_only_what_they_may_see():
    booking = BookingFactory(attendee_name="Zelda")
    browser = site(staff(["bookings.delete_booking"]))
    page = f"/admin/bookings/booking/{booking.pk}/delete/"
    for response in (browser.get(page), browser.post(page, {"post": "yes"})):
        assert response.status_code == 403
        assert "Zelda" not in response.content.decode()
    assert Booking.objects.exists()


def test_staff_change_opening_hours_with_the_permission_to_change_calendars():
    calendar = CalendarFactory()
    page = f"/admin/catalog/calendar/{calendar.pk}/change/"
    form = {"name": "Room", "timezone": "UTC", "provider": ""}
    form |= {"hours-TOTAL_FORMS": 1, "hours-INITIAL_FORMS": 0, "hours-0-weekday": 1}
    form |= {"hours-0-opens": "09:00", "hours-0-closes": "17:00"}
    form |= {"time_off-TOTAL_FORMS": 0, "time_off-INITIAL_FORMS": 0}
    assert site(staff(["catalog.view_calendar"])).post(page, form).status_code == 403
    assert site(staff(["catalog.change_calendar"])).post(page, form).status_code == 302
    calendar.refresh_from_db()
    assert (calendar.name, calendar.hours.count()) == ("Room", 1)


def test_admins_manage_roles_and_give_them_to_users():
    browser, user = site(AdminFactory()), UserFactory()
    form = {"name": "Reception", "description": "", "permissions": RECEPTION}
    assert browser.post("/admin/accounts/role/add/", form).status_code == 302
    role = Role.objects.get()
    assert (role.name, role.permissions) == ("Reception", RECEPTION)

    form["permissions"] = ["bookings.view_booking"]
    page = f"/admin/accounts/role/{role.pk}/change/"
    assert b"bookings.view_booking" in browser.get(page).content
    assert browser.post(page, form).status_code == 302
    assert Role.objects.get().permissions == ["bookings.view_booking"]

    page = f"/admin/accounts/user/{user.pk}/change/"
    fields = {
        "email": user.email,
        "name": user.name,
        "role": "user",
        "timezone": "UTC",
        "language": "en",
    }
    fields |= {"is_active": "on", "roles": ["Reception"]}
    assert browser.post(page, fields).status_code == 302
    assert User.objects.get(pk=user.pk).roles == ["Reception"]
    [choice] = re.findall(r'<input[^>]*name="roles"[^>]*>', browser.get(page).content.decode())
    assert 'value="Reception"' in choice
    assert "checked" in choice.split()[-1]

    delete = {"action": "delete_selected", "_selected_action": str(role.pk), "post": "yes"}
    browser.post("/admin/accounts/role/", delete)
    assert not Role.objects.exists()
    assert User.objects.get(pk=user.pk).roles == []


def test_staff_cannot_give_permissions_that_they_do_not_have():
    browser = site(staff(["accounts.add_role"]))
    form = {"name": "Reception", "description": "", "permissions": RECEPTION}
    response = browser.post("/admin/accounts/role/add/", form)
    assert response.status_code == 200
    assert "You do not have bookings.change_booking" in response.content.decode()
    assert Role.objects.count() == 1


def test_staff_who_may_change_users_cannot_take_over_their_accounts():
    browser = site(staff(["accounts.change_user", "accounts.view_user"]))
    user = UserFactory()
    page = f"/admin/accounts/user/{user.pk}/change/"
    fields = {
        "email": user.email,
        "name": "Eve",
        "role": "user",
        "timezone": "UTC",
        "language": "en",
    }
    fields["is_active"] = "on"
    for change in ({"role": "admin"}, {"email": "eve@example.com"}):
        response = browser.post(page, {**fields, **change})
        assert response.status_code == 200
        assert "Only admins can change this field" in response.content.decode()
    assert browser.post(page, fields).status_code == 302
    assert User.objects.get(pk=user.pk).name == "Eve"
    password = {"password1": "another good one", "password2": "another good one"}
    password["usable_password"] = "true"
    assert browser.post(f"/admin/accounts/user/{user.pk}/password/", password).status_code == 403
    assert User.objects.get(pk=user.pk).check_password(PASSWORD)


def test_all_buttons_that_save_begin_with_the_same_word_in_german():
    browser = site(AdminFactory(language="de"))
    html = browser.get("/admin/accounts/role/add/").content.decode()
    assert re.findall(r'<input type="submit" value="(\w+)', html) == 3 * ["Speichern"]
