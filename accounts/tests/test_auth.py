"""Registering, signing in and signing out."""

import time
from collections import Counter
from datetime import timedelta

import pytest
import time_machine
from django.contrib.auth.hashers import make_password
from django.db import connection
from django.test import Client
from django.utils.timezone import now

from accounts import services
from accounts.hashers import Argon2idPasswordHasher
from accounts.models import Session, User
from accounts.tests.factories import PASSWORD, UserFactory
from bookit.tests.crowd import at_once, starting_line, tally
from bookit.tests.expect import problem

pytestmark = pytest.mark.django_db

NEW = {"name": "Ada", "email": "ada@example.com", "password": PASSWORD}
SESSION = [
    "id",
    "name",
    "email",
    "email_verified",
    "phone",
    "role",
    "roles",
    "timezone",
    "language",
    "is_active",
    "metadata",
    "created_at",
    "updated_at",
    "access_token",
    "refresh_token",
    "token_type",
    "expires_in",
]


def log_in(api, user, password=PASSWORD):
    return api.post("/auth/login", {"email": user.email, "password": password})


def me(api, access_token):
    return api.get("/me", headers={"authorization": f"Bearer {access_token}"})


# --- register ---------------------------------------------------------------------------------


def test_registering_returns_a_session(api):
    response = api.post("/auth/register", {**NEW, "timezone": "Europe/Paris"})
    assert response.status_code == 201
    assert response["Location"] == "http://testserver/me"
    session = response.json()
    assert list(session) == SESSION
    assert (session["name"], session["email"]) == ("Ada", "ada@example.com")
    assert (session["role"], session["timezone"]) == ("user", "Europe/Paris")
    assert session["is_active"] is True
    assert (session["token_type"], session["expires_in"]) == ("Bearer", 15 * 60)
    profile = me(api, session["access_token"]).json()
    assert profile == {name: session[name] for name in SESSION[:13]}
    assert api.post("/auth/refresh", {"refresh_token": session["refresh_token"]}).status_code == 200


def test_a_new_account_has_the_role_user_whatever_role_is_requested(api):
    response = api.post("/auth/register", {**NEW, "role": "admin", "is_active": False})
    assert response.json()["role"] == "user"
    assert User.objects.get().role == "user"
    for name in ("is_staff", "is_superuser", "groups", "user_permissions"):
        again = {**NEW, "email": f"{name}@example.com", name: True}
        problem(api.post("/auth/register", again), 400, "validation_error", name)


def test_an_email_address_is_stored_in_lower_case(api):
    response = api.post("/auth/register", {**NEW, "email": "  Ada.Lovelace@Example.COM "})
    assert response.json()["email"] == "ada.lovelace@example.com"
    assert User.objects.get().email == "ada.lovelace@example.com"


@pytest.mark.parametrize("email", ["ada@example.com", "ADA@example.com", "ada@EXAMPLE.com"])
def test_an_email_address_is_taken_regardless_of_its_case(api, email):
    UserFactory(email="ada@example.com")
    problem(api.post("/auth/register", {**NEW, "email": email}), 409, "email_taken")
    assert User.objects.count() == 1


def test_the_email_address_of_an_inactive_account_is_taken_too(api):
    UserFactory(email=NEW["email"], is_active=False)
    problem(api.post("/auth/register", NEW), 409, "email_taken")


def test_an_email_address_whose_domain_has_non_ascii_letters_can_be_registered(api):
    for email in ("x@bücher.example", "x@ΣΊΣΥΦΟΣ.example", "x@İSTANBUL.example"):
        response = api.post("/auth/register", {**NEW, "email": email})
        assert response.status_code == 201, (email, response.content)
        problem(api.post("/auth/register", {**NEW, "email": email}), 409, "email_taken")


def test_a_capital_letter_that_python_does_not_know_causes_no_server_error(api):
    """PostgreSQL 18 knows the lower case of these letters, but Python 3.11 does not."""
    for capital in "\u1c89\ua7cb":
        response = api.post("/auth/register", {**NEW, "email": f"x@{capital}.example"})
        if response.status_code != 201:
            problem(response, 400, "validation_error", "email")
    user = UserFactory()
    response = api.as_(user).patch("/me", {"email": "x@\u1c89.example"})
    if response.status_code != 200:
        problem(response, 400, "validation_error", "email")


