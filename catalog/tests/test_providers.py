"""What happens when a user becomes a provider, and what providers may do on their calendars."""

from datetime import timedelta
from functools import partial

import pytest
from django.urls import reverse
from django.utils import timezone

from accounts import services as accounts_services
from accounts.extensions import ON_NEW_PROVIDER
from accounts.models import User
from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings.tests.factories import TUESDAY, BookingFactory
from bookit.errors import Forbidden
from bookit.tests.crowd import at_once
from bookit.tests.expect import problem
from catalog.models import Calendar
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

MONDAY = {"weekday": 0, "opens": "09:00", "closes": "17:00"}
HOLIDAY = {"start_time": "2999-08-01T00:00:00Z", "end_time": "2999-09-01T00:00:00Z"}


@pytest.fixture
def boss():
    return AdminFactory(email="boss@example.com")


@pytest.fixture
def as_admin(api, boss):
    return api.as_(boss)


@pytest.fixture
def site(client, boss):
    client.force_login(boss)
    return client


@pytest.fixture
def refusal():
    """Refuse new providers, after the calendar is created. Yield the class of the error."""

    @ON_NEW_PROVIDER.add("refuse")
    def refuse(*, provider, at):
        assert calendars(provider)
        raise Forbidden

    yield Forbidden
    del ON_NEW_PROVIDER["refuse"]


def calendars(user):
    """Return the names and time zones of a user's calendars."""
    return list(Calendar.objects.filter(provider=user).values_list("name", "timezone"))


class TestBecomingAProvider:
    def test_a_new_provider_gets_a_calendar_with_their_name(self, api, as_admin):
        user = UserFactory(name="Rui Costa", timezone="Europe/Lisbon")
        assert as_admin.patch(f"/users/{user.pk}", {"role": "provider"}).status_code == 200
        [calendar] = api.get(f"/calendars?provider_id={user.pk}").json()["results"]
        assert calendar == {
            **calendar,
            "name": "Rui Costa",
            "timezone": "Europe/Lisbon",
            "provider_id": str(user.pk),
            "opening_hours": [],
        }

    def test_the_calendar_gets_the_name_that_is_sent_with_the_role(self, as_admin):
        user = UserFactory(name="Rui")
        as_admin.patch(f"/users/{user.pk}", {"name": "Rui Costa", "role": "provider"})
        assert calendars(user) == [("Rui Costa", "UTC")]

    def test_a_user_with_a_calendar_gets_no_second_calendar(self, as_admin):
        user = AdminFactory()
        CalendarFactory(provider=user, name="Court 1")
        as_admin.patch(f"/users/{user.pk}", {"role": "provider"})
        assert calendars(user) == [("Court 1", "UTC")]

    def test_a_new_provider_gets_a_calendar_even_if_others_have_one(self, as_admin):
        CalendarFactory(provider=ProviderFactory())
        CalendarFactory()
        user = UserFactory(name="Rui")
        as_admin.patch(f"/users/{user.pk}", {"role": "provider"})
        assert calendars(user) == [("Rui", "UTC")]

    def test_becoming_a_provider_again_creates_no_second_calendar(self, as_admin):
        user = UserFactory(name="Rui")
        for role in ("provider", "user", "provider", "admin", "provider"):
            assert as_admin.patch(f"/users/{user.pk}", {"role": role}).status_code == 200
        assert calendars(user) == [("Rui", "UTC")]

    @pytest.mark.parametrize(
        ("role", "changes"),
        [
            ("user", {"name": "Rui"}),
            ("user", {"role": "user"}),
            ("user", {"role": "admin"}),
            ("provider", {"role": "provider"}),
            ("provider", {"name": "Rui", "is_active": False}),
            ("admin", {"role": "user"}),
        ],
    )
    def test_other_changes_of_a_user_create_no_calendar(self, as_admin, role, changes):
        user = UserFactory(role=role)
        assert as_admin.patch(f"/users/{user.pk}", changes).status_code == 200
        assert not Calendar.objects.exists()

    def test_a_user_who_registers_gets_no_calendar(self, api):
        body = {"name": "Rui", "email": "rui@example.com", "password": "correct horse 9"}
        assert api.post("/auth/register", body).json()["role"] == "user"
        assert not Calendar.objects.exists()

    def test_neither_role_nor_calendar_is_stored_if_a_later_extension_refuses(self, boss, refusal):
        user = UserFactory()
        with pytest.raises(refusal):
            accounts_services.update_user(
                user_id=user.pk, actor=boss, changes={"role": "provider"}, at=timezone.now()
            )
        user.refresh_from_db()
        assert (user.role, calendars(user)) == ("user", [])

    @pytest.mark.django_db(transaction=True)
    def test_concurrent_promotions_create_one_calendar(self, api):
        admin = api.as_(AdminFactory())
        for _ in range(5):
            user = UserFactory(name="Rui")
            outcomes = at_once(
                [partial(admin.patch, f"/users/{user.pk}", {"role": "provider"})] * 4
            )
            assert [outcome.value.status_code for outcome in outcomes] == [200] * 4
            assert calendars(user) == [("Rui", "UTC")]


