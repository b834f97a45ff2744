"""All sessions of an account end when its password hash or role changes, or it is deactivated."""

import getpass

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher, make_password
from django.core.management import call_command
from django.db import OperationalError, connection, transaction
from django.test import Client
from django.test.utils import override_settings
from django.urls import reverse
from django.utils.timezone import now

from accounts.models import User, UserQuerySet
from accounts.sessions.models import Session
from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory, staff
from accounts.tests.hashing import while_a_password_is_hashed
from accounts.tests.signing_in import log_in, refresh
from bookit.tests.crowd import at_once, behind_a_rival, run
from bookit.tests.expect import problem

pytestmark = pytest.mark.django_db

BETTER = "another good password"


def sign_in_to_admin_site(user):
    """Return a browser that is signed in to the admin site."""
    browser = Client()
    form = {"username": user.email, "password": PASSWORD}
    assert browser.post("/admin/login/?next=/admin/", form).status_code == 302
    return browser


# --- ways to change a hash or a role ----------------------------------------------------------


def through_the_api(user, api, monkeypatch):
    body = {"current_password": PASSWORD, "new_password": BETTER}
    assert api.as_(user).post("/me/password", body).status_code == 204


def by_an_admin_in_the_admin_site(user, api, monkeypatch):
    page = reverse("admin:auth_user_password_change", args=[user.pk])
    form = {"password1": BETTER, "password2": BETTER, "usable_password": "true"}
    assert sign_in_to_admin_site(AdminFactory()).post(page, form).status_code == 302


def by_an_admin_who_disables_the_password(user, api, monkeypatch):
    page = reverse("admin:auth_user_password_change", args=[user.pk])
    form = {"usable_password": "false", "unset-password": "1"}
    assert sign_in_to_admin_site(AdminFactory()).post(page, form).status_code == 302


def by_the_user_in_the_admin_site(user, api, monkeypatch):
    form = {"old_password": PASSWORD, "new_password1": BETTER, "new_password2": BETTER}
    assert sign_in_to_admin_site(user).post("/admin/password_change/", form).status_code == 302


def with_the_command(user, api, monkeypatch):
    monkeypatch.setattr(getpass, "getpass", lambda prompt: BETTER)
    call_command("changepassword", user.email, verbosity=0)


def by_saving_the_user(user, api, monkeypatch):
    user.set_password(BETTER)
    user.save()


def by_a_bulk_update(user, api, monkeypatch):
    User.objects.update(password=make_password(BETTER))


def by_a_change_of_the_role(user, api, monkeypatch):
    User.objects.filter(pk=user.pk).update(role="provider")


def in_sql(user, api, monkeypatch):
    run("UPDATE accounts_user SET password = 'x' WHERE email = %s", [user.email])


def by_a_hash_upgrade_at_sign_in_to_the_admin_site(user, api, monkeypatch):
    """Change the hash but not the password. The trigger compares only hashes."""
    monkeypatch.setattr(PBKDF2PasswordHasher, "iterations", 1)
    hashers = [f"django.contrib.auth.hashers.{name}PasswordHasher" for name in ("PBKDF2", "MD5")]
    with override_settings(PASSWORD_HASHERS=hashers):
        sign_in_to_admin_site(user)
    user.refresh_from_db()
    assert user.password.startswith("pbkdf2")


WAYS = [
    through_the_api,
    by_an_admin_in_the_admin_site,
    by_an_admin_who_disables_the_password,
    by_the_user_in_the_admin_site,
    with_the_command,
    by_saving_the_user,
    by_a_bulk_update,
    in_sql,
    by_a_change_of_the_role,
    by_a_hash_upgrade_at_sign_in_to_the_admin_site,
]


