"""Admins list and change all accounts."""

import threading
from collections import Counter
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils.timezone import now

from accounts.emails import no_mailbox
from accounts.models import User
from accounts.sessions.models import Session
from accounts.tests.factories import PASSWORD, AdminFactory, ProviderFactory, UserFactory
from bookit.tests.crowd import at_once, behind_a_rival
from bookit.tests.expect import problem

pytestmark = pytest.mark.django_db

FIELDS = [
    *("id", "name", "email", "email_verified", "phone", "role", "roles"),
    *("timezone", "language", "is_active", "metadata", "created_at", "updated_at"),
]


@pytest.fixture
def root():
    return AdminFactory(name="Root", email="root@example.com")


@pytest.fixture
def admin(api, root):
    return api.as_(root)


def names(response):
    assert response.status_code == 200, response.content
    return [row["name"] for row in response.json()["results"]]


# --- lists ------------------------------------------------------------------------------------


def test_users_are_listed_oldest_first(admin, root):
    for days in (2, 1, 3):
        UserFactory(name=f"{days} days", created_at=now() - timedelta(days=days))
    assert names(admin.get("/users")) == ["3 days", "2 days", "1 days", "Root"]
    assert list(admin.get("/users").json()["results"][0]) == FIELDS


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("ada", ["Ada Lovelace", "Grace"]),
        ("ADA", ["Ada Lovelace", "Grace"]),
        ("love", ["Ada Lovelace"]),
        ("a l", ["Ada Lovelace"]),
        ("canada.example", ["Grace"]),
        ("CANADA.EXAMPLE", ["Grace"]),
        ("@", ["Ada Lovelace", "Grace", "Root", "100% _Émile_ \\o/"]),
        ("100%", ["100% _Émile_ \\o/"]),
        ("%", ["100% _Émile_ \\o/"]),
        ("_é", ["100% _Émile_ \\o/"]),
        ("\\", ["100% _Émile_ \\o/"]),
        ("'", []),
        ("nobody", []),
    ],
)
def test_q_searches_for_part_of_a_name_or_an_email_address(admin, words, found):
    UserFactory(name="Ada Lovelace", email="countess@example.com")
    UserFactory(name="Grace", email="grace@canada.example")
    UserFactory(name="100% _Émile_ \\o/", email="percent@example.com")
    assert sorted(names(admin.get("/users", {"q": words}))) == sorted(found)


def test_q_does_not_search_made_up_email_addresses(admin):
    user = UserFactory(name="Rosa")
    User.objects.filter(pk=user.pk).update(email=no_mailbox(user.pk))
    assert names(admin.get("/users", {"q": str(user.pk)[-6:]})) == []
    assert names(admin.get("/users", {"q": "rosa"})) == ["Rosa"]


def test_the_filters_can_be_combined(admin):
    UserFactory(name="on")
    UserFactory(name="off", is_active=False)
    ProviderFactory(name="provider on")
    ProviderFactory(name="provider off", is_active=False)
    assert set(names(admin.get("/users?active=true"))) == {"Root", "on", "provider on"}
    assert set(names(admin.get("/users?active=false"))) == {"off", "provider off"}
    assert set(names(admin.get("/users?role=provider"))) == {"provider on", "provider off"}
    assert names(admin.get("/users?role=provider&active=false&q=prov")) == ["provider off"]
    assert names(admin.get("/users?role=admin&active=false")) == []


@pytest.mark.parametrize("ordering", ["name", "-name", "email", "-email", "-created_at"])
def test_users_can_be_ordered(admin, ordering):
    at = now()
    for number, letter in enumerate("bac"):
        UserFactory(
            name=letter, email=f"{letter}@example.com", created_at=at + timedelta(hours=number)
        )
    listed = admin.get(f"/users?role=user&ordering={ordering}").json()["results"]
    key = ordering.removeprefix("-")
    values = [row[key] for row in listed]
    assert values == sorted(values, reverse=ordering.startswith("-"))
    assert len(values) == 3


