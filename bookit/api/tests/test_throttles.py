"""Rate limits: which requests count, for which client, and which headers report the limits."""

import logging
import re
import runpy
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from time import sleep

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

from accounts import services as accounts
from accounts.sessions import services as sessions
from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory
from bookit.api import addresses
from bookit.ratelimits import counting
from bookit.ratelimits.host import HostCounts
from bookit.tests import crowd
from bookit.tests.expect import problem
from bookit.tests.routes import every_path
from bookit.web.middleware import sign_in_paths

pytestmark = pytest.mark.django_db

# A second after the beginning of an hour, so that all requests of a test are in one window.
NOON = now().replace(year=2030, month=1, day=1, hour=12, minute=0, second=1, microsecond=0)

# Nearly as long as a body can be.
SLOW_TO_PARSE = b"[" * 900_000


@pytest.fixture(autouse=True)
def clock():
    with time_machine.travel(NOON, tick=False) as stopped:
        counting.reset()
        yield stopped


@pytest.fixture
def limit(settings):
    """Return a function that sets the given rate limits, and removes all others."""

    def set_limit(**rates):
        settings.RATE_LIMITS = {**dict.fromkeys(configured.RATE_LIMITS, ""), **rates}

    return set_limit


def statuses(client, path, times, **headers):
    return [client.get(path, **headers).status_code for _ in range(times)]


# --- exact counts -----------------------------------------------------------------------------


@pytest.fixture
def interrupted(monkeypatch):
    """Let other threads run after a count is read, and before it is written."""
    read = HostCounts._read

    def read_and_pause(self, *arguments):
        window = read(self, *arguments)
        sleep(0.0001)
        return window

    monkeypatch.setattr(HostCounts, "_read", read_and_pause)


def at_once(call, clients):
    """Call `call` with each number below `clients` at the same moment, and return the results.

    Unlike `crowd.at_once`, the threads open no connections to the database.
    """
    gate = threading.Barrier(clients, timeout=10)

    def run(number):
        gate.wait()
        return call(number)

    with ThreadPoolExecutor(clients) as threads:
        return list(threads.map(run, range(clients)))


def test_ten_of_forty_concurrent_counts_pass_a_limit_of_ten(limit, interrupted):
    limit(anon="10/minute")
    for _ in range(10):
        counting.reset()
        passed = at_once(lambda number: counting.count("anon", "192.0.2.7").allowed, 40)
        assert Counter(passed) == {True: 10, False: 30}


def test_ten_of_forty_concurrent_requests_pass_a_limit_of_ten(limit, interrupted):
    limit(anon="10/minute")

    def ask(number):
        # An invalid request is counted before it is refused, and needs no database.
        return Client().get("/services?limit=0").status_code

    assert Counter(at_once(ask, 40)) == {400: 10, 429: 30}


def test_all_of_forty_concurrent_counts_pass_drfs_own_throttle():
    """Control for the tests above: DRF's throttle lets all requests pass.

    It reads a count before it writes the count. Here, all threads read before any thread writes.
    """
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


# --- whose requests are counted ---------------------------------------------------------------


def test_anonymous_requests_are_counted_by_ip_address(api, limit):
    limit(anon="2/minute")
    assert statuses(api, "/services", 3, REMOTE_ADDR="192.0.2.7") == [200, 200, 429]
    assert statuses(api, "/services", 3, REMOTE_ADDR="192.0.2.8") == [200, 200, 429]
    assert statuses(api, "/calendars", 1, REMOTE_ADDR="192.0.2.7") == [429]


def test_users_are_counted_by_account_whatever_their_ip_address(api, limit):
    limit(anon="1/minute", user="2/minute")
    one, other = api.as_(UserFactory()), api.as_(UserFactory())
    assert statuses(one, "/me", 1, REMOTE_ADDR="192.0.2.7") == [200]
    assert statuses(one, "/me", 2, REMOTE_ADDR="192.0.2.8") == [200, 429]
    assert statuses(other, "/me", 3, REMOTE_ADDR="192.0.2.8") == [200, 200, 429]
    assert statuses(api, "/services", 2, REMOTE_ADDR="192.0.2.8") == [200, 429]


