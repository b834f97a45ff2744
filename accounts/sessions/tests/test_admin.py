"""The admin pages of sessions, where an admin ends somebody's session, and of their tokens."""

from uuid import uuid4

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken

from accounts.sessions import services as sessions
from accounts.sessions.models import Session
from accounts.sessions.tokens import TokenInvalid
from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory, staff
from bookit.errors import Forbidden
from bookit.tests.plans import planning_without

pytestmark = pytest.mark.django_db


def page(kind, *args):
    return reverse(f"admin:accounts_session_{kind}", args=args)


def sign_in(user):
    return sessions.log_in(
        email=user.email,
        password=PASSWORD,
        client=sessions.Client("192.0.2.1", "a browser"),
        at=timezone.now(),
    )


@pytest.fixture
def site(client):
    client.force_login(AdminFactory())
    return client


def test_an_admin_ends_the_session_of_a_user(site):
    user = UserFactory()
    signed_in = sign_in(user)
    session = Session.objects.get(user=user)
    assert "192.0.2.1" in site.get(page("change", session.pk)).content.decode()
    response = site.post(page("act", session.pk, "end"), follow=True)
    assert "1 session ended." in response.content.decode()
    with pytest.raises(TokenInvalid):
        sessions.refresh(refresh_token=signed_in.refresh_token, at=timezone.now())
    assert page("act", session.pk, "end") not in response.content.decode()


def test_ending_a_session_of_the_admin_site_signs_its_browser_out(site):
    other, browser = AdminFactory(), Client()
    browser.post("/admin/login/", {"username": other.email, "password": PASSWORD})
    assert browser.get("/admin/").status_code == 200
    site.post(page("act", Session.objects.get(user=other).pk, "end"))
    assert browser.get("/admin/").status_code == 302


@pytest.mark.parametrize("ended", [{"revoked_at": timezone.now()}, {"expires_at": timezone.now()}])
def test_a_session_that_has_ended_cannot_be_ended_again(site, ended):
    user = UserFactory()
    sign_in(user)
    Session.objects.filter(user=user).update(**ended)
    session = Session.objects.get(user=user)
    response = site.post(page("act", session.pk, "end"), follow=True)
    assert "This session has ended already." in response.content.decode()


def test_only_admins_end_the_sessions_of_others():
    user = UserFactory()
    sign_in(user)
    session = Session.objects.get(user=user)
    helper = staff(["accounts.view_user", "accounts.change_user"])
    with pytest.raises(Forbidden):
        sessions.end_any_session(session_id=session.pk, actor=helper, at=timezone.now())
    client = Client()
    client.force_login(helper)
    assert client.post(page("act", session.pk, "end")).status_code == 403
    assert sessions.sessions_of(user=user, at=timezone.now()).exists()


@pytest.mark.parametrize(
    ("agent", "shown"),
    [
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
        ("Mozilla/5.0 (Linux; Android) Chrome/140.0 Safari/537.36 EdgA/140.0", "Edge on Android"),
        ("Mozilla/5.0 (iPhone; like Mac OS X) EdgiOS/140.0 Safari/604.1", "Edge on iPhone"),
        ("Mozilla/5.0 (iPhone; like Mac OS X) Version/18.5 Safari/604.1", "Safari on iPhone"),
        ("Mozilla/5.0 (Android 15; Mobile) Gecko/140.0 Firefox/140.0", "Firefox on Android"),
        ("curl/8.5.0", "curl/8.5.0"),
    ],
)
def test_the_list_of_sessions_names_browsers(site, agent, shown):
    user = UserFactory()
    sign_in(user)
    Session.objects.filter(user=user).update(client=agent)
    assert shown in site.get(page("changelist")).content.decode()


def store_used_token(user):
    """Store a refresh token of the user as used, and return the row that marks it as used."""
    token = OutstandingToken.objects.create(
        user=user, jti=uuid4().hex, token="", expires_at=timezone.now()
    )
    return BlacklistedToken.objects.create(token=token)


def found(site, model, words):
    view = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
    return [*site.get(reverse(view), {"q": words}).context["cl"].result_list]


def test_a_search_finds_sessions_by_a_part_of_the_email_address_or_by_the_ip_address(site):
    ada, grace = UserFactory(email="ada@example.com"), UserFactory(email="grace@example.org")
    sign_in(ada)
    sign_in(grace)
    Session.objects.filter(user=grace).update(address="2001:db8::7")
    for words in ("ADA@", "da@example", " ada@ ", "192.0.2.1"):
        assert [each.user for each in found(site, Session, words)] == [ada], words
    for words in ("grace@example.org", "2001:db8::7", "2001:0DB8:0::7"):
        assert [each.user for each in found(site, Session, words)] == [grace], words
    for words in ("nobody", "192.0.2.2", "2001:db8::8"):
        assert found(site, Session, words) == []


def test_a_search_finds_tokens_by_a_part_of_the_email_address_or_by_their_id(site):
    ada, grace = UserFactory(email="ada@example.com"), UserFactory(email="grace@example.org")
    used, other = store_used_token(ada), store_used_token(grace)
    for words in ("ada@", used.token.jti):
        assert found(site, OutstandingToken, words) == [used.token]
        assert found(site, BlacklistedToken, words) == [used]
    assert {*found(site, BlacklistedToken, "@example")} == {used, other}
    assert found(site, OutstandingToken, used.token.jti[:9]) == []


@pytest.mark.parametrize("model", [Session, OutstandingToken, BlacklistedToken])
def test_a_search_for_a_user_does_not_read_all_rows(model):
    for _ in range(3):
        sign_in(UserFactory())
        store_used_token(UserFactory())
    for condition in admin.site._registry[model].search_conditions(None, "ada"):
        # With few rows, PostgreSQL would rather read whole tables, or whole indexes in their order.
        with planning_without("seqscan", "indexscan", "indexonlyscan"):
            plan = model.objects.filter(condition).explain()
        assert "Seq Scan" not in plan
        # The email addresses are searched through their index, not compared row by row.
        assert "Filter: (upper" not in plan