def test_one_of_ten_concurrent_registrations_of_an_email_address_succeeds(transactional_db):
    def register(number):
        email = NEW["email"] if number % 2 else NEW["email"].upper()
        return lambda: Client().post(
            "/auth/register", {**NEW, "email": email}, content_type="application/json"
        )

    outcomes = at_once([register(number) for number in range(10)])
    assert [outcome.error for outcome in outcomes] == [None] * 10
    assert Counter(outcome.value.status_code for outcome in outcomes) == {201: 1, 409: 9}
    for outcome in outcomes:
        if outcome.value.status_code == 409:
            problem(outcome.value, 409, "email_taken")
    assert User.objects.count() == Session.objects.count() == 1


def test_without_the_constraint_concurrent_registrations_race(transactional_db):
    """Control for the test above: all ten find the email address free before any is stored."""

    def register():
        services.register(**NEW, client=services.Client(), at=now())

    unique = next(each for each in User._meta.constraints if each.name == "user_email_unique")
    with connection.schema_editor() as editor:
        editor.remove_constraint(User, unique)
    try:
        with starting_line("accounts_user") as from_the_line:
            assert tally(from_the_line([register] * 10)) == {None: 10}
        assert User.objects.filter(email=NEW["email"]).count() == 10
    finally:
        User.objects.all().delete()
        with connection.schema_editor() as editor:
            editor.add_constraint(User, unique)


@pytest.mark.parametrize(
    "password",
    [
        "short",
        "1234567890",
        "password",
        "qwertyuiop",
        "ada@example.com",
        "ADA@EXAMPLE.COM",
        "adaexample",
        "",
        " " * 3,
    ],
)
def test_a_weak_password_is_a_400(api, password):
    response = api.post("/auth/register", {**NEW, "name": "Adaexample", "password": password})
    problem(response, 400, "validation_error", "password")
    assert not User.objects.exists()


def test_a_password_may_have_at_most_128_characters(api):
    longest = ("correct horse " * 10)[:128]
    assert api.post("/auth/register", {**NEW, "password": longest}).status_code == 201
    assert log_in(api, User.objects.get(), longest).status_code == 200
    for length in (129, 100_000):
        again = {**NEW, "email": "b@example.com", "password": "x" * length}
        problem(api.post("/auth/register", again), 400, "validation_error", "password")
        response = log_in(api, User.objects.get(), "x" * length)
        problem(response, 400, "validation_error", "password")


def test_a_password_is_not_trimmed_or_changed(api):
    password = "  blanks and ünïcödé 💈 are kept  "
    assert api.post("/auth/register", {**NEW, "password": password}).status_code == 201
    assert log_in(api, User.objects.get(), password).status_code == 200
    problem(log_in(api, User.objects.get(), password.strip()), 401, "invalid_credentials")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "ada"),
        ("email", "ada@"),
        ("email", "@example.com"),
        ("email", "ada@example"),
        ("email", "a b@example.com"),
        ("email", "ada@example.com\nBcc: eve@example.com"),
        ("email", "x" * 250 + "@example.com"),
        ("email", ""),
        ("email", None),
        ("email", 5),
        ("email", ["ada@example.com"]),
        ("name", ""),
        ("name", "   "),
        ("name", "x" * 201),
        ("name", None),
        ("name", {}),
        ("name", "A\x00da"),
        ("password", None),
        ("password", ["correct horse battery"]),
        ("password", "correct\x00horse battery"),
        ("timezone", "Mars/Olympus"),
        ("timezone", "x" * 65),
        ("timezone", ""),
        ("timezone", None),
    ],
)
def test_an_invalid_value_is_refused_and_its_field_is_named(api, field, value):
    problem(api.post("/auth/register", {**NEW, field: value}), 400, "validation_error", field)
    assert not User.objects.exists()


def test_registering_and_logging_in_ignore_an_invalid_token(api):
    api.credentials(HTTP_AUTHORIZATION="Bearer expired-long-ago")
    assert api.post("/auth/register", NEW).status_code == 201
    assert log_in(api, User.objects.get()).status_code == 200


@time_machine.travel(now(), tick=False)
def test_registering_and_logging_in_set_last_login_but_a_login_keeps_updated_at(api):
    api.post("/auth/register", NEW)
    user = User.objects.get()
    assert user.last_login == user.updated_at == now()
    with time_machine.travel(now() + timedelta(hours=1), tick=False):
        assert log_in(api, user, "wrong horse battery").status_code == 401
        assert User.objects.get().last_login == user.last_login
        assert log_in(api, user).status_code == 200
        assert User.objects.get().last_login == now()
    assert User.objects.get().updated_at == user.updated_at


