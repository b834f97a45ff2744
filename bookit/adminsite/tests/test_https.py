"""Signing in needs HTTPS in production. If it cannot work, a page says which setting to change."""

from html import unescape

import pytest
from django.conf import settings as current
from django.test import Client

from accounts.tests.factories import PASSWORD
from bookit.tests.expect import page

pytestmark = pytest.mark.django_db


@pytest.fixture
def production(settings):
    """Use the settings of production that affect browsers."""
    settings.ALLOWED_HOSTS = ["bookings.example.com", "localhost", "127.0.0.1"]
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    settings.SECURE_HSTS_SECONDS = 31536000
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    return settings


@pytest.fixture
def browser():
    return Client(enforce_csrf_checks=True, headers={"host": "bookings.example.com"})


def sign_in(browser, boss, **options):
    token = browser.get("/admin/login/", **options).cookies.get("csrftoken")
    body = {"username": boss.email, "password": PASSWORD}
    if token:
        body["csrfmiddlewaretoken"] = token.value
    return browser.post("/admin/login/", body, **options)


def test_the_sign_in_form_is_not_shown_over_plain_http(production, browser):
    text = page(browser.get("/admin/login/"), 403)
    assert "The admin site needs HTTPS" in text
    assert "NUM_PROXIES" in text
    assert "ADMIN_OVER_HTTP=true" in text
    assert "password" not in text


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000"])
def test_the_sign_in_form_is_shown_over_plain_http_on_the_local_machine(production, host):
    assert Client(headers={"host": host}).get("/admin/login/").status_code == 200


def test_the_sign_in_form_is_shown_behind_a_proxy_that_hides_https(production, browser):
    # Browsers send this header only to HTTPS servers and to servers on their own machine.
    response = browser.get("/admin/login/", headers={"sec-fetch-mode": "navigate"})
    assert response.status_code == 200


def test_a_missing_cookie_over_plain_http_gets_the_page_about_https(production, browser):
    text = page(browser.post("/admin/login/", {"username": "x", "password": "y"}), 403)
    assert "The admin site needs HTTPS" in text


@pytest.mark.parametrize(
    "headers", [{"sec-fetch-mode": "navigate"}, {"host": "localhost:8000"}], ids=["proxy", "local"]
)
def test_a_missing_cookie_gets_allow_cookies_where_browsers_would_keep_the_cookie(
    production, browser, headers
):
    text = page(browser.post("/admin/login/", {"username": "x"}, headers=headers), 403)
    assert "Allow cookies" in text
    assert "The admin site needs HTTPS" not in text


def test_outside_production_a_missing_cookie_is_answered_with_allow_cookies(browser, settings):
    settings.ALLOWED_HOSTS = ["bookings.example.com"]
    text = page(browser.post("/admin/login/", {"username": "x", "password": "y"}), 403)
    assert "Allow cookies" in text


def test_signing_in_works_over_https(production, browser, boss):
    https = {"headers": {"x-forwarded-proto": "https", "referer": "https://bookings.example.com/"}}
    assert sign_in(browser, boss, **https).status_code == 302
    assert browser.get("/admin/", **https).status_code == 200


def test_signing_in_works_over_plain_http_if_the_operator_allows_it(production, browser, boss):
    production.SESSION_COOKIE_SECURE = production.CSRF_COOKIE_SECURE = False
    assert sign_in(browser, boss).status_code == 302
    assert browser.get("/admin/").status_code == 200


def test_the_refusal_of_a_form_from_another_origin_names_the_setting_and_its_value(
    browser, boss, settings
):
    settings.ALLOWED_HOSTS = ["bookings.example.com"]
    text = page(sign_in(browser, boss, headers={"origin": "https://www.example.com:8443"}), 403)
    assert "CSRF_TRUSTED_ORIGINS=https://www.example.com:8443" in text
    assert "NUM_PROXIES" not in text


def test_a_proxy_that_hides_https_is_reported_as_the_cause(browser, boss, settings):
    settings.ALLOWED_HOSTS = ["bookings.example.com"]
    text = page(sign_in(browser, boss, headers={"origin": "https://bookings.example.com"}), 403)
    assert "X-Forwarded-Proto" in text
    assert "CSRF_TRUSTED_ORIGINS=https://bookings.example.com" in text


@pytest.mark.parametrize(
    "origin", ["null", "javascript:alert(1)", "https://a.example/<b>", "x" * 400]
)
def test_an_invalid_origin_is_not_shown(browser, boss, settings, origin):
    settings.ALLOWED_HOSTS = ["bookings.example.com"]
    text = page(sign_in(browser, boss, headers={"origin": origin}), 403)
    assert origin not in unescape(text)
    assert "CSRF_TRUSTED_ORIGINS" not in text
    assert "Reload the page" in text


def test_an_expired_form_is_answered_with_reload_the_page(browser, boss, settings):
    settings.ALLOWED_HOSTS = ["bookings.example.com"]
    browser.get("/admin/login/")
    text = page(browser.post("/admin/login/", {"csrfmiddlewaretoken": "x" * 64}), 403)
    assert "Reload the page" in text


def test_hsts_covers_only_this_host_and_only_over_https(production, browser):
    plain = browser.get("/health")
    assert "Strict-Transport-Security" not in plain
    secure = browser.get("/health", headers={"x-forwarded-proto": "https"})
    assert secure["Strict-Transport-Security"] == "max-age=31536000"


def test_the_settings_of_production_are_off_in_other_tests():
    """Control for the tests above: only the fixture `production` turns on these settings."""
    assert not current.SESSION_COOKIE_SECURE
    assert not current.CSRF_COOKIE_SECURE
    assert not current.SECURE_HSTS_SECONDS
    assert current.SECURE_PROXY_SSL_HEADER is None