def test_cursors_read_every_row_of_a_filtered_list_once(admin):
    for number in range(5):
        UserFactory(name=f"Ada {number}")
        UserFactory(name=f"Eve {number}")
    seen, url = [], "/users?cursor=&limit=2&q=ada&ordering=-name"
    while url:
        page = admin.get(url)
        seen += names(page)
        assert "count" not in page.json()
        url = page.json()["next"]
    assert seen == [f"Ada {number}" for number in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize(
    ("query", "queries"),
    [
        ("/users", 2),  # the signed-in user, and the page
        ("/users?limit=3", 3),  # also the count, because more rows follow
        ("/users?cursor=&limit=3", 2),
        ("/users?q=person&role=user&active=true&ordering=email", 2),
    ],
)
def test_the_number_of_queries_of_a_list_does_not_depend_on_its_length(
    admin, django_assert_num_queries, query, queries
):
    for size in (5, 15):
        UserFactory.create_batch(size)
        with django_assert_num_queries(queries):
            assert admin.get(query).status_code == 200
        User.objects.filter(role="user").delete()


# --- single users -----------------------------------------------------------------------------


def test_an_admin_can_see_a_user(admin, django_assert_num_queries):
    user = UserFactory(name="Ada", is_active=False)
    with django_assert_num_queries(2):
        response = admin.get(f"/users/{user.pk}")
    assert response.status_code == 200
    assert list(response.json()) == FIELDS
    assert (response.json()["name"], response.json()["is_active"]) == ("Ada", False)


def test_an_admin_can_change_the_name_and_role_of_a_user_and_deactivate_the_user(admin):
    user = UserFactory()
    changes = {"name": "Ada", "role": "provider", "is_active": False}
    response = admin.patch(f"/users/{user.pk}", changes)
    assert response.status_code == 200
    assert {name: response.json()[name] for name in changes} == changes
    assert admin.get(f"/users/{user.pk}").json() == response.json()
    user.refresh_from_db()
    assert (user.name, user.role, user.is_active) == ("Ada", "provider", False)
    assert user.check_password(PASSWORD)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", None),
        ("name", "x" * 201),
        ("role", "emperor"),
        ("role", None),
        ("role", ""),
        ("role", ["admin"]),
        ("role", {}),
        ("is_active", None),
        ("is_active", "maybe"),
        ("is_active", {}),
        ("is_active", []),
        ("password", "another good password"),
        ("is_staff", True),
    ],
)
def test_an_invalid_value_or_an_unknown_field_is_refused_and_named(admin, field, value):
    user = UserFactory()
    before = admin.get(f"/users/{user.pk}").json()
    response = admin.patch(f"/users/{user.pk}", {field: value})
    problem(response, 400, "validation_error", field)
    assert admin.get(f"/users/{user.pk}").json() == before


def test_an_admin_cannot_change_the_email_address_or_time_zone_of_another_user(admin):
    user = UserFactory(email="ada@example.com")
    response = admin.patch(
        f"/users/{user.pk}", {"email": "eve@example.com", "timezone": "Asia/Tokyo"}
    )
    assert response.status_code == 200  # both fields are read-only here, so they are ignored
    assert (response.json()["email"], response.json()["timezone"]) == ("ada@example.com", "UTC")


def test_deactivation_ends_every_session(api, admin):
    user, stranger = UserFactory(), UserFactory()
    for owner in (user, user, stranger):
        api.post("/auth/login", {"email": owner.email, "password": PASSWORD})
    admin.patch(f"/users/{user.pk}", {"is_active": False})
    assert not Session.objects.filter(user=user, revoked_at=None).exists()
    assert Session.objects.filter(user=stranger, revoked_at=None).exists()


# --- the last admin ---------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"role": "user"}, {"role": "provider"}, {"is_active": False}])
def test_the_last_active_admin_cannot_be_demoted_or_deactivated(admin, root, changes):
    AdminFactory(is_active=False)
    problem(admin.patch(f"/users/{root.pk}", {**changes, "name": "Eve"}), 409, "last_admin")
    root.refresh_from_db()
    assert (root.role, root.is_active, root.name) == ("admin", True, "Root")