@pytest.mark.parametrize("path", ["/auth/login", "/auth/register", "/auth/refresh", "/auth/logout"])
def test_signing_in_is_counted_by_ip_address_even_with_a_token(api, limit, path):
    limit(auth="2/minute")
    token = api.as_(AdminFactory())._credentials
    for expected in (400, 400, 429, 429):
        assert api.post(path, {}, **token).status_code == expected
    assert api.post(path, {}).status_code == 429
    assert api.post(path, {}, REMOTE_ADDR="192.0.2.8", **token).status_code == 400


def test_logins_registrations_and_changes_of_passwords_share_one_count(api, limit):
    limit(auth="3/minute")
    user = UserFactory()
    assert api.post("/auth/login", {}).status_code == 400
    assert api.post("/auth/register", {}).status_code == 400
    assert api.as_(user).post("/me/password", {}).status_code == 400
    problem(api.as_(user).post("/me/password", {}), 429, "throttled")
    problem(api.post("/auth/login", {}), 429, "throttled")
    assert api.as_(user).get("/me").status_code == 200


def test_the_admin_sites_password_forms_share_the_count_of_the_api(api, limit):
    limit(auth="2/minute")
    admin = AdminFactory()
    form = {"username": admin.email, "password": PASSWORD}
    wrong = {**form, "password": "wrong"}
    for _ in range(2):
        assert b"correct" in Client().post("/admin/login/", wrong).content
    refused = Client().post("/admin/login/", form)
    assert refused.status_code == 429
    assert int(refused["Retry-After"]) >= 1
    problem(api.post("/auth/login", {}), 429, "throttled")
    other = Client(REMOTE_ADDR="192.0.2.8")
    assert other.post("/admin/login/?next=/admin/", form).status_code == 302
    form = {"old_password": "wrong", "new_password1": "x", "new_password2": "x"}
    for expected in (200, 429):
        assert other.post("/admin/password_change/", form).status_code == expected


def test_an_empty_setting_means_no_limit(api, limit):
    limit(anon="")
    assert statuses(api, "/services", 30) == [200] * 30
    response = api.get("/services")
    assert "RateLimit" not in response.headers
    assert "RateLimit-Policy" not in response.headers


# Requests to unknown paths, requests that are refused before they reach an endpoint, and an OPTIONS
# request, whose token is ignored.
OTHERS = [
    ("GET", "/nothing", {}),
    ("GET", "/static/nothing.css", {}),
    ("GET", "/%00", {}),
    ("PUT", "/services", {}),
    ("POST", "/health/ready", {}),
    ("GET", "/services", {"host": "other host"}),
    ("GET", "/services", {"authorization": "Bearer x"}),
    ("GET", "/me", {}),
    ("GET", "/services", {"accept": "image/png"}),
    ("OPTIONS", "/bookings", {"authorization": "Bearer x"}),
]


@pytest.mark.parametrize(
    ("method", "path", "headers"), [*[("GET", path, {}) for path, _ in every_path()], *OTHERS]
)
def test_requests_to_every_path_except_health_are_counted(limit, method, path, headers):
    limit(anon="1/hour", auth="1/hour", user="1/hour")
    browser = Client(raise_request_exception=False)
    first, second = (browser.generic(method, path, headers=headers) for _ in range(2))
    if path == "/health":
        assert (first.status_code, second.status_code) == (200, 200)
        return
    assert first.status_code < 500
    assert first.status_code != 429
    assert first["RateLimit-Policy"].endswith(";q=1;w=3600")
    assert second.status_code == 429
    assert second["Retry-After"] == "3600"  # the rest of this hour, and `MARGIN`, rounded up
    if not path.startswith("/admin"):
        problem(second, 429, "throttled")


def test_static_files_do_not_count(client, limit):
    limit(anon="1/hour")
    assert statuses(client, "/static/admin/css/base.css", 3) == [200] * 3


def test_a_probe_every_second_passes_even_if_its_ip_address_is_throttled(client, limit, clock):
    limit(anon="300/minute")  # the default
    assert statuses(client, "/nothing", 301)[-1] == 429
    for _ in range(120):
        clock.shift(1)
        assert client.get("/health/ready").status_code == 200


