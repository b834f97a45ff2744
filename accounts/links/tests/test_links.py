"""Emails about accounts: when they are sent, what they say, and what the tokens in them can do."""

import logging
import re
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import time_machine
from django.conf import settings as django_settings
from django.core import mail
from django.core.mail import EmailMultiAlternatives
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils.translation import override
from procrastinate.contrib.django.models import ProcrastinateJob

from accounts.links.kinds import KINDS
from accounts.links.models import EmailedLink
from accounts.models import User
from accounts.sessions.models import Session
from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory
from accounts.tests.signing_in import log_in
from bookings.tests.jobs import work
from bookit.mails.models import MailCount
from bookit.ratelimits import counting
from bookit.tests.crowd import at_once, run, starting_line
from bookit.tests.expect import problem

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
NEW_PASSWORD = "another good password"


@pytest.fixture(autouse=True)
def frozen():
    with time_machine.travel(NOW, tick=False) as clock:
        yield clock


@pytest.fixture
def ana():
    return UserFactory(name="Ana", email="ana@example.com")


def sent():
    """Send the waiting emails, and return them."""
    work()
    messages = [*mail.outbox]
    mail.outbox.clear()
    return messages


def token_of(message):
    return re.search(r"Code: (\S+)", message.body).group(1)


def request_reset(api, email="ana@example.com"):
    """Request a password reset; return the emails that are sent."""
    response = api.post("/auth/password-reset", {"email": email})
    assert (response.status_code, response.content) == (202, b"")
    return sent()


def reset(api, token, password=NEW_PASSWORD):
    return api.post("/auth/password-reset/confirm", {"token": token, "password": password})


def verify(api, token):
    return api.post("/auth/verify-email", {"token": token})


# --- a new password ---------------------------------------------------------------------------


def test_a_forgotten_password_is_replaced_with_a_token_from_an_email(api, ana):
    [message] = request_reset(api, " ANA@Example.com ")
    assert (message.to, message.subject) == (["ana@example.com"], "Reset your password")
    response = reset(api, token_of(message))
    assert (response.status_code, response.content) == (204, b"")
    problem(log_in(api, ana), 401, "invalid_credentials")
    assert log_in(api, ana, NEW_PASSWORD).json()["email_verified"] is True


def test_a_reset_ends_all_sessions(api, ana):
    sessions = [log_in(api, ana).json() for _ in range(2)]
    reset(api, token_of(request_reset(api)[0]))
    for session in sessions:
        response = api.post("/auth/refresh", {"refresh_token": session["refresh_token"]})
        problem(response, 401, "token_invalid")
    assert not Session.objects.filter(revoked_at=None).exists()


def test_a_token_works_once_and_a_reset_revokes_all_others(api, ana):
    first, second = token_of(request_reset(api)[0]), token_of(request_reset(api)[0])
    assert first != second
    assert reset(api, first).status_code == 204
    for token in (first, second):
        problem(reset(api, token, "a third good password"), 401, "token_invalid")


def test_a_token_is_valid_for_an_hour(api, ana, frozen):
    token = token_of(request_reset(api)[0])
    frozen.move_to(NOW + timedelta(hours=1))
    problem(reset(api, token), 401, "token_invalid")
    frozen.move_to(NOW + timedelta(minutes=59, seconds=59))
    assert reset(api, token).status_code == 204


def test_a_weak_password_does_not_use_up_the_token(api, ana):
    token = token_of(request_reset(api)[0])
    for weak in ("short", "ana@example.com", "1234567890"):
        problem(reset(api, token, weak), 400, "validation_error", "password")
    assert reset(api, token).status_code == 204


@pytest.mark.parametrize("token", ["x", "x" * 43, "x" * 200, "ünï", "' OR 1=1 --"])
def test_a_made_up_token_returns_401(api, ana, token):
    request_reset(api)
    problem(reset(api, token), 401, "token_invalid")
    problem(verify(api, token), 401, "token_invalid")


@pytest.mark.parametrize(
    ("path", "body"),
    [("/auth/password-reset/confirm", {"password": NEW_PASSWORD}), ("/auth/verify-email", {})],
)
def test_a_malformed_token_returns_400(api, path, body):
    for token in (None, [], {}, "x" * 201, "a\0b", ""):
        response = api.post(path, {**body, "token": token})
        problem(response, 400, "validation_error", "token")