class TestInTheAdminSite:
    def test_a_user_who_becomes_a_provider_gets_a_calendar(self, site):
        user = UserFactory(name="Rui")
        response = site.post(
            reverse("admin:accounts_user_change", args=[user.pk]),
            {
                "email": "costa@example.com",
                "name": "Rui Costa",
                "role": "provider",
                "is_active": "on",
                "timezone": "Europe/Lisbon",
                "language": "pt",
            },
        )
        assert response.status_code == 302
        user.refresh_from_db()
        assert (user.role, user.email) == ("provider", "costa@example.com")
        assert calendars(user) == [("Rui Costa", "Europe/Lisbon")]

    @pytest.mark.parametrize(("role", "expected"), [("provider", [("Rui", "UTC")]), ("user", [])])
    def test_a_new_account_gets_a_calendar_only_with_the_provider_role(self, site, role, expected):
        password = "seven quiet otters"
        response = site.post(
            reverse("admin:accounts_user_add"),
            {
                "email": "Rui@Example.com",
                "name": "Rui",
                "role": role,
                "password1": password,
                "password2": password,
            },
        )
        assert response.status_code == 302, response.content
        user = User.objects.get(email="rui@example.com")
        assert (user.role, user.check_password(password)) == (role, True)
        assert calendars(user) == expected

    def test_only_admins_add_accounts(self):
        user = User(name="Rui", email="rui@example.com", role="admin")
        with pytest.raises(Forbidden):
            accounts_services.add_user(user=user, actor=ProviderFactory(), at=timezone.now())
        assert not User.objects.filter(email="rui@example.com").exists()


@pytest.fixture
def provider(as_admin):
    """A user who has just become a provider."""
    user = UserFactory(name="Rui")
    as_admin.patch(f"/users/{user.pk}", {"role": "provider"})
    user.refresh_from_db()
    return user


@pytest.fixture
def calendar(provider):
    return provider.calendars.get()


@pytest.fixture
def as_other(api):
    """Return the client of a provider with a calendar of their own."""
    other = ProviderFactory()
    CalendarFactory(provider=other)
    return api.as_(other)


class TestPublishing:
    def test_a_provider_manages_their_own_calendar(self, api, provider, calendar):
        client = api.as_(provider)
        path = f"/calendars/{calendar.pk}"
        body = {"title": "Haircut", "price": "25.00", "duration_minutes": 30}
        made = client.post("/services", {**body, "calendar_id": str(calendar.pk)})
        assert made.status_code == 201
        assert made.json()["provider_id"] == str(provider.pk)
        service = f"/services/{made.json()['id']}"
        assert client.patch(service, {"price": "30.00"}).json()["price"] == "30.00"
        assert client.patch(service, {"is_active": False}).status_code == 200
        hours = client.patch(path, {"opening_hours": [MONDAY]})
        assert hours.json()["opening_hours"] == [MONDAY]
        away = client.post(f"{path}/time-off", HOLIDAY)
        assert away.status_code == 201
        assert client.get(f"{path}/time-off").json()["count"] == 1
        assert client.delete(away["Location"]).status_code == 204
        assert client.delete(service).status_code == 204

    def test_a_provider_manages_a_second_calendar(self, api, provider):
        client = api.as_(provider)
        room = client.post("/calendars", {"name": "Room 2"}).json()
        assert room["provider_id"] == str(provider.pk)
        away = client.post(f"/calendars/{room['id']}/time-off", HOLIDAY)
        assert away.status_code == 201
        assert client.delete(away["Location"]).status_code == 204
        assert client.delete(f"/calendars/{room['id']}").status_code == 204

    def test_a_provider_cannot_manage_other_calendars(self, as_other, as_admin, calendar):
        service = ServiceFactory(calendar=calendar)
        path = f"/calendars/{calendar.pk}"
        away = as_admin.post(f"{path}/time-off", HOLIDAY)["Location"]
        body = {"title": "Haircut", "price": "25.00", "duration_minutes": 30}
        for response in (
            as_other.post("/services", {**body, "calendar_id": str(calendar.pk)}),
            as_other.patch(f"/services/{service.pk}", {"price": "1.00"}),
            as_other.delete(f"/services/{service.pk}"),
            as_other.patch(path, {"opening_hours": [MONDAY]}),
            as_other.delete(path),
            as_other.get(f"{path}/time-off"),
            as_other.post(f"{path}/time-off", HOLIDAY),
            as_other.delete(away),
        ):
            problem(response, 403, "permission_denied")

    def test_an_admin_manages_all_calendars(self, as_admin, calendar):
        service = ServiceFactory(calendar=calendar)
        path = f"/calendars/{calendar.pk}"
        assert as_admin.patch(f"/services/{service.pk}", {"price": "1.00"}).status_code == 200
        assert as_admin.patch(path, {"opening_hours": [MONDAY]}).status_code == 200
        away = as_admin.post(f"{path}/time-off", HOLIDAY)
        assert away.status_code == 201
        assert as_admin.delete(away["Location"]).status_code == 204
        assert as_admin.delete(f"/services/{service.pk}").status_code == 204
        assert as_admin.delete(path).status_code == 204

    def test_a_former_provider_cannot_manage_their_calendar(
        self, api, as_admin, provider, calendar
    ):
        service = ServiceFactory(calendar=calendar)
        booking = BookingFactory(service=service)
        path = f"/calendars/{calendar.pk}"
        away = as_admin.post(f"{path}/time-off", HOLIDAY)["Location"]
        as_admin.patch(f"/users/{provider.pk}", {"role": "user"})
        client = api.as_(provider)
        for response in (
            client.post("/calendars", {"name": "Room 2"}),
            client.patch(path, {"name": "Mine"}),
            client.delete(path),
            client.get(f"{path}/time-off"),
            client.post(f"{path}/time-off", HOLIDAY),
            client.delete(away),
            client.patch(f"/services/{service.pk}", {"price": "1.00"}),
            client.get(f"/bookings/{booking.pk}"),
            client.patch(f"/bookings/{booking.pk}/status", {"status": "confirmed"}),
        ):
            problem(response, 403, "permission_denied")