# --- how passwords are stored -----------------------------------------------------------------


@pytest.mark.real_passwords
def test_passwords_are_stored_as_argon2id_and_never_returned(api):
    made = api.post("/auth/register", NEW)
    assert made.status_code == 201
    stored = User.objects.get().password
    assert stored.startswith("argon2$argon2id$v=19$m=19456,t=2,p=1$")
    hashed = stored.rsplit("$", 1)[1]
    responses = [made, log_in(api, User.objects.get()), me(api, made.json()["access_token"])]
    for response in responses:
        assert response.status_code in (200, 201)
        assert PASSWORD.encode() not in response.content
        assert hashed.encode() not in response.content
        assert "password" not in response.json()


@pytest.mark.real_passwords
def test_equal_passwords_have_different_hashes():
    assert UserFactory().password != UserFactory().password


# --- log in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("spell", [str, str.upper, str.title, lambda email: f" {email} "])
def test_logging_in_ignores_the_case_of_the_email_address_and_spaces_around_it(api, spell):
    user = UserFactory(email="ada@example.com")
    response = api.post("/auth/login", {"email": spell(user.email), "password": PASSWORD})
    assert response.status_code == 200
    assert list(response.json()) == SESSION
    assert response.json()["id"] == str(user.pk)
    assert me(api, response.json()["access_token"]).json()["id"] == str(user.pk)


def test_every_login_starts_a_new_session(api):
    user = UserFactory()
    at = now().replace(microsecond=0)
    with time_machine.travel(at, tick=False):
        for name in ("Firefox", "curl"):
            response = api.post(
                "/auth/login",
                {"email": user.email, "password": PASSWORD},
                headers={"user-agent": name},
                REMOTE_ADDR="192.0.2.7",
            )
            assert response.status_code == 200
    first, second = Session.objects.order_by("id")
    assert first.pk != second.pk
    assert [first.client, second.client] == ["Firefox", "curl"]
    assert first.address == "192.0.2.7"
    assert first.user == user
    assert first.created_at == first.last_used_at == at
    assert first.expires_at == at + timedelta(days=7)


