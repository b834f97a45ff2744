"""Compression of JSON, and the responses that are never compressed."""

import gzip
import json
import re

import pytest
from django.urls import resolve

from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory
from bookings.tests.factories import WebhookFactory
from bookit.tests import contract
from bookit.web.compression import MIN_SIZE, accepts_gzip
from bookit.web.headers import VARY
from bookit.web.pages import schema
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

GZIP = {"accept-encoding": "gzip, deflate, br"}


@pytest.fixture
def service():
    return ServiceFactory(description="Long enough to be compressed. " * 40)


def test_json_of_more_than_a_kilobyte_is_compressed(client, service):
    for path in ("/services", f"/services/{service.pk}", "/openapi.json"):
        plain, packed = client.get(path), client.get(path, headers=GZIP)
        assert packed["Content-Encoding"] == "gzip"
        assert "Content-Encoding" not in plain
        assert plain["Vary"] == packed["Vary"] == f"Accept-Encoding, {VARY}"
        assert gzip.decompress(packed.content) == plain.content
        assert int(packed["Content-Length"]) == len(packed.content) < len(plain.content) / 2
        assert packed["Content-Type"] == plain["Content-Type"] == "application/json"


def test_a_small_response_is_not_compressed(client):
    ServiceFactory(description="Short.")
    response = client.get("/services", headers=GZIP)
    assert 100 < len(response.content) <= MIN_SIZE
    assert "Content-Encoding" not in response
    assert response["Vary"] == VARY


def test_a_long_problem_is_compressed(api):
    client = api.as_(UserFactory())
    body = {f"field{number}": 1 for number in range(20)}
    response = client.patch("/me", body, headers=GZIP)
    assert (response.status_code, response["Content-Encoding"]) == (400, "gzip")
    assert json.loads(gzip.decompress(response.content))["code"] == "validation_error"


def test_a_page_is_not_compressed(client):
    assert "Content-Encoding" not in client.get("/errors", headers=GZIP)


def test_a_head_request_gets_the_headers_of_a_get_request(client, service):
    got, head = (getattr(client, name)("/services", headers=GZIP) for name in ("get", "head"))
    for name in ("Content-Encoding", "Content-Length", "ETag", "Vary"):
        assert head[name] == got[name]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        *(("gzip", True), ("GZIP", True), ("br, gzip;q=0.5", True), ("*", True)),
        *(("gzip;q=1.0", True), ("", False), ("br", False), ("gzip;q=0", False)),
        ("gzip ; q = 0.000", False),
        *(("*, gzip;q=0", False), ("*;q=0", False), ("xgzip", False), (",;q=,", False)),
    ],
)
def test_json_is_compressed_only_if_the_client_accepts_gzip(client, service, header, expected):
    assert accepts_gzip(header) == expected
    response = client.get("/services", headers={"accept-encoding": header})
    assert ("Content-Encoding" in response) == expected


class TestEntityTags:
    def test_a_compressed_response_has_the_same_tag_but_weak(self, client, service):
        path = f"/services/{service.pk}"
        strong, weak = client.get(path)["ETag"], client.get(path, headers=GZIP)["ETag"]
        assert weak == f"W/{strong}"
        for known in (strong, weak):
            response = client.get(path, headers={**GZIP, "if-none-match": known})
            assert (response.status_code, response.content) == (304, b"")
            # A cache uses the tag of a 304 to find the response that is still valid.
            assert (response["ETag"], response["Vary"]) == (known, f"Accept-Encoding, {VARY}")
            assert "Content-Encoding" not in response

    def test_if_match_accepts_a_weak_tag(self, api):
        service = ServiceFactory(description="Long enough to be compressed. " * 40)
        client, path = api.as_(AdminFactory()), f"/services/{service.pk}"
        weak = client.get(path, headers=GZIP)["ETag"]
        assert weak.startswith('W/"')
        for status in (200, 412):
            response = client.patch(path, {"title": "Cut"}, headers={"if-match": weak})
            assert response.status_code == status


