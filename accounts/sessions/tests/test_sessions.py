"""Users see where they are signed in, and end single sessions."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.test import Client

from accounts.sessions.models import Session
from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory
from accounts.tests.signing_in import refresh
from bookit.tests.expect import problem

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)


@pytest.fixture(autouse=True)
def clock():
    with time_machine.travel(NOW, tick=False) as clock:
        yield clock


def log_in(api, user, browser="Firefox"):
    return api.post(
        "/auth/login",
        {"email": user.email, "password": PASSWORD},
        headers={"user-agent": browser},
        REMOTE_ADDR="192.0.2.7",
    ).json()


def signed_in(api, session):
    api.credentials(HTTP_AUTHORIZATION=f"Bearer {session['access_token']}")
    return api


def sign_in_to_admin_site(user):
    browser = Client(REMOTE_ADDR="192.0.2.8", headers={"user-agent": "Chromium"})
    form = {"username": user.email, "password": PASSWORD}
    assert browser.post("/admin/login/?next=/admin/", form).status_code == 302
    return browser


def test_a_user_sees_where_they_are_signed_in(api, clock, django_assert_num_queries):
    user = UserFactory()
    log_in(api, UserFactory())
    first = log_in(api, user)
    clock.move_to(NOW + timedelta(minutes=5))
    second = log_in(api, user, "curl")
    clock.move_to(NOW + timedelta(minutes=10))
    first = refresh(api, first).json()
    with django_assert_num_queries(2):  # the signed-in user, and the page
        listed = signed_in(api, first).get("/me/sessions").json()
    assert listed["count"] == 2
    ids = [str(session.pk) for session in Session.objects.filter(user=user).order_by("id")]
    assert listed["results"] == [
        {
            "id": ids[0],
            "created_at": "2026-11-21T09:00:00Z",
            "last_used_at": "2026-11-21T09:10:00Z",
            "address": "192.0.2.7",
            "client": "Firefox",
            "current": True,
        },
        {
            "id": ids[1],
            "created_at": "2026-11-21T09:05:00Z",
            "last_used_at": "2026-11-21T09:05:00Z",
            "address": "192.0.2.7",
            "client": "curl",
            "current": False,
        },
    ]
    rows = signed_in(api, second).get("/me/sessions").json()["results"]
    assert [row["current"] for row in rows] == [False, True]


def test_requests_do_not_change_the_session(api, clock):
    session = log_in(api, UserFactory())
    before = Session.objects.values().get()
    clock.move_to(NOW + timedelta(minutes=5))
    assert signed_in(api, session).get("/me").status_code == 200
    assert Session.objects.values().get() == before


def test_sessions_that_have_ended_are_not_listed(api, clock):
    user = UserFactory()
    log_in(api, user)
    out = log_in(api, user)
    api.post("/auth/logout", {"refresh_token": out["refresh_token"]})
    assert api.as_(user).get("/me/sessions").json()["count"] == 1
    clock.move_to(NOW + timedelta(days=8))  # A session lasts seven days after its last refresh.
    assert api.as_(user).get("/me/sessions").json()["results"] == []


def test_a_session_that_a_user_ends_cannot_be_refreshed(api):
    user = UserFactory()
    stolen, own = log_in(api, user), log_in(api, user)
    me = signed_in(api, own)
    [row] = [row for row in me.get("/me/sessions").json()["results"] if not row["current"]]
    response = me.delete(f"/me/sessions/{row['id']}")
    assert (response.status_code, response.content) == (204, b"")
    problem(refresh(api, stolen), 401, "token_invalid")
    assert refresh(api, own).status_code == 200
    problem(me.delete(f"/me/sessions/{row['id']}"), 404, "not_found")


def test_a_user_can_end_the_current_session(api):
    session = log_in(api, UserFactory())
    me = signed_in(api, session)
    assert me.delete(f"/me/sessions/{Session.objects.get().pk}").status_code == 204
    problem(refresh(api, session), 401, "token_invalid")


@pytest.mark.parametrize("kind", [UserFactory, AdminFactory])
def test_nobody_can_end_the_session_of_another_user_through_the_api(api, kind):
    session = log_in(api, UserFactory())
    stranger = api.as_(kind())
    problem(stranger.delete(f"/me/sessions/{Session.objects.get().pk}"), 404, "not_found")
    assert refresh(api, session).status_code == 200


def test_a_login_to_the_admin_site_creates_a_session_that_the_logout_ends():
    browser = sign_in_to_admin_site(AdminFactory())
    session = Session.objects.get()
    assert (session.address, session.client) == ("192.0.2.8", "Chromium")
    assert session.expires_at - session.created_at == timedelta(days=14)
    assert session.revoked_at is None
    browser.post("/admin/logout/")
    session.refresh_from_db()
    assert session.revoked_at == NOW


def test_a_session_of_the_admin_site_can_be_ended(api):
    admin = AdminFactory()
    browser, other = sign_in_to_admin_site(admin), sign_in_to_admin_site(admin)
    [row, _] = api.as_(admin).get("/me/sessions?ordering=created_at").json()["results"]
    assert row["client"] == "Chromium"
    assert browser.get("/admin/").status_code == other.get("/admin/").status_code == 200
    assert api.as_(admin).delete(f"/me/sessions/{row['id']}").status_code == 204
    assert browser.get("/admin/").status_code == 302
    assert other.get("/admin/").status_code == 200


@pytest.mark.parametrize("is_same_user", [True, False])
def test_a_second_login_in_a_browser_ends_the_first_session(is_same_user):
    first = AdminFactory()
    second = first if is_same_user else AdminFactory()
    browser = sign_in_to_admin_site(first)
    replaced = Session.objects.get()
    # A login that fails changes nothing.
    browser.post("/admin/login/", {"username": second.email, "password": "wrong"})
    assert Session.objects.get().revoked_at is None
    form = {"username": second.email, "password": PASSWORD}
    assert browser.post("/admin/login/?next=/admin/", form).status_code == 302
    replaced.refresh_from_db()
    assert replaced.revoked_at == NOW
    current = Session.objects.exclude(pk=replaced.pk).get()
    assert (current.user, current.revoked_at) == (second, None)


def test_sessions_can_be_ordered(api, clock):
    user = UserFactory()
    for minutes in (1, 3, 2):
        clock.move_to(NOW + timedelta(minutes=minutes))
        session = log_in(api, user)
    clock.move_to(NOW + timedelta(minutes=4))
    refresh(api, session)  # gives the two fields different orders
    for ordering in ("created_at", "last_used_at"):
        rows = api.as_(user).get(f"/me/sessions?ordering={ordering}").json()["results"]
        assert [row[ordering] for row in rows] == sorted(row[ordering] for row in rows)