def test_pages_of_the_admin_site_count_for_the_signed_in_user(limit):
    limit(anon="9/minute", user="2/minute")
    browser, stranger = Client(), Client()
    browser.force_login(AdminFactory())
    assert statuses(browser, "/admin/", 3) == [200, 200, 429]
    assert statuses(stranger, "/admin/login/", 1) == [200]


def test_a_forbidden_request_counts_for_its_user(api, limit):
    limit(user="2/minute", anon="9/minute")
    client = api.as_(UserFactory())
    assert statuses(client, "/users", 3) == [403, 403, 429]


def test_requests_with_an_invalid_token_do_not_count_for_a_user(api, limit):
    limit(anon="1/minute", user="9/minute")
    bad = {"headers": {"authorization": "Bearer x"}}
    assert statuses(api, "/me", 2, **bad) == [401, 429]
    assert statuses(api.as_(UserFactory()), "/me", 1) == [200]


def test_changing_the_email_address_counts_as_signing_in(api, limit):
    limit(auth="2/minute")
    user = UserFactory(email="ada@example.com")
    taken = UserFactory().email
    client = api.as_(user)
    known = {"current_password": PASSWORD}
    for body in ({"email": taken, **known}, {"email": taken.upper(), "name": "B", **known}):
        problem(client.patch("/me", body), 409, "email_taken")
    problem(client.patch("/me", {"email": "free@example.com", **known}), 429, "throttled")
    user.refresh_from_db()
    assert user.email == "ada@example.com"
    # Changes that reveal no account are not counted: changes of other fields, and requests that
    # repeat the current email address.
    for body in ({"name": "C"}, {"email": "ada@example.com", "name": "D"}) * 3:
        assert client.patch("/me", body).status_code == 200
    problem(api.post("/auth/register", {}), 429, "throttled")


# --- wrong passwords per account --------------------------------------------------------------


def guess(api, email, number, password="wrong"):
    """Try to sign in from the IP address with this number."""
    return api.post(
        "/auth/login",
        {"email": email, "password": password},
        REMOTE_ADDR=f"198.51.{number // 250}.{number % 250}",
    )


@pytest.mark.parametrize("who", ["an account", "an inactive account", "nobody", "not an email"])
def test_wrong_passwords_from_many_addresses_are_limited_per_account(api, limit, who):
    limit(password="5/hour", auth="10/minute")
    UserFactory(email="ada@example.com", is_active=who != "an inactive account")
    email = {"nobody": "eve@example.com", "not an email": "nonsense"}.get(who, "ada@example.com")
    seen = [guess(api, email, number) for number in range(10)]
    assert [response.status_code for response in seen] == [401] * 5 + [429] * 5
    for response in seen[5:]:
        problem(response, 429, "throttled")
    # Neither an email address in upper case nor the right password makes a difference.
    assert guess(api, email.upper(), 11, PASSWORD).status_code == 429
    other = UserFactory()
    assert guess(api, other.email, 12, PASSWORD).status_code == 200


def test_responses_do_not_reveal_whether_an_account_exists(api, limit):
    limit(password="3/hour")
    UserFactory(email="ada@example.com")
    seen = set()
    for email in ("ada@example.com", "eve@example.com"):
        responses = [
            api.post(
                "/auth/login",
                {"email": email, "password": "wrong"},
                headers={"x-request-id": "same"},
            )
            for _ in range(5)
        ]
        seen.add(
            tuple(
                (response.content, tuple(sorted(response.headers.items())))
                for response in responses
            )
        )
    assert len(seen) == 1


def test_strangers_do_not_lock_the_owner_out(api, limit):
    limit(password="5/hour")
    user = UserFactory()
    assert guess(api, user.email, 1, PASSWORD).status_code == 200
    assert [guess(api, user.email, number).status_code for number in range(10, 20)] == [
        *[401] * 5,
        *[429] * 5,
    ]
    # From an IP address where they signed in before, owners can still sign in, even after a typo.
    assert guess(api, user.email, 1).status_code == 401
    assert guess(api, user.email, 1, PASSWORD).status_code == 200
    assert guess(api, user.email, 20, PASSWORD).status_code == 429
    # But a known IP address has a limit, too, which counts from the last right password.
    assert [guess(api, user.email, 1).status_code for _ in range(7)] == [401] * 5 + [429] * 2