@pytest.mark.parametrize("change", WAYS)
def test_a_change_of_the_hash_or_the_role_ends_every_session(api, monkeypatch, change):
    user = AdminFactory()
    first, second = (log_in(api, user).json() for _ in range(2))
    following = refresh(api, second).json()
    change(user, api, monkeypatch)
    # `second` is last, because a second use of its token ends the session in any case.
    for session in (first, following, second):
        problem(refresh(api, session), 401, "token_invalid")


@pytest.mark.parametrize("change", WAYS)
def test_without_the_trigger_sessions_survive(api, monkeypatch, change):
    """Control for the test above: without the trigger, no change ends a session."""
    run("ALTER TABLE accounts_user DISABLE TRIGGER user_sessions_end")
    user = AdminFactory()
    session = log_in(api, user).json()
    change(user, api, monkeypatch)
    assert refresh(api, session).status_code == 200


def test_changes_of_other_fields_or_other_users_end_no_session(api):
    user, stranger = AdminFactory(), UserFactory()
    session, theirs = log_in(api, user).json(), log_in(api, stranger).json()
    through_the_api(stranger, api, None)
    problem(refresh(api, theirs), 401, "token_invalid")
    session = refresh(api, session).json()
    changes = {"phone": "+351 1234", "name": "B", "timezone": "Asia/Tokyo"}
    assert api.as_(user).patch("/me", changes).status_code == 200
    session = refresh(api, session).json()
    sign_in_to_admin_site(user)  # stores the time of the last login
    User.objects.filter(pk=user.pk).update(email="new@example.com")
    run("UPDATE accounts_user SET password = password, is_active = is_active, role = role")
    assert refresh(api, session).status_code == 200


def test_a_session_that_ended_earlier_keeps_the_time_of_its_end(api):
    user = UserFactory()
    session = log_in(api, user).json()
    api.post("/auth/logout", {"refresh_token": session["refresh_token"]})
    ended = Session.objects.get().revoked_at
    by_saving_the_user(user, api, None)
    assert Session.objects.get().revoked_at == ended


@pytest.mark.parametrize("change", [through_the_api, by_saving_the_user, by_a_bulk_update, in_sql])
def test_a_change_of_the_hash_ends_sessions_of_the_admin_site_too(api, monkeypatch, change):
    user = AdminFactory()
    browser = sign_in_to_admin_site(user)
    assert browser.get("/admin/").status_code == 200
    change(user, api, monkeypatch)
    assert browser.get("/admin/")["Location"] == "/admin/login/?next=/admin/"


def deactivate_and_reactivate(user):
    User.objects.filter(pk=user.pk).update(is_active=False)
    User.objects.filter(pk=user.pk).update(is_active=True)


def demote_and_promote(user):
    User.objects.filter(pk=user.pk).update(role="user")
    User.objects.filter(pk=user.pk).update(role="admin")


def end_in_sql(user):
    run("UPDATE accounts_session SET revoked_at = now()")


@pytest.mark.parametrize("end", [deactivate_and_reactivate, demote_and_promote, end_in_sql])
def test_a_session_of_the_admin_site_that_has_ended_never_works_again(end):
    user = AdminFactory()
    browser = sign_in_to_admin_site(user)
    assert browser.get("/admin/").status_code == 200
    end(user)
    assert browser.get("/admin/")["Location"] == "/admin/login/?next=/admin/"
    form = {"username": user.email, "password": PASSWORD}
    assert browser.post("/admin/login/?next=/admin/", form).status_code == 302
    assert browser.get("/admin/").status_code == 200


def test_a_session_of_the_admin_site_can_be_ended_by_a_former_member_of_the_staff(api):
    user = staff(["bookings.view_booking"])
    browser = sign_in_to_admin_site(user)
    groups = [*user.groups.all()]
    user.groups.clear()
    assert api.as_(user).delete(f"/me/sessions/{Session.objects.get().pk}").status_code == 204
    user.groups.set(groups)
    assert browser.get("/admin/")["Location"] == "/admin/login/?next=/admin/"