def test_a_token_cannot_be_used_for_another_purpose(api, ana):
    for_password = token_of(request_reset(api)[0])
    api.as_(ana).post("/auth/verify-email/resend")
    for_address = token_of(sent()[0])
    problem(verify(api, for_password), 401, "token_invalid")
    problem(reset(api, for_address), 401, "token_invalid")
    assert verify(api, for_address).status_code == 204
    assert reset(api, for_password).status_code == 204


@pytest.mark.parametrize(
    "change",
    [
        {"is_active": False},
        {"email": "new@example.com"},
        {"password": "x"},
    ],
)
def test_a_new_password_or_address_or_a_deactivation_revokes_the_tokens(api, ana, change):
    token = token_of(request_reset(api)[0])
    api.as_(ana).post("/auth/verify-email/resend")
    other = token_of(sent()[0])
    User.objects.filter(pk=ana.pk).update(**change)
    assert not EmailedLink.objects.exists()
    User.objects.filter(pk=ana.pk).update(is_active=True)
    problem(reset(api, token), 401, "token_invalid")
    problem(verify(api, other), 401, "token_invalid")


def test_without_the_trigger_a_token_survives_a_change_of_the_password(api, ana):
    """Control for the test above."""
    run("ALTER TABLE accounts_user DISABLE TRIGGER user_links_end")
    token = token_of(request_reset(api)[0])
    User.objects.filter(pk=ana.pk).update(password="x")
    assert reset(api, token).status_code == 204


def test_a_token_that_was_sent_to_an_earlier_address_is_refused(api, ana):
    """A worker can send such a token at the moment when the email address changes."""
    token = token_of(request_reset(api)[0])
    EmailedLink.objects.update(email="earlier@example.com")
    problem(reset(api, token), 401, "token_invalid")
    assert EmailedLink.objects.count() == 1


def test_one_of_five_concurrent_resets_with_one_token_succeeds(transactional_db, api):
    user = UserFactory(email="ana@example.com")
    token = token_of(request_reset(api)[0])

    def reset_to(number):
        body = {"token": token, "password": f"good password number {number}"}
        return lambda: Client().post(
            "/auth/password-reset/confirm", body, content_type="application/json"
        )

    outcomes = at_once([reset_to(number) for number in range(5)])
    statuses = [outcome.value.status_code for outcome in outcomes]
    assert Counter(statuses) == {204: 1, 401: 4}
    assert log_in(api, user, f"good password number {statuses.index(204)}").status_code == 200


def test_if_nothing_checks_that_the_link_still_exists_all_resets_succeed(
    transactional_db, api, monkeypatch
):
    """Control for the test above: neither `find` nor `use` notices that the link was used."""
    from accounts import services
    from accounts.links import services as links

    UserFactory(email="ana@example.com")
    token = token_of(request_reset(api)[0])
    found = links.find(token=token, kinds=[links.PASSWORD_RESET], at=NOW)
    monkeypatch.setattr(links, "find", lambda **options: found)
    monkeypatch.setattr(links, "use", lambda *, link: User.objects.get(pk=link.user_id))
    calls = [
        lambda number=number: services.reset_password(
            token=token, password=f"good password number {number}", at=NOW
        )
        for number in range(5)
    ]
    assert [outcome.error for outcome in at_once(calls)] == [None] * 5


def test_only_hashes_of_tokens_are_stored(api, ana):
    api.post("/auth/password-reset", {"email": ana.email})
    [job] = ProcrastinateJob.objects.all()
    assert job.args == {"kind": "password_reset", "email": ana.email, "user_id": None}
    token = token_of(sent()[0])
    assert len(token) >= 43  # 256 random bits in base64
    [row] = EmailedLink.objects.values()
    assert token not in str(row)
    assert token.encode() not in bytes(row["token_hash"])


# --- who has an account -----------------------------------------------------------------------


def strangers():
    """Return email addresses to which no email may be sent, by reason."""
    return {
        "unknown": "nobody@example.com",
        "inactive": UserFactory(is_active=False).email,
        "malformed": "nobody",
        "lookalike": "ana@ex\u00adample.com",
    }


def test_nobody_without_an_active_account_gets_an_email(api, ana):
    for email in strangers().values():
        assert request_reset(api, email) == []