def test_an_ip_address_known_for_one_account_is_unknown_for_another(api, limit):
    limit(password="2/hour")
    one, other = UserFactory(), UserFactory()
    assert guess(api, one.email, 1, PASSWORD).status_code == 200
    assert [guess(api, other.email, number).status_code for number in (2, 3, 1)] == [401, 401, 429]


def test_right_passwords_are_not_counted(api, limit):
    limit(password="3/hour")
    user = UserFactory()
    for number in range(10):
        assert guess(api, user.email, number, PASSWORD).status_code == 200
    assert [guess(api, user.email, 99).status_code for _ in range(3)] == [401, 401, 401]
    assert guess(api, user.email, 98, PASSWORD).status_code == 429


def test_the_right_password_of_an_inactive_account_counts_as_wrong(api, limit):
    limit(password="3/hour")
    user = UserFactory(is_active=False)
    seen = [guess(api, user.email, number, PASSWORD).status_code for number in range(5)]
    assert seen == [401, 401, 401, 429, 429]


def test_wrong_current_passwords_and_wrong_logins_share_one_count(api, limit):
    limit(password="4/hour")
    user = AdminFactory()
    client = api.as_(user)
    wrong = {"current_password": "wrong", "new_password": "another good password"}
    form = {"username": user.email, "password": "wrong"}
    for number in range(2):
        address = f"203.0.113.{number}"
        problem(client.post("/me/password", wrong, REMOTE_ADDR=address), 400, "validation_error")
        assert Client(REMOTE_ADDR=address).post("/admin/login/", form).status_code == 200
    problem(client.post("/me/password", wrong), 429, "throttled")
    refused = Client().post("/admin/login/", {**form, "password": PASSWORD})
    assert refused.status_code == 429
    assert int(refused["Retry-After"]) >= 1
    assert guess(api, user.email, 7).status_code == 429


def test_wrong_old_passwords_in_the_admin_site_and_wrong_logins_share_one_count(api, limit, client):
    limit(password="3/hour")
    user = AdminFactory()
    client.force_login(user)
    better = "another good password"
    wrong = {"old_password": "wrong", "new_password1": better, "new_password2": better}
    for number in range(3):
        response = client.post("/admin/password_change/", wrong, REMOTE_ADDR=f"203.0.113.{number}")
        assert "This is not your current password." in response.content.decode()
    right = {**wrong, "old_password": PASSWORD}
    assert client.post("/admin/password_change/", right).status_code == 429
    assert guess(api, user.email, 7).status_code == 429


def test_an_ip_address_becomes_known_by_signing_in_to_the_admin_site(api, limit):
    limit(password="2/hour")
    user = AdminFactory()
    form = {"username": user.email, "password": PASSWORD}
    home = Client(REMOTE_ADDR="2001:db8:0:7::1")
    assert home.post("/admin/login/?next=/admin/", form).status_code == 302
    assert [guess(api, user.email, number).status_code for number in range(3)] == [401, 401, 429]
    assert Client().post("/admin/login/", form).status_code == 429
    neighbour = Client(REMOTE_ADDR="2001:db8:0:7:1234::1")
    assert neighbour.post("/admin/login/?next=/admin/", form).status_code == 302


def test_five_of_twelve_concurrent_guesses_are_checked(limit, transactional_db):
    limit(password="5/hour")
    user = UserFactory()

    def ask(number):
        return Client(REMOTE_ADDR=f"198.51.100.{number}").post(
            "/auth/login",
            {"email": user.email, "password": "wrong"},
            content_type="application/json",
        )

    outcomes = crowd.at_once([lambda number=number: ask(number) for number in range(12)])
    assert Counter(outcome.value.status_code for outcome in outcomes) == {401: 5, 429: 7}


# --- IP addresses behind proxies --------------------------------------------------------------


def test_x_forwarded_for_is_ignored_without_a_proxy(api, limit, settings):
    limit(anon="2/minute")
    settings.NUM_PROXIES = 0
    seen = [
        api.get("/services", headers={"x-forwarded-for": f"192.0.2.{number}"}).status_code
        for number in range(5)
    ]
    assert seen == [200, 200, 429, 429, 429]


