"""The user's own profile and password."""

from collections import Counter

import pytest
from django.test import Client

from accounts import services
from accounts.models import Session, User
from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory
from bookit.tests.crowd import at_once
from bookit.tests.expect import problem

pytestmark = pytest.mark.django_db

FIELDS = ["id", "name", "email", "role", "timezone", "is_active", "created_at"]
BETTER = "another good password"


@pytest.fixture
def user():
    return UserFactory(name="Ada", email="ada@example.com")


@pytest.fixture
def me(api, user):
    return api.as_(user)


def log_in(api, user, password=PASSWORD):
    return api.post("/auth/login", {"email": user.email, "password": password})


def change(client, current=PASSWORD, new=BETTER):
    return client.post("/me/password", {"current_password": current, "new_password": new})


# --- profile ----------------------------------------------------------------------------------


def test_the_profile_shows_the_signed_in_user(me, user):
    response = me.get("/me")
    assert response.status_code == 200
    assert list(response.json()) == FIELDS
    assert response.json() == {
        "id": str(user.pk),
        "name": "Ada",
        "email": "ada@example.com",
        "role": "user",
        "timezone": "UTC",
        "is_active": True,
        "created_at": me.get("/me").json()["created_at"],
    }


def test_the_name_email_address_and_time_zone_can_be_changed(me, user):
    changes = {"name": "Countess", "email": "Lovelace@Example.com", "timezone": "Europe/London"}
    response = me.patch("/me", changes)
    assert response.status_code == 200
    assert response.json() == {**me.get("/me").json()}
    assert {name: response.json()[name] for name in changes} == {
        **changes,
        "email": "lovelace@example.com",
    }
    user.refresh_from_db()
    assert user.email == "lovelace@example.com"


def test_a_user_signs_in_with_the_new_email_address(api, me):
    assert me.patch("/me", {"email": "new@example.com"}).status_code == 200
    assert log_in(api, User(email="NEW@example.com")).status_code == 200
    problem(log_in(api, User(email="ada@example.com")), 401, "invalid_credentials")


@pytest.mark.parametrize("field", ["name", "email", "timezone"])
def test_a_change_of_one_field_does_not_change_other_fields(me, user, field):
    value = {"name": "B", "email": "b@example.com", "timezone": "Asia/Tokyo"}[field]
    before = me.get("/me").json()
    assert me.patch("/me", {field: value}).json() == {**before, field: value}


def test_the_email_address_of_another_account_is_a_409(me, user):
    UserFactory(email="taken@example.com")
    for email in ("taken@example.com", "TAKEN@example.com"):
        problem(me.patch("/me", {"email": email}), 409, "email_taken")
        problem(me.patch("/me", {"email": email, "name": "Eve"}), 409, "email_taken")
    user.refresh_from_db()
    assert (user.email, user.name) == ("ada@example.com", "Ada")


def test_the_users_own_email_address_does_not_count_as_taken(me):
    assert me.patch("/me", {"email": "ADA@example.com"}).status_code == 200


def test_one_of_ten_concurrent_changes_to_the_same_email_address_succeeds(transactional_db, api):
    clients = [api.as_(UserFactory()) for _ in range(10)]
    outcomes = at_once(
        [
            lambda client=client: client.patch("/me", {"email": "a@example.com"})
            for client in clients
        ]
    )
    assert Counter(outcome.value.status_code for outcome in outcomes) == {200: 1, 409: 9}
    assert User.objects.filter(email="a@example.com").count() == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", None),
        ("name", "x" * 201),
        ("name", "\x00"),
        ("name", {"first": "Ada"}),
        ("email", "nonsense"),
        ("email", ""),
        ("email", None),
        ("email", "a@example.com, b@example.com"),
        ("email", "x" * 250 + "@example.com"),
        ("timezone", "Mars/Olympus"),
        ("timezone", ""),
        ("timezone", None),
        ("timezone", "../../etc/passwd"),
        ("password", BETTER),
        ("is_superuser", True),
    ],
)
def test_an_invalid_value_is_refused_and_its_field_is_named(me, field, value):
    before = me.get("/me").json()
    problem(me.patch("/me", {field: value}), 400, "validation_error", field)
    assert me.get("/me").json() == before


