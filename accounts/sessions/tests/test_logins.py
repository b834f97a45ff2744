"""Signing in and signing out."""

import time
from datetime import timedelta

import pytest
import time_machine
from django.contrib.auth.hashers import PBKDF2PasswordHasher, make_password
from django.db import OperationalError
from django.test import Client
from django.utils.timezone import now

from accounts.hashers import Argon2idPasswordHasher
from accounts.models import User, UserQuerySet
from accounts.sessions import services as sessions
from accounts.sessions.models import Session
from accounts.sessions.serializers import SessionSerializer
from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory
from accounts.tests.signing_in import log_in, me
from bookit.tests.expect import problem

pytestmark = pytest.mark.django_db


# --- log in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("spell", [str, str.upper, str.title, lambda email: f" {email} "])
def test_logging_in_ignores_the_case_of_the_email_address_and_spaces_around_it(api, spell):
    user = UserFactory(email="ada@example.com")
    response = api.post("/auth/login", {"email": spell(user.email), "password": PASSWORD})
    assert response.status_code == 200
    assert list(response.json()) == SessionSerializer.Meta.fields
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
        "malformed": {"email": "nobody", "password": PASSWORD},
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
    """Call `change` at the end of every password check."""
    check = sessions.check_password

    def check_and_change(*args, **kwargs):
        result = check(*args, **kwargs)
        change()
        return result

    monkeypatch.setattr(sessions, "check_password", check_and_change)


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


# --- hashes with outdated parameters ----------------------------------------------------------


def through_the_api(api, user):
    return log_in(api, user).status_code == 200


def in_the_admin_site(api, user):
    form = {"username": user.email, "password": PASSWORD}
    return Client().post("/admin/login/?next=/admin/", form).status_code == 302


both_ways_to_sign_in = pytest.mark.parametrize("signs_in", [through_the_api, in_the_admin_site])


@pytest.fixture
def admin(settings, monkeypatch):
    """Return an admin whose password has a hash that is outdated."""
    admin = AdminFactory()
    monkeypatch.setattr(PBKDF2PasswordHasher, "iterations", 1)
    preferred = "django.contrib.auth.hashers.PBKDF2PasswordHasher"
    settings.PASSWORD_HASHERS = [preferred, *settings.PASSWORD_HASHERS]
    return admin


def stored_hash(user):
    return User.objects.get(pk=user.pk).password


def while_a_hash_is_made(monkeypatch, change):
    """Call `change` before the next password is hashed."""
    make = sessions.make_password

    def change_and_make(password):
        monkeypatch.setattr(sessions, "make_password", make)
        change()
        return make(password)

    monkeypatch.setattr(sessions, "make_password", change_and_make)


@both_ways_to_sign_in
def test_signing_in_replaces_an_outdated_hash(api, admin, signs_in):
    old = stored_hash(admin)
    assert signs_in(api, admin)
    new = stored_hash(admin)
    assert (old.startswith("md5"), new.startswith("pbkdf2")) == (True, True)
    assert signs_in(api, admin)
    assert stored_hash(admin) == new
    assert Session.objects.filter(revoked_at=None).count() == 2


@pytest.mark.parametrize("refused", [{"is_active": False}, {"password": "wrong"}])
def test_a_refused_login_keeps_an_outdated_hash(api, admin, refused):
    User.objects.update(is_active=refused.get("is_active", True))
    old = stored_hash(admin)
    login = log_in(api, admin, refused.get("password", PASSWORD))
    problem(login, 401, "invalid_credentials")
    assert stored_hash(admin) == old


@both_ways_to_sign_in
def test_two_logins_at_once_with_an_outdated_hash_both_succeed(api, admin, signs_in, monkeypatch):
    while_a_hash_is_made(monkeypatch, lambda: log_in(api, admin))
    assert signs_in(api, admin)
    assert Session.objects.filter(revoked_at=None).count() == 2


@both_ways_to_sign_in
def test_a_new_hash_does_not_bring_back_a_password_that_was_changed_meanwhile(
    api, admin, signs_in, monkeypatch
):
    changed = make_password("another good password")
    while_a_hash_is_made(monkeypatch, lambda: User.objects.update(password=changed))
    assert not signs_in(api, admin)
    assert stored_hash(admin) == changed
    assert not Session.objects.filter(revoked_at=None).exists()


@both_ways_to_sign_in
def test_signing_in_keeps_an_outdated_hash_while_a_server_is_down(
    api, admin, signs_in, monkeypatch
):
    """While a server of a distributed database is down, users can sign in but not be changed."""
    old = stored_hash(admin)

    def fail(*args, **kwargs):
        raise OperationalError

    monkeypatch.setattr(UserQuerySet, "update", fail)
    monkeypatch.setattr(User, "save", fail)
    # Control: after an error with another cause, the login fails.
    problem(log_in(api, admin), 503, "service_unavailable")
    monkeypatch.setattr(sessions, "is_server_down", lambda error: True)
    assert signs_in(api, admin)
    assert stored_hash(admin) == old


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
def test_the_refresh_token_is_required_and_must_be_text_of_limited_length(api, path):
    for body in ({}, {"refresh_token": ""}, {"refresh_token": None}, {"refresh_token": ["x"]}):
        problem(api.post(path, body), 400, "validation_error", "refresh_token")
    problem(api.post(path, {"refresh_token": "x" * 5000}), 400, "validation_error", "refresh_token")
