"""Response headers for browsers and caches."""

import re

import pytest
from django.test import Client

from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory
from bookit.tests.routes import ANY_ID, every_path

pytestmark = pytest.mark.django_db

STRICT = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
OWN_SCRIPT_AND_STYLES = re.compile(
    r"; script-src 'sha256-[\w+/]{43}='; style-src 'sha256-[\w+/]{43}='", re.ASCII
)
PUBLIC = ["/services", "/calendars", "/slots", "/reviews", "/errors", "/docs", "/openapi.json"]


@pytest.mark.parametrize("path", [path for path, _ in every_path()])
@pytest.mark.parametrize("who", ["nobody", "an admin"])
def test_pages_have_a_policy_and_only_public_responses_may_be_cached(api, path, who):
    browser, client = Client(), api
    if who == "an admin":
        user = AdminFactory()
        browser.force_login(user)
        client = api.as_(user)
    for response in (browser.get(path), browser.post(path), client.get(path), client.head(path)):
        if response.get("Content-Type", "").startswith("text/html"):
            policy = response["Content-Security-Policy"]
            assert policy.startswith("default-src 'self'; ")
            if path == "/example":
                # The script and the styles are part of this page. The policy allows their hashes,
                # and no other scripts and styles.
                assert OWN_SCRIPT_AND_STYLES.fullmatch(policy.removeprefix(STRICT))
            elif path in ("/docs", "/redoc"):
                # Swagger UI and ReDoc also need inline styles and web workers.
                assert "script-src" not in policy
            else:
                assert policy == STRICT
        request = response.wsgi_request
        is_public = not (
            request.method == "POST"
            or request.headers.get("authorization")
            or path.startswith("/admin/")
            or path.endswith(".ics")
            or path == "/metrics"
        )
        # This response contains the URL of a feed, which is a secret. Proxies must not compress it;
        # see `bookit.web.compression`.
        is_secret = path == "/me/calendar" and response.status_code == 200
        expected = "no-store, no-transform" if is_secret else "no-store"
        assert response.get("Cache-Control") == (None if is_public else expected)


def test_responses_with_tokens_are_never_cached(api):
    user = UserFactory()
    new = {"name": "Ada", "email": "ada@example.com", "password": PASSWORD}
    signed_in = api.post("/auth/login", {"email": user.email, "password": PASSWORD})
    token = {"refresh_token": signed_in.json()["refresh_token"]}
    for response in (api.post("/auth/register", new), signed_in, api.post("/auth/refresh", token)):
        assert "access_token" in response.json()
        assert response["Cache-Control"] == "no-store, no-transform"


def test_a_calendar_file_has_an_etag_although_caches_may_not_store_it(api):
    feed = api.as_(UserFactory()).get("/me/calendar").json()["address"]
    response = api.get(feed)
    assert (response.status_code, response["Cache-Control"]) == (200, "no-store")
    known = api.get(feed, headers={"if-none-match": response["ETag"]})
    assert (known.status_code, known["Cache-Control"]) == (304, "no-store")


@pytest.mark.parametrize("path", PUBLIC)
def test_public_responses_may_be_cached(client, path):
    response = client.get(path)
    assert response.status_code == 200
    assert "Cache-Control" not in response


@pytest.mark.parametrize("path", ["/services", "/calendars", "/slots", "/reviews"])
def test_caches_never_confuse_responses_to_different_request_headers(client, path):
    """Without `Vary`, clients could get cached times in the time zone of another client."""
    for response in (
        client.get(path, headers={"time-zone": "Asia/Tokyo"}),
        client.head(path),
        client.get(path, headers={"if-none-match": client.get(path)["ETag"]}),
    ):
        assert response.status_code in (200, 304)
        assert {"Authorization", "Time-Zone"} <= {*response["Vary"].split(", ")}


def test_responses_to_methods_that_a_path_does_not_allow_are_never_cached(client):
    for response in (client.post("/health"), client.post(f"/services/{ANY_ID}"), client.put("/me")):
        assert (response.status_code, response["Cache-Control"]) == (405, "no-store")
