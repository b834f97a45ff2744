"""The user's own profile and password."""

import re
from collections import Counter

import pytest
from django.core import mail
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts import services
from accounts.models import User
from accounts.sessions import services as sessions
from accounts.sessions.models import Session
from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory
from accounts.tests.signing_in import log_in
from bookings.tests.jobs import work
from bookit.tests.crowd import at_once
from bookit.tests.expect import problem

pytestmark = pytest.mark.django_db

FIELDS = [
    *("id", "name", "email", "email_verified", "phone", "role", "roles"),
    *("timezone", "language", "is_active", "metadata", "created_at", "updated_at"),
]
BETTER = "another good password"


@pytest.fixture
def user():
    return UserFactory(name="Ada", email="ada@example.com")


@pytest.fixture
def me(api, user):
    return api.as_(user)


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
        "email_verified": False,
        "phone": "",
        "role": "user",
        "roles": [],
        "timezone": "UTC",
        "language": "en",
        "is_active": True,
        "metadata": {},
        "created_at": response.json()["created_at"],
        "updated_at": response.json()["updated_at"],
    }


def test_the_name_phone_number_time_zone_and_language_can_be_changed(me):
    changes = {
        "name": "Countess",
        "phone": "+44 20 7946 0000",
        "timezone": "Europe/London",
        "language": "en-GB",
    }
    before = me.get("/me").json()
    response = me.patch("/me", changes)
    assert response.status_code == 200
    after = response.json()
    assert after == me.get("/me").json() == {**before, **changes, "updated_at": after["updated_at"]}


@pytest.mark.parametrize("field", ["name", "phone", "timezone", "language"])
def test_a_change_of_one_field_does_not_change_other_fields(me, field):
    value = {"name": "B", "phone": "+351 1234", "timezone": "Asia/Tokyo", "language": "ja"}[field]
    before = me.get("/me").json()
    after = me.patch("/me", {field: value}).json()
    assert after == {**before, field: value, "updated_at": after["updated_at"]}


def test_a_phone_number_can_be_removed(me):
    me.patch("/me", {"phone": "+351 1234"})
    assert me.patch("/me", {"phone": ""}).json()["phone"] == ""


# --- a new email address ----------------------------------------------------------------------

NEW = {"email": "New@Example.com", "current_password": PASSWORD}


def send_emails_and_read_tokens():
    """Send the waiting emails. Return the token in the last email to each email address."""
    work()
    found = {
        message.to[0]: re.search(r"Code: (\S+)", message.body).group(1)
        for message in mail.outbox
        if "Code:" in message.body
    }
    mail.outbox.clear()
    return found


def verify(api, token):
    return api.post("/auth/verify-email", {"token": token})


def test_a_new_email_address_takes_effect_once_it_is_verified(api, me, user):
    before = me.get("/me").json()
    response = me.patch("/me", {**NEW, "name": "Countess"})
    assert response.status_code == 200
    after = response.json()
    assert after == {**before, "name": "Countess", "updated_at": after["updated_at"]}
    assert log_in(api, user).status_code == 200
    found = send_emails_and_read_tokens()
    assert found.keys() == {"new@example.com"}
    assert verify(api, found["new@example.com"]).status_code == 204
    profile = me.get("/me").json()
    assert (profile["email"], profile["email_verified"]) == ("new@example.com", True)
    assert log_in(api, User(email="NEW@example.com")).status_code == 200
    problem(log_in(api, user), 401, "invalid_credentials")


def test_the_old_address_is_notified_of_the_request_and_of_the_change(api, me):
    me.patch("/me", NEW)
    work()
    token = re.search(r"Code: (\S+)", mail.outbox[0].body).group(1)
    [notice] = [each for each in mail.outbox if each.to == ["ada@example.com"]]
    assert notice.subject == "Your email address is about to change"
    assert token not in notice.body
    mail.outbox.clear()
    verify(api, token)
    work()
    [notice] = mail.outbox
    assert (notice.to, notice.subject) == (
        ["ada@example.com"],
        "Your email address has changed",
    )


def test_a_new_email_address_requires_the_password(me, user):
    for body in ({}, {"current_password": "wrong"}):
        response = me.patch("/me", {"name": "Eve", "email": "new@example.com", **body})
        problem(response, 400, "validation_error", "current_password")
    user.refresh_from_db()
    assert (user.name, user.new_email) == ("Ada", "")
    work()
    assert mail.outbox == []


def test_wrong_passwords_for_a_new_email_address_are_limited(me, settings):
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "password": "2/hour"}
    for _ in range(2):
        me.patch("/me", {**NEW, "current_password": "wrong"})
    problem(me.patch("/me", NEW), 429, "throttled")


def test_the_email_address_of_another_account_is_a_409(me, user):
    UserFactory(email="taken@example.com")
    for email in ("taken@example.com", "TAKEN@example.com"):
        problem(me.patch("/me", {**NEW, "email": email, "name": "Eve"}), 409, "email_taken")
    user.refresh_from_db()
    assert (user.email, user.new_email, user.name) == ("ada@example.com", "", "Ada")


def test_sending_the_whole_profile_back_does_not_cancel_a_change_of_the_address(api, me):
    me.patch("/me", NEW)
    found = send_emails_and_read_tokens()
    profile = me.get("/me").json()
    for email in ("ada@example.com", "ADA@example.com"):
        body = {**profile, "email": email, "name": "Countess"}
        assert me.patch("/me", body).status_code == 200
    assert verify(api, found["new@example.com"]).status_code == 204
    assert me.get("/me").json()["email"] == "new@example.com"