def test_a_request_does_the_same_work_whether_or_not_there_is_an_account(api, ana):
    seen = []
    for email in (ana.email, *strangers().values()):
        with CaptureQueriesContext(connection) as queries:
            response = api.post(
                "/auth/password-reset", {"email": email}, headers={"x-request-id": "same"}
            )
        assert response.status_code == 202
        seen.append(
            (
                response.content,
                sorted(response.headers.items()),
                [re.sub(r"'[^']*'", "?", query["sql"]) for query in queries],
            )
        )
    assert seen == [seen[0]] * len(seen)
    assert len(seen[0][2]) == 1
    assert "accounts_user" not in seen[0][2][0]


def test_a_request_takes_the_same_time_whether_or_not_there_is_an_account(api, ana):
    """CPU time is measured: it depends less on the load of the machine than elapsed time does."""

    def seconds(email):
        began = time.process_time()
        for _ in range(10):
            api.post("/auth/password-reset", {"email": email})
        return time.process_time() - began

    rounds = [(seconds(ana.email), seconds("bob@example.com")) for _ in range(15)]
    known, unknown = (min(times) for times in zip(*rounds, strict=True))
    assert 0.7 < known / unknown < 1.4


def test_requests_are_limited_per_client(api, settings):
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "auth": "2/minute"}
    for path, body in (
        ("/auth/password-reset", {"email": "a@example.com"}),
        ("/auth/password-reset/confirm", {"token": "x", "password": NEW_PASSWORD}),
        ("/auth/verify-email", {"token": "x"}),
    ):
        counting.reset()
        for _ in range(2):
            assert api.post(path, body).status_code != 429
        problem(api.post(path, body), 429, "throttled")
        assert api.post(path, body, REMOTE_ADDR="192.0.2.7").status_code != 429


# --- how many emails --------------------------------------------------------------------------


def test_further_requests_add_no_email_while_one_is_waiting(api, ana):
    for _ in range(5):
        api.post("/auth/password-reset", {"email": ana.email})
    assert len(sent()) == 1


def test_concurrent_requests_for_one_email_succeed_and_send_it_once(transactional_db, api, ana):
    for post, body in (
        (partial(api.post, "/auth/password-reset"), {"email": ana.email}),
        (partial(api.as_(ana).post, "/auth/verify-email/resend"), {}),
    ):
        with starting_line("procrastinate_jobs") as start:
            outcomes = start([partial(post, body)] * 4)
        assert [outcome.value.status_code for outcome in outcomes] == [202] * 4
        assert len(sent()) == 1


def test_an_address_gets_at_most_ten_emails_of_each_kind_a_day(api, ana, frozen, caplog):
    with caplog.at_level(logging.WARNING, logger="bookit.mails.sending"):
        assert [len(request_reset(api)) for _ in range(12)] == [1] * 10 + [0] * 2
    assert {record.getMessage() for record in caplog.records} == {
        "mail withheld: the limit of its address has been reached"
    }
    assert ana.email not in str([vars(record) for record in caplog.records])
    assert "ana" not in MailCount.objects.get().subject
    # Each kind has its own limit: requests for one kind cannot prevent emails of another kind.
    api.as_(ana).post("/auth/verify-email/resend")
    assert len(sent()) == 1
    frozen.move_to(NOW + timedelta(days=1))
    assert len(request_reset(api)) == 1


def test_emails_that_the_server_refuses_do_not_count_towards_the_limit(api, ana, monkeypatch):
    from accounts.links import tasks

    def fail(*args, **kwargs):
        raise OSError

    with monkeypatch.context() as down:
        down.setattr(EmailMultiAlternatives, "send", fail)
        for _ in range(20):
            with pytest.raises(OSError):
                tasks.send_mail(kind="password_reset", email=ana.email, user_id=None)
    tasks.send_mail(kind="password_reset", email=ana.email, user_id=None)
    assert reset(api, token_of(mail.outbox[0])).status_code == 204


# --- what the emails say ----------------------------------------------------------------------


def test_an_email_links_to_the_page_of_the_front_end(api, ana, settings):
    settings.PASSWORD_RESET_URL = "https://app.example.com/reset?a=1&token={token}"
    [message] = request_reset(api)
    [token] = re.findall(r"https://app\.example\.com/reset\?a=1&token=(\S+)", message.body)
    html = message.alternatives[0].content
    assert f'href="https://app.example.com/reset?a=1&amp;token={token}"' in html
    assert "Code:" not in message.body
    assert reset(api, token).status_code == 204