@pytest.mark.parametrize(
    ("address", "stored"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("unknown", None),
        ("192.0.2.7:5123", "192.0.2.7"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", None),
        ("x" * 500, None),
    ],
)
def test_signing_in_works_with_any_client_address(api, settings, address, stored):
    settings.NUM_PROXIES = 1
    user = UserFactory()
    response = api.post(
        "/auth/login",
        {"email": user.email, "password": PASSWORD},
        headers={"x-forwarded-for": address},
        REMOTE_ADDR="",
    )
    assert response.status_code == 200, response.content
    assert Session.objects.get().address == stored


def test_a_long_user_agent_is_truncated(api):
    user = UserFactory()
    response = api.post(
        "/auth/login",
        {"email": user.email, "password": PASSWORD},
        headers={"user-agent": "x" * 8000},
    )
    assert response.status_code == 200
    assert Session.objects.get().client == "x" * 300


def refusals():
    """Return the bodies of refused logins, keyed by the reason for the refusal."""
    user = UserFactory()
    return {
        "unknown": {"email": "nobody@example.com", "password": PASSWORD},
        "wrong": {"email": user.email, "password": "not the password"},
        "inactive": {"email": UserFactory(is_active=False).email, "password": PASSWORD},
        "unusable": {"email": UserFactory(password=None).email, "password": PASSWORD},
        "no address": {"email": "nobody", "password": PASSWORD},
    }


def test_every_refused_login_gets_the_same_response(api, django_assert_num_queries):
    seen = set()
    for reason, body in refusals().items():
        # The first query reads the account. The second one checks whether anybody has signed in to
        # the account from this network.
        with django_assert_num_queries(2):
            response = api.post("/auth/login", body, headers={"x-request-id": "same"})
        problem(response, 401, "invalid_credentials")
        seen.add((response.content, tuple(sorted(response.headers.items()))))
        assert len(seen) == 1, reason
    assert not Session.objects.exists()


@pytest.mark.real_passwords
def test_every_refused_login_does_the_same_work(api, monkeypatch):
    bodies = refusals()
    done = []

    def counted(name):
        original = getattr(Argon2idPasswordHasher, name)

        def call(self, *args, **kwargs):
            done.append(name)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(Argon2idPasswordHasher, name, call)

    counted("encode")
    counted("verify")
    for reason, body in bodies.items():
        done.clear()
        assert api.post("/auth/login", body).status_code == 401
        assert len(done) == 1, (reason, done)


@pytest.mark.real_passwords
def test_every_refused_login_takes_about_the_same_cpu_time(api):
    """CPU time is measured: it depends less on the load of the machine than elapsed time."""

    def seconds(body):
        began = time.process_time()
        assert api.post("/auth/login", body).status_code == 401
        return time.process_time() - began

    bodies = refusals()
    rounds = [{reason: seconds(body) for reason, body in bodies.items()} for _ in range(7)]
    # The quickest run is the one that other processes have disturbed least.
    quickest = {reason: min(durations[reason] for durations in rounds) for reason in bodies}
    assert max(quickest.values()) < 1.5 * min(quickest.values()), quickest
    # Control: hashing takes most of the time.
    began = time.process_time()
    make_password(PASSWORD)
    assert time.process_time() - began > 0.5 * min(quickest.values())


def test_a_login_needs_both_fields(api):
    problem(api.post("/auth/login", {}), 400, "validation_error", "email", "password")
    problem(
        api.post("/auth/login", {"email": "a@example.com"}), 400, "validation_error", "password"
    )
    problem(api.post("/auth/login", {"password": "x"}), 400, "validation_error", "email")


def during_the_password_check(monkeypatch, change):
    """Make every password check call `change` before it returns."""
    check = services.check_password

    def check_and_change(*args, **kwargs):
        result = check(*args, **kwargs)
        change()
        return result

    monkeypatch.setattr(services, "check_password", check_and_change)


def test_a_login_is_refused_if_the_password_changes_during_the_check(api, monkeypatch):
    user = UserFactory()

    def change():
        changed = User.objects.get(pk=user.pk)
        changed.set_password("another good password")
        changed.save()

    during_the_password_check(monkeypatch, change)
    problem(log_in(api, user), 401, "invalid_credentials")
    assert not Session.objects.filter(revoked_at=None).exists()


def test_a_login_is_refused_if_the_account_is_deactivated_during_the_check(api, monkeypatch):
    user = UserFactory()
    during_the_password_check(monkeypatch, lambda: User.objects.update(is_active=False))
    problem(log_in(api, user), 401, "invalid_credentials")
    assert not Session.objects.exists()


# --- log out ----------------------------------------------------------------------------------


def test_logging_out_revokes_all_refresh_tokens_of_the_session(api):
    user = UserFactory()
    first = log_in(api, user).json()["refresh_token"]
    second = api.post("/auth/refresh", {"refresh_token": first}).json()["refresh_token"]
    other = log_in(api, user).json()["refresh_token"]
    response = api.post("/auth/logout", {"refresh_token": second})
    assert (response.status_code, response.content) == (204, b"")
    for token in (first, second):
        problem(api.post("/auth/refresh", {"refresh_token": token}), 401, "token_invalid")
    assert api.post("/auth/refresh", {"refresh_token": other}).status_code == 200


def test_logging_out_with_a_used_token_revokes_the_tokens_that_followed_it(api):
    first = log_in(api, UserFactory()).json()["refresh_token"]
    second = api.post("/auth/refresh", {"refresh_token": first}).json()["refresh_token"]
    assert api.post("/auth/logout", {"refresh_token": first}).status_code == 204
    problem(api.post("/auth/refresh", {"refresh_token": second}), 401, "token_invalid")


def test_logging_out_twice_is_a_401(api):
    token = log_in(api, UserFactory()).json()["refresh_token"]
    assert api.post("/auth/logout", {"refresh_token": token}).status_code == 204
    problem(api.post("/auth/logout", {"refresh_token": token}), 401, "token_invalid")


def test_logging_out_a_deactivated_user_is_a_401(api):
    user = UserFactory()
    token = log_in(api, user).json()["refresh_token"]
    User.objects.update(is_active=False)
    problem(api.post("/auth/logout", {"refresh_token": token}), 401, "token_invalid")


@pytest.mark.parametrize("path", ["/auth/refresh", "/auth/logout"])
def test_the_refresh_token_is_required_and_must_be_text(api, path):
    for body in ({}, {"refresh_token": ""}, {"refresh_token": None}, {"refresh_token": ["x"]}):
        problem(api.post(path, body), 400, "validation_error", "refresh_token")
    problem(api.post(path, {"refresh_token": "x" * 5000}), 400, "validation_error", "refresh_token")