def test_a_password_change_in_the_admin_site_keeps_only_its_own_browser_signed_in(api):
    user = AdminFactory()
    browser, other = sign_in_to_admin_site(user), sign_in_to_admin_site(user)
    form = {"old_password": PASSWORD, "new_password1": BETTER, "new_password2": BETTER}
    assert browser.post("/admin/password_change/", form).status_code == 302
    assert browser.get("/admin/").status_code == 200
    assert other.get("/admin/").status_code == 302
    [row] = api.as_(user).get("/me/sessions").json()["results"]
    assert api.as_(user).delete(f"/me/sessions/{row['id']}").status_code == 204
    assert browser.get("/admin/").status_code == 302


@pytest.mark.parametrize("is_own", [True, False])
def test_a_new_password_in_the_admin_site_undoes_no_other_change_of_the_account(
    monkeypatch, is_own
):
    user = AdminFactory()
    browser = sign_in_to_admin_site(user if is_own else AdminFactory())
    page = reverse("admin:auth_user_password_change", args=[user.pk])
    form = {"password1": BETTER, "password2": BETTER, "usable_password": "true"}
    if is_own:
        page = "/admin/password_change/"
        form = {"old_password": PASSWORD, "new_password1": BETTER, "new_password2": BETTER}
    changes = {"is_active": False, "role": "user", "name": "Former admin"}
    change = User.objects.filter(pk=user.pk).update
    while_a_password_is_hashed(monkeypatch, lambda: change(**changes))
    assert browser.post(page, form).status_code == 302
    user.refresh_from_db()
    assert {name: getattr(user, name) for name in changes} == changes
    assert user.check_password(BETTER)


def test_a_session_that_ends_while_its_user_changes_the_password_in_it_stays_ended(monkeypatch):
    user = AdminFactory()
    browser = sign_in_to_admin_site(user)
    form = {"old_password": PASSWORD, "new_password1": BETTER, "new_password2": BETTER}
    end = Session.objects.filter(user=user).update
    while_a_password_is_hashed(monkeypatch, lambda: end(revoked_at=now()))
    assert browser.post("/admin/password_change/", form).status_code == 302
    assert open_sessions(user) == 0
    assert browser.get("/admin/").status_code == 302


def test_the_admin_site_does_not_replace_a_password_that_was_changed_meanwhile(monkeypatch):
    user = AdminFactory()
    browser = sign_in_to_admin_site(user)
    form = {"old_password": PASSWORD, "new_password1": BETTER, "new_password2": BETTER}
    changed = make_password("the password of the other change")
    while_a_password_is_hashed(monkeypatch, lambda: User.objects.update(password=changed))
    response = browser.post("/admin/password_change/", form)
    assert "This is not your current password." in response.content.decode()
    user.refresh_from_db()
    assert user.password == changed
    assert browser.get("/admin/").status_code == 302


def test_admins_who_set_their_own_password_are_asked_for_the_current_one():
    user = AdminFactory()
    page = reverse("admin:auth_user_password_change", args=[user.pk])
    browser = sign_in_to_admin_site(user)
    form = {"password1": BETTER, "password2": BETTER, "usable_password": "true"}
    assert browser.post(page, form)["Location"] == "/admin/password_change/"
    assert 'name="old_password"' in browser.get("/admin/password_change/").content.decode()
    user.refresh_from_db()
    assert user.check_password(PASSWORD)


def test_sessions_ended_by_a_deactivation_in_sql_stay_ended_after_a_reactivation(api):
    user = UserFactory()
    session = log_in(api, user).json()
    run("UPDATE accounts_user SET is_active = false")
    run("UPDATE accounts_user SET is_active = true")
    problem(refresh(api, session), 401, "token_invalid")
    assert log_in(api, user).status_code == 200


# --- concurrent requests ----------------------------------------------------------------------


def change_password(user):
    User.objects.filter(pk=user.pk).update(password=make_password(BETTER))


