"""Rate limits: who is counted, how exactly, and what clients are told of it."""

import runpy
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import time_machine
from django.conf import settings as configured
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext, override_settings
from django.utils.timezone import now
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rest_framework.throttling import SimpleRateThrottle

from accounts import services
from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory
from bookit import throttles
from bookit.tests.expect import problem

pytestmark = pytest.mark.django_db

# The beginning of a minute and of an hour: what is counted in a window stays in it.
NOON = now().replace(year=2030, hour=12, minute=0, second=1, microsecond=0)


@pytest.fixture(autouse=True)
def noon():
    with time_machine.travel(NOON, tick=False) as clock:
        throttles.reset()
        yield clock


@pytest.fixture
def limit(settings):
    def set_limit(**rates):
        settings.RATE_LIMITS = {**dict.fromkeys(configured.RATE_LIMITS, ""), **rates}

    return set_limit


def statuses(client, path, times, **headers):
    return [client.get(path, **headers).status_code for _ in range(times)]


# --- how exactly ------------------------------------------------------------------------------


@pytest.fixture
def impatient_threads():
    """Threads that take turns as often as they can, so that a race is a race."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def at_once(call, clients):
    gate = threading.Barrier(clients, timeout=10)

    def run(number):
        gate.wait()
        return call(number)

    with ThreadPoolExecutor(clients) as threads:
        return list(threads.map(run, range(clients)))


def test_of_forty_threads_ten_pass_a_limit_of_ten(limit, impatient_threads):
    limit(anon="10/minute")
    for _ in range(10):
        throttles.reset()
        passed = at_once(lambda number: throttles.count("anon", "192.0.2.7").allowed, 40)
        assert Counter(passed) == {True: 10, False: 30}


def test_of_forty_clients_ten_pass_a_limit_of_ten(limit, impatient_threads):
    limit(anon="10/minute")

    def ask(number):
        # An address that is refused without the database, after it was counted.
        return Client().get("/services?limit=0").status_code

    assert Counter(at_once(ask, 40)) == {400: 10, 429: 30}


def test_the_race_is_there_with_drfs_own_throttle():
    """The control: it reads, then writes. Here everybody reads before anybody writes."""
    all_have_read = threading.Barrier(40, timeout=10)

    class Slow:
        def get(self, key, default):
            value = cache.get(key, default)
            all_have_read.wait()
            return value

        def set(self, *args):
            cache.set(*args)

    class Throttle(SimpleRateThrottle):
        rate = "10/minute"
        cache = Slow()

        def get_cache_key(self, request, view):
            return "all"

    passed = at_once(lambda number: Throttle().allow_request(None, None), 40)
    assert Counter(passed) == {True: 40}


# --- who is counted ---------------------------------------------------------------------------


def test_nobody_in_particular_is_counted_by_address(api, limit):
    limit(anon="2/minute")
    assert statuses(api, "/services", 3, REMOTE_ADDR="192.0.2.7") == [200, 200, 429]
    assert statuses(api, "/services", 3, REMOTE_ADDR="192.0.2.8") == [200, 200, 429]
    assert statuses(api, "/calendars", 1, REMOTE_ADDR="192.0.2.7") == [429]


def test_users_are_counted_one_by_one_wherever_they_are(api, limit):
    limit(anon="1/minute", user="2/minute")
    one, other = api.as_(UserFactory()), api.as_(UserFactory())
    assert statuses(one, "/me", 1, REMOTE_ADDR="192.0.2.7") == [200]
    assert statuses(one, "/me", 2, REMOTE_ADDR="192.0.2.8") == [200, 429]
    assert statuses(other, "/me", 3, REMOTE_ADDR="192.0.2.8") == [200, 200, 429]
    assert statuses(api, "/services", 2, REMOTE_ADDR="192.0.2.8") == [200, 429]


@pytest.mark.parametrize("path", ["/auth/login", "/auth/register", "/auth/refresh", "/auth/logout"])
def test_signing_in_is_counted_by_address_whatever_token_comes_along(api, limit, path):
    limit(auth="2/minute")
    token = api.as_(AdminFactory())._credentials
    for expected in (400, 400, 429, 429):
        assert api.post(path, {}, **token).status_code == expected
    assert api.post(path, {}, REMOTE_ADDR="192.0.2.8").status_code == 400


def test_all_that_guesses_at_passwords_shares_one_count(api, limit):
    limit(auth="3/minute")
    user = UserFactory()
    assert api.post("/auth/login", {}).status_code == 400
    assert api.post("/auth/register", {}).status_code == 400
    assert api.as_(user).post("/me/password", {}).status_code == 400
    problem(api.as_(user).post("/me/password", {}), 429, "throttled")
    problem(api.post("/auth/login", {}), 429, "throttled")
    assert api.as_(user).get("/me").status_code == 200


def test_the_admin_sites_form_shares_that_count(api, limit):
    limit(auth="2/minute")
    admin = AdminFactory()
    form = {"username": admin.email, "password": PASSWORD}
    wrong = {**form, "password": "wrong"}
    for _ in range(2):
        assert b"correct" in Client().post("/admin/login/", wrong).content
    assert Client().post("/admin/login/", form).status_code == 200  # the form again, not a session
    problem(api.post("/auth/login", {}), 429, "throttled")
    other = Client(REMOTE_ADDR="192.0.2.8")
    assert other.post("/admin/login/?next=/admin/", form).status_code == 302


def test_an_empty_limit_is_none(api, limit):
    limit(anon="")
    assert statuses(api, "/services", 30) == [200] * 30
    answer = api.get("/services")
    assert "RateLimit" not in answer.headers
    assert "RateLimit-Policy" not in answer.headers


def test_what_operates_the_service_is_not_counted(client, limit):
    limit(anon="1/hour", auth="1/hour", user="1/hour")
    for path in ("/health", "/health/ready", "/errors", "/openapi.json"):
        assert statuses(client, path, 3) == [200, 200, 200]


# --- what proxies say -------------------------------------------------------------------------


def test_x_forwarded_for_is_not_believed_without_a_proxy(api, limit, settings):
    limit(anon="2/minute")
    settings.NUM_PROXIES = 0
    seen = [
        api.get("/services", headers={"x-forwarded-for": f"192.0.2.{number}"}).status_code
        for number in range(5)
    ]
    assert seen == [200, 200, 429, 429, 429]


def test_behind_one_proxy_its_own_word_is_believed_and_no_other(api, limit, settings):
    limit(anon="2/minute")
    settings.NUM_PROXIES = 1
    seen = [
        api.get(
            "/services", headers={"x-forwarded-for": f"203.0.113.{number}, 192.0.2.7"}
        ).status_code
        for number in range(4)
    ]
    assert seen == [200, 200, 429, 429]
    other = {"x-forwarded-for": "203.0.113.1,192.0.2.8"}
    assert api.get("/services", headers=other).status_code == 200


@pytest.mark.parametrize(
    ("hops", "header", "address"),
    [
        (0, "192.0.2.1", "127.0.0.1"),
        (1, "192.0.2.1", "192.0.2.1"),
        (1, "192.0.2.1, 192.0.2.2", "192.0.2.2"),
        (2, "192.0.2.1, 192.0.2.2", "192.0.2.1"),
        (2, "192.0.2.0,192.0.2.1,192.0.2.2", "192.0.2.1"),
        (2, "192.0.2.2", "192.0.2.2"),
        (1, "", "127.0.0.1"),
        (1, ",", "127.0.0.1"),
        (1, "192.0.2.1, ", "127.0.0.1"),
        (1, None, "127.0.0.1"),
        (1, "  2001:db8::1  ", "2001:db8::1"),
    ],
)
def test_the_clients_address(rf, settings, hops, header, address):
    settings.NUM_PROXIES = hops
    request = rf.get("/", headers={} if header is None else {"x-forwarded-for": header})
    assert throttles.client_address(request) == address


# --- what clients are told --------------------------------------------------------------------


def test_the_headers_tell_the_limit_and_what_is_left(api, limit):
    limit(anon="3/minute")
    left = []
    for _ in range(3):
        answer = api.get("/services")
        assert answer["RateLimit-Policy"] == '"anon";q=3;w=60'
        left.append(answer["RateLimit"])
        assert "Retry-After" not in answer.headers
    assert [text.split(";")[:2] for text in left] == [
        ['"anon"', "r=2"],
        ['"anon"', "r=1"],
        ['"anon"', "r=0"],
    ]
    refused = api.get("/services")
    problem(refused, 429, "throttled")
    assert refused["RateLimit-Policy"] == '"anon";q=3;w=60'
    assert refused["RateLimit"].startswith('"anon";r=0;t=')
    assert refused["RateLimit"].endswith(f"t={refused['Retry-After']}")


@pytest.mark.parametrize(("rate", "policy"), [("5/second", "5;w=1"), ("7/hour", "7;w=3600")])
def test_other_periods(api, limit, rate, policy):
    limit(anon=rate)
    assert api.get("/services")["RateLimit-Policy"] == f'"anon";q={policy}'


def test_errors_have_the_headers_too(api, limit):
    limit(anon="9/minute", user="9/minute", auth="9/minute")
    user = api.as_(UserFactory())
    for answer, policy in (
        (api.get("/services?limit=0"), "anon"),
        (api.get("/services/01980000-0000-7000-8000-000000000000"), "anon"),
        (user.get("/bookings?limit=0"), "user"),
        (api.post("/auth/login", {}), "auth"),
    ):
        assert answer.status_code in (400, 404)
        assert answer["RateLimit-Policy"].startswith(f'"{policy}"')


@given(
    limit=st.integers(1, 12),
    pauses=st.lists(st.floats(0, 90, allow_nan=False), max_size=40),
)
@example(limit=3, pauses=[0, 0, 0])
@example(limit=1, pauses=[58.5, 0])
@settings(max_examples=60)
def test_who_waits_as_long_as_told_is_let_in_again_and_not_sooner(limit, pauses):
    """Whatever they did before."""
    rates = {**configured.RATE_LIMITS, "anon": f"{limit}/minute"}
    with (
        override_settings(RATE_LIMITS=rates),
        time_machine.travel(NOON, tick=False) as clock,
    ):
        throttles.reset()
        for pause in [*pauses, *[0] * limit]:
            clock.shift(pause)
            throttles.count("anon", "somebody")
        refused = throttles.count("anon", "somebody")
        assert not refused.allowed
        assert refused.headers["RateLimit"] == f'"anon";r=0;t={refused.seconds}'
        assert 1 <= refused.seconds <= 61
        if refused.seconds > 1:
            clock.shift(refused.seconds - 1.01)
            assert not throttles.count("anon", "somebody").allowed
            clock.shift(1.01)
        else:
            clock.shift(refused.seconds)
        assert throttles.count("anon", "somebody").allowed


def test_a_refused_client_that_waits_is_let_in_again(api, limit, noon):
    limit(anon="3/minute")
    assert statuses(api, "/services", 4) == [200, 200, 200, 429]
    wait = int(api.get("/services")["Retry-After"])
    noon.shift(wait)
    assert api.get("/services").status_code == 200


def test_refused_requests_are_not_counted(api, limit, noon):
    limit(anon="3/minute")
    assert statuses(api, "/services", 50) == [200] * 3 + [429] * 47
    noon.shift(120)
    assert statuses(api, "/services", 4) == [200, 200, 200, 429]


def test_there_is_no_burst_where_two_windows_meet(api, limit, noon):
    """A fixed window would let twice the limit through within two seconds."""
    limit(anon="10/minute")
    noon.shift(57)  # two seconds to the minute
    assert statuses(api, "/services", 10) == [200] * 10
    noon.shift(3)
    assert statuses(api, "/services", 10).count(200) <= 1


# --- before anything costs anything -----------------------------------------------------------


@pytest.mark.parametrize("path", ["/auth/login", "/auth/register", "/me/password"])
def test_who_is_throttled_costs_no_hash_and_no_query(api, limit, monkeypatch, path):
    limit(auth="1/hour")
    user = UserFactory()
    client = api.as_(user)
    body = {
        "/auth/login": {"email": user.email, "password": PASSWORD},
        "/auth/register": {"email": "new@example.com", "password": PASSWORD, "name": "Ada"},
        "/me/password": {"current_password": PASSWORD, "new_password": "another good password"},
    }[path]
    assert client.post(path, {}).status_code == 400

    def hashed(*args, **kwargs):
        raise AssertionError("hashed a password")

    monkeypatch.setattr(services, "make_password", hashed)
    monkeypatch.setattr(services, "check_password", hashed)
    with CaptureQueriesContext(connection) as queries:
        problem(client.post(path, body), 429, "throttled")
        problem(client.generic("POST", path, b"[" * 900_000), 429, "throttled")
    asked = [query["sql"] for query in queries]
    # A token belongs to somebody, which has to be looked up; nothing else is.
    assert len(asked) == (2 if path == "/me/password" else 0), asked


def test_the_admin_sites_form_is_throttled_before_hashing_too(limit, monkeypatch):
    limit(auth="1/hour")
    admin = AdminFactory()
    form = {"username": admin.email, "password": "wrong"}
    Client().post("/admin/login/", form)

    def hashed(*args, **kwargs):
        raise AssertionError("hashed a password")

    monkeypatch.setattr("django.contrib.auth.backends.UserModel.check_password", hashed)
    monkeypatch.setattr("django.contrib.auth.backends.UserModel.set_password", hashed)
    answer = Client().post("/admin/login/", form)
    assert answer.status_code == 200
    assert "_auth_user_id" not in answer.wsgi_request.session


def test_the_defaults_are_those_of_the_design(monkeypatch):
    for name in ("AUTH", "ANON", "USER"):
        monkeypatch.delenv(f"RATE_LIMIT_{name}")
    fresh = runpy.run_path(str(configured.BASE_DIR / "bookit" / "settings.py"))
    assert fresh["RATE_LIMITS"] == {"auth": "10/minute", "anon": "300/minute", "user": "600/minute"}
    assert fresh["NUM_PROXIES"] == 0