def test_behind_one_proxy_only_its_own_entry_is_used(api, limit, settings):
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
        (1, "192.0.2.1:4711", "192.0.2.1"),
        (1, "[2001:db8::1]:443", "2001:db8::1"),
        (1, "[2001:db8::1]", "2001:db8::1"),
        (1, "2001:DB8:0:0::1", "2001:db8::1"),
        (1, "fe80::1%eth0", "fe80::1"),
        (1, "[fe80::1%25eth0]:1", "fe80::1"),
        (1, "::ffff:192.0.2.1", "192.0.2.1"),
        (1, "::ffff:c000:201", "192.0.2.1"),
        (1, "[::ffff:192.0.2.1]:443", "192.0.2.1"),
        # If the entry is not an IP address, the IP address of the peer is used.
        (1, "unknown", "127.0.0.1"),
        (1, "_hidden", "127.0.0.1"),
        (1, "192.0.2.1:port", "127.0.0.1"),
        (1, "192.0.2.999", "127.0.0.1"),
        (1, "192.0.2.01", "127.0.0.1"),
        (1, "192.0.2", "127.0.0.1"),
        (1, "\u0661\u0662.0.0.1", "127.0.0.1"),
        (1, "x" * 8000, "127.0.0.1"),
    ],
)
def test_the_client_ip_address_comes_from_x_forwarded_for(rf, settings, hops, header, address):
    settings.NUM_PROXIES = hops
    request = rf.get("/", headers={} if header is None else {"x-forwarded-for": header})
    assert addresses.client_address(request) == address


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:db8::0001", "2001:db8::1"),
        ("", None),
        ("unix:", None),
    ],
)
def test_without_a_proxy_the_client_ip_address_is_the_address_of_the_peer(rf, peer, address):
    assert addresses.client_address(rf.get("/", REMOTE_ADDR=peer)) == address


@pytest.mark.parametrize(("path", "limited"), [("/services", "anon"), ("/auth/login", "auth")])
def test_an_ipv6_subnet_is_one_client(api, limit, path, limited):
    limit(**{limited: "3/minute"})

    def ask(address):
        method = api.get if path == "/services" else api.post
        return method(path, REMOTE_ADDR=address).status_code

    seen = [ask(f"2001:db8:1:2:{number:x}::{number:x}") for number in range(1, 7)]
    assert seen.count(429) == 3
    assert seen[3:] == [429] * 3
    assert ask("2001:db8:1:3::1") != 429
    assert ask("192.0.2.7") != 429


def test_one_ip_address_with_different_ports_and_spellings_is_one_client(api, limit, settings):
    limit(anon="3/minute")
    settings.NUM_PROXIES = 1
    seen = [
        api.get("/services", headers={"x-forwarded-for": f"{spelling}:{port}"}).status_code
        for port in (1000, 1001)
        for spelling in ("192.0.2.7", "[::ffff:192.0.2.7]", "  192.0.2.7")
    ]
    assert seen == [200] * 3 + [429] * 3


# --- headers ----------------------------------------------------------------------------------


def test_the_headers_report_the_limit_and_the_remaining_requests(api, limit):
    limit(anon="3/minute")
    left = []
    for _ in range(3):
        response = api.get("/services")
        assert response["RateLimit-Policy"] == '"anon";q=3;w=60'
        left.append(response["RateLimit"])
        assert "Retry-After" not in response.headers
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
def test_the_policy_reports_other_periods(api, limit, rate, policy):
    limit(anon=rate)
    assert api.get("/services")["RateLimit-Policy"] == f'"anon";q={policy}'


def test_error_responses_also_have_the_headers(api, limit):
    limit(anon="9/minute", user="9/minute", auth="9/minute")
    user = api.as_(UserFactory())
    for response, policy in (
        (api.get("/services?limit=0"), "anon"),
        (api.get("/services/01980000-0000-7000-8000-000000000000"), "anon"),
        (user.get("/bookings?limit=0"), "user"),
        (api.post("/auth/login", {}), "auth"),
    ):
        assert response.status_code in (400, 404)
        assert response["RateLimit-Policy"].startswith(f'"{policy}"')