@pytest.mark.parametrize("changes", [{"role": "user"}, {"is_active": False}])
def test_one_of_two_admins_can_be_demoted_or_deactivated(api, admin, root, changes):
    other = AdminFactory()
    assert admin.patch(f"/users/{root.pk}", changes).status_code == 200
    problem(api.as_(other).patch(f"/users/{other.pk}", changes), 409, "last_admin")


def test_the_last_admin_can_be_renamed(admin, root):
    same = {"name": "New", "role": "admin", "is_active": True}
    assert admin.patch(f"/users/{root.pk}", same).status_code == 200


def test_an_inactive_admin_can_be_demoted(admin):
    other = AdminFactory(is_active=False)
    assert admin.patch(f"/users/{other.pk}", {"role": "user"}).status_code == 200


def demote(client, user):
    return lambda: client.patch(f"/users/{user.pk}", {"role": "user"})


def test_if_two_admins_demote_each_other_at_once_one_stays_admin(transactional_db, api):
    """Both requests wait for the rows of all admins."""
    for _ in range(3):
        User.objects.all().delete()
        one, other = AdminFactory(), AdminFactory()
        outcomes = behind_a_rival(
            [demote(api.as_(one), other), demote(api.as_(other), one)],
            rival=lambda: list(User.objects.select_for_update()),
        )
        responses = [outcome.value for outcome in outcomes]
        assert Counter(response.status_code for response in responses) == {200: 1, 409: 1}
        [refused] = [response for response in responses if response.status_code == 409]
        problem(refused, 409, "last_admin")
        assert User.objects.all().active_admins().count() == 1


def test_if_five_admins_demote_themselves_at_once_one_stays_admin(transactional_db, api):
    admins = [AdminFactory() for _ in range(5)]
    leave = [demote(api.as_(user), user) for user in admins]
    outcomes = at_once(leave)
    assert Counter(outcome.value.status_code for outcome in outcomes) == {200: 4, 409: 1}
    assert User.objects.all().active_admins().count() == 1


def test_without_the_lock_two_admins_race(transactional_db):
    """Control: if both requests count the admins before one is demoted, no admin is left."""
    both_have_counted = threading.Barrier(2, timeout=10)
    one, other = AdminFactory(), AdminFactory()

    def naive(user):
        def call():
            assert User.objects.all().active_admins().count() > 1
            both_have_counted.wait()
            User.objects.filter(pk=user.pk).update(role="user")

        return call

    outcomes = at_once([naive(one), naive(other)])
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert User.objects.all().active_admins().count() == 0


# --- the first admin --------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_EMAIL", "Root@Example.com")
    monkeypatch.setenv("DJANGO_SUPERUSER_NAME", "Root")
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "correct horse battery")


def test_the_first_admin_is_created_from_the_environment(api, environment):
    output = StringIO()
    call_command("createsuperuser", interactive=False, stdout=output)
    assert "Superuser created" in output.getvalue()
    root = User.objects.get()
    assert (root.email, root.name, root.role) == ("root@example.com", "Root", "admin")
    assert root.is_active
    assert root.is_staff
    assert root.is_superuser
    response = api.post("/auth/login", {"email": "root@example.com", "password": PASSWORD})
    assert response.json()["role"] == "admin"
    assert Client().login(username="Root@Example.com", password=PASSWORD)


def test_creating_the_first_admin_twice_fails_with_the_reason(environment):
    call_command("createsuperuser", interactive=False, stdout=StringIO())
    with pytest.raises(CommandError, match="already taken"):
        call_command("createsuperuser", interactive=False)
    assert User.objects.count() == 1


def test_the_first_admin_needs_an_email_address_and_a_name(environment, monkeypatch):
    for name in ("EMAIL", "NAME"):
        with monkeypatch.context() as patch:
            patch.delenv(f"DJANGO_SUPERUSER_{name}")
            with pytest.raises(CommandError, match=name.lower()):
                call_command("createsuperuser", interactive=False)
    assert not User.objects.exists()