def refreshes_and_logins(api, user):
    """Return four calls that refresh a token and four calls that log in, to run in threads."""
    sessions = [log_in(api, user).json()["refresh_token"] for _ in range(4)]

    def post(path, body):
        return lambda: Client().post(path, body, content_type="application/json")

    return [
        *(post("/auth/refresh", {"refresh_token": token}) for token in sessions),
        *[post("/auth/login", {"email": user.email, "password": PASSWORD})] * 4,
    ]


def open_sessions(user):
    return Session.objects.filter(user=user, revoked_at=None).count()


def test_no_session_survives_a_concurrent_change_of_the_password(transactional_db, api):
    statuses = set()
    # Run at least 18 rounds, in which the change has each of its nine places twice. Stop once some
    # requests came before a change and some came after a change.
    for number in range(200):
        if number >= 18 and statuses == {200, 401}:
            break
        user = UserFactory()
        calls = refreshes_and_logins(api, user)
        # In each round, the change has another place among the calls, so that their order varies.
        at = number % (len(calls) + 1)
        calls.insert(at, lambda user=user: through_the_api(user, api, None))
        outcomes = at_once(calls)
        assert [outcome.error for outcome in outcomes] == [None] * len(calls)
        statuses |= {outcome.value.status_code for outcome in outcomes if outcome.value}
        assert open_sessions(user) == 0
    assert statuses == {200, 401}, "all requests came before a change, or all came after a change"


def test_no_session_survives_if_a_change_and_a_refresh_wait_for_the_same_row(transactional_db, api):
    """The change and the refresh wait for a row that a rival has locked, and continue together."""
    for _ in range(5):
        user = UserFactory()
        refresh_call = refreshes_and_logins(api, user)[0]
        outcomes = behind_a_rival(
            [lambda user=user: change_password(user), refresh_call],
            rival=lambda user=user: list(Session.objects.select_for_update().filter(user=user)),
        )
        assert [outcome.error for outcome in outcomes] == [None, None]
        assert open_sessions(user) == 0


def test_without_the_trigger_a_login_survives_a_change_in_two_steps(api):
    """Control: if sessions end before the hash changes, a login between the two steps survives."""
    run("ALTER TABLE accounts_user DISABLE TRIGGER user_sessions_end")
    user = UserFactory()
    log_in(api, user)
    Session.objects.filter(user=user).update(revoked_at=now())
    assert log_in(api, user).status_code == 200
    change_password(user)
    assert open_sessions(user) == 1


def test_a_login_while_a_server_is_down_waits_for_a_change(transactional_db, api, monkeypatch):
    """If a server of a distributed database is down, the time of a login is not stored.

    Even then, a login must not survive a change that began earlier.
    """
    user = UserFactory()

    def fail(rows, **fields):
        raise OperationalError

    monkeypatch.setattr(UserQuerySet, "update", fail)
    monkeypatch.setattr("accounts.sessions.services.is_server_down", lambda error: True)
    assert log_in(api, user).status_code == 200
    set_password = "UPDATE accounts_user SET password = 'x' WHERE id = %s"

    [outcome] = behind_a_rival(
        [lambda: log_in(api, user)],
        rival=lambda: run(set_password, [user.pk]),
        end=transaction.commit,
    )

    problem(outcome.value, 401, "invalid_credentials")
    assert open_sessions(user) == 0


def test_a_change_that_is_rolled_back_ends_no_session(transactional_db, api):
    user = UserFactory()
    session = log_in(api, user).json()
    with transaction.atomic():
        change_password(user)
        transaction.set_rollback(True)
    assert refresh(api, session).status_code == 200


def test_sessions_have_an_index_on_the_user_for_the_trigger():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_indexes WHERE tablename = 'accounts_session'"
            " AND indexdef LIKE '%(user_id)%'"
        )
        [(indexes,)] = cursor.fetchall()
    assert indexes == 1