def test_users_cannot_make_themselves_admins(me, user):
    response = me.patch("/me", {"role": "admin", "is_active": False, "id": str(AdminFactory().pk)})
    assert response.status_code == 200
    user.refresh_from_db()
    assert (user.role, user.is_active) == ("user", True)


def test_showing_the_profile_needs_only_the_query_for_the_user(me, django_assert_num_queries):
    me.get("/me")
    with django_assert_num_queries(1):
        me.get("/me")
    with django_assert_num_queries(1):
        me.patch("/me", {})
    # The queries are the user, a savepoint, the change, and the release of the savepoint.
    with django_assert_num_queries(4):
        me.patch("/me", {"name": "B"})


# --- password ---------------------------------------------------------------------------------


def test_a_new_password_replaces_the_old_one(api, me, user):
    response = change(me)
    assert (response.status_code, response.content) == (204, b"")
    problem(log_in(api, user), 401, "invalid_credentials")
    assert log_in(api, user, BETTER).status_code == 200


@pytest.mark.real_passwords
def test_a_new_password_is_stored_as_argon2id(me, user):
    assert change(me).status_code == 204
    user.refresh_from_db()
    assert user.password.startswith("argon2$argon2id$")


def test_a_new_password_revokes_all_refresh_tokens(api, me, user):
    first = log_in(api, user).json()
    second = api.post("/auth/refresh", {"refresh_token": first["refresh_token"]}).json()
    third = log_in(api, user).json()
    stranger = log_in(api, UserFactory()).json()
    assert change(me).status_code == 204
    for session in (first, second, third):
        response = api.post("/auth/refresh", {"refresh_token": session["refresh_token"]})
        problem(response, 401, "token_invalid")
    response = api.post("/auth/refresh", {"refresh_token": stranger["refresh_token"]})
    assert response.status_code == 200


def test_a_wrong_current_password_changes_nothing(api, me, user):
    session = log_in(api, user).json()
    for wrong in ("wrong", PASSWORD.upper(), PASSWORD + " "):
        problem(change(me, current=wrong), 400, "validation_error", "current_password")
    assert log_in(api, user).status_code == 200
    response = api.post("/auth/refresh", {"refresh_token": session["refresh_token"]})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "weak",
    ["short", "password", "1234567890", "ada@example.com", "x" * 129, "x" * 100_000, "\x00" * 9],
)
def test_a_weak_new_password_is_a_400(api, me, user, weak):
    problem(change(me, new=weak), 400, "validation_error", "new_password")
    assert log_in(api, user).status_code == 200


def test_both_passwords_are_needed(me):
    response = me.post("/me/password", {})
    problem(response, 400, "validation_error", "current_password", "new_password")


def test_the_current_password_is_checked_first(me):
    """So a request with a weak new password also counts as a guess at the current password."""
    problem(change(me, current="wrong", new="short"), 400, "validation_error", "current_password")


def test_one_of_five_concurrent_password_changes_succeeds(transactional_db, api):
    user = UserFactory()
    header = api.as_(user)._credentials

    def change_to(number):
        return lambda: Client().post(
            "/me/password",
            {"current_password": PASSWORD, "new_password": f"good password number {number}"},
            content_type="application/json",
            **header,
        )

    outcomes = at_once([change_to(number) for number in range(5)])
    assert Counter(outcome.value.status_code for outcome in outcomes) == {204: 1, 400: 4}
    winner = [outcome.value.status_code for outcome in outcomes].index(204)
    assert log_in(api, user, f"good password number {winner}").status_code == 200


def test_a_password_change_is_refused_if_another_change_happens_during_the_check(user, monkeypatch):
    check = services.check_password

    def check_and_change(*args):
        result = check(*args)
        other = User.objects.get(pk=user.pk)
        other.set_password("the password of the other change")
        other.save()
        return result

    monkeypatch.setattr(services, "check_password", check_and_change)
    with pytest.raises(services.Invalid):
        services.change_password(
            user=user, current_password=PASSWORD, new_password=BETTER, client=services.Client()
        )
    user.refresh_from_db()
    assert user.check_password("the password of the other change")
    assert not Session.objects.exists()