def test_an_email_to_an_unverified_address_contains_nothing_that_a_user_wrote(api):
    body = {"name": "http://evil.example", "email": "ana@example.com", "password": PASSWORD}
    api.post("/auth/register", body)
    [verification] = sent()
    [message] = request_reset(api)
    for each in (verification, message):
        assert "evil" not in each.body + each.alternatives[0].content
    assert message.body.startswith("Hello,\n\nSomebody asked to reset the password")
    assert message.extra_headers["Auto-Submitted"] == "auto-generated"


def test_an_email_to_a_verified_address_has_the_name_on_one_line(api, ana):
    ana.name, ana.verified_email = "Ana\r\nBcc: evil@example.com <b>", ana.email
    ana.save()
    [message] = request_reset(api)
    assert message.body.startswith("Hello Ana Bcc: evil@example.com <b>,\n")
    assert "<b>" not in message.alternatives[0].content


# --- verification -----------------------------------------------------------------------------


def test_a_new_account_gets_an_email_that_verifies_its_address(api):
    body = {"name": "Ana", "email": "ana@example.com", "password": PASSWORD}
    session = api.post("/auth/register", body).json()
    assert session["email_verified"] is False
    [message] = sent()
    assert (message.to, message.subject) == (["ana@example.com"], "Verify your email address")
    response = verify(api, token_of(message))
    assert (response.status_code, response.content) == (204, b"")
    assert log_in(api, User.objects.get()).json()["email_verified"] is True
    problem(verify(api, token_of(message)), 401, "token_invalid")


def test_a_registration_that_is_refused_sends_no_email(api, ana):
    api.post("/auth/register", {"name": "Eve", "email": ana.email, "password": PASSWORD})
    assert sent() == []


def test_the_verification_email_can_be_sent_again_until_the_address_is_verified(api, ana):
    me = api.as_(ana)
    for _ in range(2):
        response = me.post("/auth/verify-email/resend")
        assert (response.status_code, response.content) == (202, b"")
        [message] = sent()
    assert verify(api, token_of(message)).status_code == 204
    assert me.post("/auth/verify-email/resend").status_code == 202
    assert sent() == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.lifetime])
def test_the_text_of_an_email_says_how_long_its_link_is_valid(kind):
    days = kind.lifetime.days
    assert kind.lifetime in (timedelta(days=days), timedelta(hours=1))
    assert (f" within {days} days" if days else " within an hour") in str(kind.lead)
    for language, _name in django_settings.LANGUAGES:
        with override(language):
            assert (str(days) in str(kind.lead)) == bool(days)


def test_a_verification_token_is_valid_for_three_days(api, ana, frozen):
    api.as_(ana).post("/auth/verify-email/resend")
    token = token_of(sent()[0])
    frozen.move_to(NOW + timedelta(days=3))
    problem(verify(api, token), 401, "token_invalid")
    frozen.move_to(NOW + timedelta(days=3, seconds=-1))
    assert verify(api, token).status_code == 204


def test_a_changed_email_address_is_not_verified(ana):
    User.objects.filter(pk=ana.pk).update(verified_email=ana.email)
    assert User.objects.get(pk=ana.pk).email_verified
    run("UPDATE accounts_user SET email = 'other@example.com'")
    assert not User.objects.get(pk=ana.pk).email_verified


def test_expired_tokens_are_deleted(api, ana, frozen):
    request_reset(api)
    frozen.move_to(NOW + timedelta(hours=2))
    request_reset(api)
    call_command("prune")
    assert EmailedLink.objects.get().created_at == NOW + timedelta(hours=2)


# --- invitations ------------------------------------------------------------------------------

RUI = {"name": "Rui", "email": "Rui@Example.com"}


@pytest.fixture
def admin(api):
    return api.as_(AdminFactory(name="Root", email="root@example.com"))