def test_the_current_email_address_and_the_password_cancel_a_change(api, me):
    me.patch("/me", NEW)
    found = send_emails_and_read_tokens()
    body = {"email": "ADA@example.com", "current_password": "wrong"}
    problem(me.patch("/me", body), 400, "validation_error", "current_password")
    body["current_password"] = NEW["current_password"]
    assert me.patch("/me", body).status_code == 200
    problem(verify(api, found["new@example.com"]), 401, "token_invalid")
    assert me.get("/me").json()["email"] == "ada@example.com"


def test_only_the_last_new_address_can_be_verified(api, me):
    for email in ("first@example.com", "second@example.com"):
        me.patch("/me", {**NEW, "email": email})
    found = send_emails_and_read_tokens()
    assert found.keys() == {"second@example.com"}  # a newer change has replaced the first
    me.patch("/me", {**NEW, "email": "third@example.com"})
    problem(verify(api, found["second@example.com"]), 401, "token_invalid")


def test_a_changed_password_cancels_the_change_of_the_address(api, me, user):
    """A thief who knew the password must not get the account back by verifying the new address."""
    me.patch("/me", NEW)
    found = send_emails_and_read_tokens()
    assert change(me).status_code == 204
    problem(verify(api, found["new@example.com"]), 401, "token_invalid")
    user.refresh_from_db()
    assert user.new_email == ""
    me.post("/auth/verify-email/resend")
    assert send_emails_and_read_tokens().keys() == {"ada@example.com"}


def test_a_new_address_is_refused_if_the_password_changes_during_the_check(user, monkeypatch):
    check = services.check_password

    def check_and_change(*args):
        result = check(*args)
        other = User.objects.get(pk=user.pk)
        other.set_password(BETTER)
        other.save()
        return result

    monkeypatch.setattr(services, "check_password", check_and_change)
    with CaptureQueriesContext(connection) as queries, pytest.raises(services.Invalid):
        services.update_profile(user=user, changes={**NEW}, client=sessions.Client())
    assert any(query["sql"].endswith("FOR NO KEY UPDATE") for query in queries)
    user.refresh_from_db()
    assert user.new_email == ""
    work()
    assert mail.outbox == []


def test_verifying_an_address_that_another_account_has_taken_is_a_409(api, me):
    me.patch("/me", NEW)
    found = send_emails_and_read_tokens()
    UserFactory(email="new@example.com")
    problem(verify(api, found["new@example.com"]), 409, "email_taken")
    assert me.get("/me").json()["email"] == "ada@example.com"


def test_one_of_five_concurrent_verifications_of_an_address_succeeds(transactional_db, api):
    found = []
    for _ in range(5):
        api.as_(UserFactory()).patch("/me", NEW)
        found.append(send_emails_and_read_tokens()["new@example.com"])
    calls = [
        lambda token=token: Client().post(
            "/auth/verify-email", {"token": token}, content_type="application/json"
        )
        for token in found
    ]
    outcomes = at_once(calls)
    assert Counter(outcome.value.status_code for outcome in outcomes) == {204: 1, 409: 4}
    assert User.objects.filter(email="new@example.com", email_verified=True).count() == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", None),
        ("name", "x" * 201),
        ("name", "\x00"),
        ("name", {"first": "Ada"}),
        ("email", "nonsense"),
        ("email", "ada@customer.invalid"),
        ("email", ""),
        ("email", None),
        ("email", "a@example.com, b@example.com"),
        ("email", "x" * 250 + "@example.com"),
        ("phone", "call me"),
        ("phone", "+351 912\n345"),
        ("phone", "1" * 33),
        ("phone", "+"),
        ("phone", None),
        ("language", "english"),
        ("language", "en_GB"),
        ("language", "en\n-GB"),
        ("language", ""),
        ("language", None),
        ("timezone", "Mars/Olympus"),
        ("timezone", ""),
        ("timezone", None),
        ("timezone", "../../etc/passwd"),
        ("password", BETTER),
        ("is_superuser", True),
    ],
)
def test_an_invalid_value_or_an_unknown_field_is_refused_and_named(me, field, value):
    before = me.get("/me").json()
    problem(me.patch("/me", {field: value}), 400, "validation_error", field)
    assert me.get("/me").json() == before


def test_users_cannot_make_themselves_admins(me, user):
    response = me.patch("/me", {"role": "admin", "is_active": False, "id": str(AdminFactory().pk)})
    assert response.status_code == 200
    user.refresh_from_db()
    assert (user.role, user.is_active) == ("user", True)


def test_the_profile_takes_one_query_to_read_and_five_to_change(me, django_assert_num_queries):
    me.get("/me")
    with django_assert_num_queries(1):
        me.get("/me")
    with django_assert_num_queries(1):
        me.patch("/me", {})
    # The queries read the user, set a savepoint, make the change, read the time of the change, and
    # release the savepoint.
    with django_assert_num_queries(5):
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
    # `first` comes last, because its second use would end the session of `second`, too.
    for session in (third, second, first):
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


def test_the_current_password_is_checked_first(me, settings):
    """A request with a weak new password also counts as a guess at the current password."""
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "password": "2/hour"}
    for _ in range(2):
        refusal = change(me, current="wrong", new="short")
        problem(refusal, 400, "validation_error", "current_password")
    problem(change(me), 429, "throttled")


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


def test_a_password_change_is_refused_if_another_change_happens_during_the_check(
    api, user, monkeypatch
):
    log_in(api, user)
    assert Session.objects.filter(revoked_at=None).exists()
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
            user=user, current_password=PASSWORD, new_password=BETTER, client=sessions.Client()
        )
    user.refresh_from_db()
    assert user.check_password("the password of the other change")
    assert not Session.objects.filter(revoked_at=None).exists()