def test_the_headers_of_a_request_over_the_password_limit_report_both_limits(api, limit):
    limit(auth="9/minute", password="2/hour")
    user = AdminFactory()
    wrong = {"email": user.email, "password": "wrong"}
    for remaining in (8, 7):
        response = api.post("/auth/login", wrong)
        assert response["RateLimit"].startswith(f'"auth";r={remaining};t=')
        assert response["RateLimit-Policy"] == '"auth";q=9;w=60'
    form = {"username": user.email, "password": "wrong"}
    for remaining, refused in (
        (6, api.post("/auth/login", wrong)),
        (5, Client().post("/admin/login/", form)),
    ):
        assert refused.status_code == 429
        assert refused["RateLimit-Policy"] == '"auth";q=9;w=60, "password";q=2;w=3600'
        within, over = refused["RateLimit"].split(", ")
        assert within.startswith(f'"auth";r={remaining};t=')
        assert over == f'"password";r=0;t={refused["Retry-After"]}'


def test_the_headers_are_lists_of_items_with_parameters(api, limit):
    """RFC 9651 and draft-ietf-httpapi-ratelimit-headers-10 require this form."""
    limit(anon="3/minute")
    for _ in range(5):
        response = api.get("/services")
        assert re.fullmatch(r'"[a-z]+";q=[1-9]\d*;w=[1-9]\d*', response["RateLimit-Policy"])
        assert re.fullmatch(r'"[a-z]+";r=\d+;t=\d+', response["RateLimit"])


def test_the_remaining_requests_and_the_wait_decrease(api, limit, clock):
    limit(anon="5/minute")
    seen = []
    for _ in range(4):
        seen.append(api.get("/services")["RateLimit"])
        clock.shift(10)
    # All clients have the same window, which ends with the minute: 59 seconds after the start.
    assert seen == [
        '"anon";r=4;t=59',
        '"anon";r=3;t=49',
        '"anon";r=2;t=39',
        '"anon";r=1;t=29',
    ]


@given(
    limit=st.integers(1, 12),
    pauses=st.lists(st.floats(0, 90, allow_nan=False), max_size=40),
)
@example(limit=3, pauses=[0, 0, 0])
@example(limit=1, pauses=[58.5, 0])
@example(limit=2, pauses=[0, 0, 61])
@example(limit=1, pauses=[59])
@example(limit=7, pauses=[0, 0, 0, 0, 0, 0, 0, 59])
@settings(max_examples=60)
def test_the_next_request_passes_after_the_reported_wait_but_not_before(limit, pauses):
    """This holds for every history of requests."""
    rates = {**configured.RATE_LIMITS, "anon": f"{limit}/minute"}
    with (
        override_settings(RATE_LIMITS=rates),
        time_machine.travel(NOON, tick=False) as clock,
    ):
        counting.reset()
        for pause in [*pauses, *[0] * limit]:
            clock.shift(pause)
            counting.count("anon", "somebody")
        refused = counting.count("anon", "somebody")
        assert not refused.allowed
        assert refused.headers["RateLimit"] == f'"anon";r=0;t={refused.seconds}'
        # The wait is at most 60 seconds and `MARGIN`. It is rounded up to `refused.seconds`.
        assert 1 <= refused.seconds <= 61
        if refused.seconds > 1:
            clock.shift(refused.seconds - 1.01)
            assert not counting.count("anon", "somebody").allowed
            clock.shift(1.01)
        else:
            clock.shift(refused.seconds)
        assert counting.count("anon", "somebody").allowed


def test_a_refused_client_passes_after_the_seconds_in_retry_after(api, limit, clock):
    limit(anon="3/minute")
    assert statuses(api, "/services", 4) == [200, 200, 200, 429]
    wait = int(api.get("/services")["Retry-After"])
    clock.shift(wait)
    assert api.get("/services").status_code == 200


def test_requests_over_the_limit_are_not_counted(api, limit, clock):
    limit(anon="3/minute")
    assert statuses(api, "/services", 3) == [200] * 3
    for _ in range(47):
        # Otherwise, `refusals` would refuse the request, and nothing would be counted anyway.
        counting.refusals.clear()
        assert api.get("/services").status_code == 429
    # 29 of the 60 seconds of the first window still count: 3 * 29 / 60 is 1, rounded down.
    clock.shift(90)
    assert statuses(api, "/services", 3) == [200, 200, 429]