class TestSecrets:
    """The compressed size of a response would help to guess the secrets in it (BREACH)."""

    @pytest.fixture(autouse=True)
    def _compress_everything(self, monkeypatch):
        monkeypatch.setattr("bookit.web.compression.MIN_SIZE", 0)

    def test_responses_with_secrets_are_never_compressed(self, api):
        admin = AdminFactory()
        session = api.post(
            "/auth/login", {"email": admin.email, "password": PASSWORD}, headers=GZIP
        )
        token = {"refresh_token": session.json()["refresh_token"]}
        client, hook = api.as_(admin), {"url": "https://8.8.8.8/", "events": ["booking.created"]}
        feed = f"/calendars/{CalendarFactory().pk}/feed"
        rotate = f"/webhooks/{WebhookFactory().pk}/rotate-secret"
        key = {**GZIP, "idempotency-key": "a"}
        created, repeated = (client.post("/webhooks", hook, headers=key) for _ in range(2))
        assert "Idempotent-Replayed" in repeated
        for response, secret in [
            (session, "access_token"),
            (api.post("/auth/refresh", token, headers=GZIP), "refresh_token"),
            (client.get("/me/calendar", headers=GZIP), "address"),
            (client.post("/me/calendar", headers=GZIP), "address"),
            (client.get(feed, headers=GZIP), "address_with_names"),
            (client.post(feed, headers=GZIP), "address_with_names"),
            (created, "secret"),
            (repeated, "secret"),
            (client.post(rotate, {}, headers=GZIP), "secret"),
        ]:
            assert secret in response.json()
            assert "Content-Encoding" not in response
            assert response["Cache-Control"] == "no-store, no-transform"
        # Control: in this test, even a small response is compressed if it contains no secret.
        assert client.get("/me", headers=GZIP)["Content-Encoding"] == "gzip"

    def test_every_action_whose_response_has_a_secret_is_marked(self):
        document = json.loads(schema())
        marked = set()
        for label, operation in contract.operations(document).items():
            method, path = label.split()
            for status, response in operation["responses"].items():
                for content in response.get("content", {}).values():
                    names = _properties(document, content.get("schema", {}))
                    if status < "300" and any(map(SECRET.fullmatch, names)):
                        view = resolve(re.sub(r"\{\w+\}", ANY_ID, path)).func
                        assert view.actions[method.lower()] in view.cls.with_secrets, label
                        marked.add(label)
        assert {"POST /auth/login", "POST /webhooks", "GET /me/calendar"} <= marked

    def test_responses_of_the_admin_site_are_never_compressed(self, client):
        client.force_login(AdminFactory())
        field = "app_label=catalog&model_name=service&field_name=calendar"
        for path, kind in (
            ("/admin/", "text/html; charset=utf-8"),
            (f"/admin/autocomplete/?{field}", "application/json"),
        ):
            response = client.get(path, headers=GZIP)
            assert (response.status_code, response["Content-Type"]) == (200, kind)
            assert "Content-Encoding" not in response


ANY_ID = "01980000-0000-7000-8000-000000000000"
# The names of properties that contain a secret. `feed_address` stands for an `address` whose
# description says that it is secret: the URL of a user's feed. The `address` of a session or of a
# calendar's feed is no secret.
SECRET = re.compile(r".*token|.*secret|key|address_with_names|feed_address")


def _properties(document, part):
    """Yield all property names in a part of the document, and `feed_address` (see `SECRET`)."""
    part = contract.resolve(document, part)
    for name, inner in part.get("properties", {}).items():
        yield "feed_address" if name == "address" and "secret" in str(inner) else name
        yield from _properties(document, inner)
    for inner in [part.get("items", {}), *part.get("allOf", []), *part.get("oneOf", [])]:
        if inner:
            yield from _properties(document, inner)