class TestBookingsOnTheirCalendars:
    @pytest.fixture
    def service(self, calendar):
        return ServiceFactory(calendar=calendar)

    @pytest.fixture
    def booked(self, service):
        return BookingFactory(service=service)

    def test_providers_see_only_their_own_bookings_and_bookings_on_their_calendars(
        self, api, as_other, provider, booked
    ):
        elsewhere = BookingFactory()
        own = BookingFactory(user=provider)
        client = api.as_(provider)
        listed = client.get("/bookings?scope=provider").json()["results"]
        assert [row["id"] for row in listed] == [str(booked.pk)]
        assert client.get(f"/bookings/{booked.pk}").json() == listed[0]
        assert [row["id"] for row in client.get("/bookings").json()["results"]] == [str(own.pk)]
        problem(client.get(f"/bookings/{elsewhere.pk}"), 403, "permission_denied")
        assert as_other.get("/bookings?scope=provider").json()["count"] == 0
        problem(as_other.get(f"/bookings/{booked.pk}"), 403, "permission_denied")

    @pytest.mark.parametrize(
        "statuses",
        [["confirmed", "completed"], ["confirmed", "no_show"], ["cancelled"], ["completed"]],
    )
    @pytest.mark.parametrize("who", ["provider", "admin"])
    def test_providers_and_admins_change_the_status(
        self, api, as_admin, as_other, provider, booked, statuses, who
    ):
        client = as_admin if who == "admin" else api.as_(provider)
        for status in statuses:
            change = {"status": status}
            path = f"/bookings/{booked.pk}"
            problem(as_other.patch(path, change), 403, "permission_denied")
            problem(as_other.patch(f"{path}/status", change), 403, "permission_denied")
            response = client.patch(f"{path}/status", change)
            assert (response.status_code, response.json()["status"]) == (200, status)

    def test_providers_reschedule_bookings_on_their_calendars(
        self, api, as_other, provider, booked
    ):
        later = {"start_time": (TUESDAY + timedelta(days=1)).isoformat()}
        problem(as_other.patch(f"/bookings/{booked.pk}", later), 403, "permission_denied")
        assert api.as_(provider).patch(f"/bookings/{booked.pk}", later).status_code == 200

    def test_bookings_follow_their_calendar_to_another_provider(
        self, api, as_admin, as_other, provider, calendar, booked
    ):
        other = User.objects.exclude(pk=provider.pk).get(role="provider")
        as_admin.patch(f"/calendars/{calendar.pk}", {"provider_id": str(other.pk)})
        assert api.as_(provider).get("/bookings?scope=provider").json()["count"] == 0
        confirm = {"status": "confirmed"}
        path = f"/bookings/{booked.pk}/status"
        problem(api.as_(provider).patch(path, confirm), 403, "permission_denied")
        assert as_other.patch(path, confirm).status_code == 200