def test_no_burst_is_possible_between_two_windows(api, limit, clock):
    """With fixed windows, twice the limit would pass within a few seconds."""
    limit(anon="10/minute")
    clock.shift(57)  # two seconds before the next minute
    assert statuses(api, "/services", 10) == [200] * 10
    clock.shift(3)
    assert statuses(api, "/services", 10).count(200) <= 1


# --- throttling before expensive work ---------------------------------------------------------


@pytest.mark.parametrize("path", ["/auth/login", "/auth/register", "/me/password"])
def test_a_throttled_request_hashes_no_password_and_reads_at_most_its_user(
    api, limit, monkeypatch, path
):
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

    for module in (accounts, sessions):
        monkeypatch.setattr(module, "make_password", hashed)
        monkeypatch.setattr(module, "check_password", hashed)
    with CaptureQueriesContext(connection) as queries:
        problem(client.post(path, body), 429, "throttled")
        problem(client.generic("POST", path, SLOW_TO_PARSE), 429, "throttled")
    statements = [query["sql"] for query in queries]
    # /me/password looks up the user before the first refusal. Later refusals run no query.
    assert len(statements) == (1 if path == "/me/password" else 0), statements


@pytest.mark.parametrize("path", ["/auth/login", "/auth/register", "/admin/login/"])
def test_a_flood_of_sign_ins_gets_no_further_than_the_middleware(api, limit, clock, caplog, path):
    """Requests after the first refusal run no view, and are not logged at the info level."""
    limit(auth="1/minute")
    caplog.set_level(logging.INFO, logger="bookit.request")
    assert api.post(path, {}).status_code != 429
    first = api.post(path, {})
    assert first.status_code == 429
    assert first.wsgi_request.resolver_match is not None
    caplog.clear()
    for _ in range(3):
        later = api.generic("POST", path, SLOW_TO_PARSE)
        assert later.status_code == 429
        assert later.wsgi_request.resolver_match is None
        # The middleware sends the same headers as the view.
        for name in ("Retry-After", "RateLimit", "RateLimit-Policy", "Cache-Control"):
            assert later[name] == first[name]
        assert later["Content-Type"] == first["Content-Type"]
    assert not caplog.records
    assert api.post(path, {}, REMOTE_ADDR="192.0.2.8").status_code != 429
    assert api.get("/services").status_code == 200
    clock.shift(int(first["Retry-After"]))
    assert api.post(path, {}).status_code != 429


def test_every_path_that_counts_as_signing_in_is_known_to_the_middleware(api, limit):
    limit(auth="1/hour")
    api.post("/auth/login", {})
    signing_in = {
        path
        for path, _ in every_path()
        if '"auth"' in api.post(path, {}).headers.get("RateLimit-Policy", "")
    }
    assert {"/auth/login", "/auth/register", "/me/password", "/admin/login/"} <= signing_in
    assert signing_in <= sign_in_paths()


@pytest.mark.parametrize("limited", ["auth", "password"])
def test_a_throttled_login_to_the_admin_site_hashes_no_password(limit, monkeypatch, limited):
    limit(**{limited: "1/hour"})
    admin = AdminFactory()
    form = {"username": admin.email, "password": "wrong"}
    Client().post("/admin/login/", form)

    def hashed(*args, **kwargs):
        raise AssertionError("hashed a password")

    monkeypatch.setattr(sessions, "check_password", hashed)
    monkeypatch.setattr(sessions, "make_password", hashed)
    assert Client().post("/admin/login/", form).status_code == 429


def test_the_default_rate_limits_apply_if_no_environment_variable_is_set(monkeypatch):
    for name in ("AUTH", "PASSWORD", "ANON", "USER", "KEY"):
        monkeypatch.delenv(f"RATE_LIMIT_{name}")
    monkeypatch.delenv("NUM_PROXIES")
    fresh = runpy.run_path(str(configured.BASE_DIR / "bookit" / "settings.py"))
    assert fresh["RATE_LIMITS"] == {
        "auth": "10/minute",
        "password": "20/hour",
        "anon": "300/minute",
        "user": "600/minute",
        "key": "600/minute",
    }
    assert fresh["NUM_PROXIES"] == 0