def test_an_account_that_an_admin_creates_gets_an_invitation(api, admin, frozen):
    response = admin.post("/users", {**RUI, "role": "provider", "phone": "+351 1234"})
    assert response.status_code == 201
    user = User.objects.get(email="rui@example.com")
    assert response["Location"] == f"http://testserver/users/{user.pk}"
    assert response.json() == admin.get(f"/users/{user.pk}").json()
    assert (response.json()["role"], response.json()["email_verified"]) == ("provider", False)
    assert user.calendars.exists()
    [message] = sent()
    assert (message.to, message.subject) == (["rui@example.com"], "Set your password")
    problem(log_in(api, user, ""), 400, "validation_error", "password")
    frozen.move_to(NOW + timedelta(days=6))
    assert reset(api, token_of(message)).status_code == 204
    assert log_in(api, user, NEW_PASSWORD).json()["email_verified"] is True


def test_an_invitation_is_valid_for_seven_days(api, admin, frozen):
    admin.post("/users", RUI)
    token = token_of(sent()[0])
    frozen.move_to(NOW + timedelta(days=7))
    problem(reset(api, token), 401, "token_invalid")
    # The account is not lost: its owner can request a password reset.
    [message] = request_reset(api, "rui@example.com")
    assert reset(api, token_of(message)).status_code == 204


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", None),
        ("email", "nonsense"),
        ("email", None),
        ("role", "emperor"),
        ("phone", "x"),
        ("language", "x"),
        ("timezone", "Mars/Olympus"),
        ("password", NEW_PASSWORD),
    ],
)
def test_an_invalid_value_or_an_unknown_field_is_refused_and_named(admin, field, value):
    problem(admin.post("/users", {**RUI, field: value}), 400, "validation_error", field)
    assert User.objects.count() == 1


def test_a_taken_email_address_returns_409(admin):
    UserFactory(email="rui@example.com")
    problem(admin.post("/users", RUI), 409, "email_taken")
    assert sent() == []


def test_requests_with_one_idempotency_key_create_one_account(admin):
    responses = [admin.post("/users", RUI, headers={"idempotency-key": "1"}) for _ in range(2)]
    assert [response.status_code for response in responses] == [201, 201]
    assert responses[1]["Idempotent-Replayed"] == "true"
    assert User.objects.count() == 2


# --- an account that somebody registered with another person's email address --------------------


def bearer(api, token):
    client = type(api)()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client


def test_the_owner_of_an_address_takes_over_an_account_that_somebody_else_registered(api):
    body = {"name": "Mallory", "email": "ana@example.com", "password": PASSWORD}
    registered = api.post("/auth/register", body).json()
    sent()
    mallory = bearer(api, registered["access_token"])
    key = bearer(api, mallory.post("/me/api-keys", {"name": "Later"}).json()["key"])
    feed = mallory.get("/me/calendar").json()["address"]
    assert (key.get("/bookings").status_code, api.get(feed).status_code) == (200, 200)
    assert [message.subject for message in sent()] == ["An API key was created"]
    [message] = request_reset(api)
    assert reset(api, token_of(message)).status_code == 204
    problem(
        api.post("/auth/refresh", {"refresh_token": registered["refresh_token"]}),
        401,
        "token_invalid",
    )
    problem(key.get("/bookings"), 401, "token_invalid")
    problem(api.get(feed), 404, "not_found")
    # The access token works for some more minutes. It must not lead to a key that works forever.
    problem(mallory.post("/me/api-keys", {"name": "Forever"}), 401, "token_invalid")


def test_the_keys_of_an_owner_who_has_verified_the_address_survive_a_reset(api, ana):
    [message] = request_reset(api)
    reset(api, token_of(message))
    key = bearer(api, api.as_(ana).post("/me/api-keys", {"name": "Till"}).json()["key"])
    feed = api.as_(ana).get("/me/calendar").json()["address"]
    [notice] = sent()
    assert (notice.subject, notice.to) == ("An API key was created", [ana.email])
    [message] = request_reset(api)
    assert reset(api, token_of(message), "a third password 7").status_code == 204
    assert (key.get("/bookings").status_code, api.get(feed).status_code) == (200, 200)


def test_a_session_that_has_ended_creates_no_key(api, ana):
    session = log_in(api, ana).json()
    client = bearer(api, session["access_token"])
    assert client.post("/me/api-keys", {"name": "Till"}).status_code == 201
    api.post("/auth/logout", {"refresh_token": session["refresh_token"]})
    assert client.get("/me").status_code == 200
    problem(client.post("/me/api-keys", {"name": "Till"}), 401, "token_invalid")
