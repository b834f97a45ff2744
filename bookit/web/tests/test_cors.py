"""Browser clients whose pages come from another origin than the API."""

import pytest

from bookit import deadlines
from bookit.tests.expect import problem

ORIGIN = "https://app.example.com"


@pytest.fixture(autouse=True)
def _allow_one_origin(settings):
    settings.CORS_ALLOWED_ORIGINS = [ORIGIN]
    settings.CORS_ALLOW_HEADERS = ["authorization", "content-type"]
    settings.CORS_EXPOSE_HEADERS = ["X-Request-ID"]
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE[:2],
        "corsheaders.middleware.CorsMiddleware",
        *settings.MIDDLEWARE[2:],
    ]


def test_a_browser_on_a_listed_origin_may_send_a_token(client):
    response = client.options(
        "/bookings",
        headers={
            "origin": ORIGIN,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization",
        },
    )

    assert response.status_code == 200
    assert response["Access-Control-Allow-Origin"] == ORIGIN
    assert "authorization" in response["Access-Control-Allow-Headers"]


def test_a_browser_on_a_listed_origin_can_read_errors(client):
    response = client.get("/bookings", headers={"origin": ORIGIN})

    assert response.status_code == 401
    assert response["Access-Control-Allow-Origin"] == ORIGIN
    assert response["Access-Control-Expose-Headers"] == "X-Request-ID"


def test_a_browser_on_a_listed_origin_can_read_that_a_method_is_not_allowed(client):
    response = client.post("/health", headers={"origin": ORIGIN})

    problem(response, 405, "method_not_allowed")
    assert response["Allow"] == "GET, HEAD"
    assert response["Access-Control-Allow-Origin"] == ORIGIN


def test_a_browser_on_a_listed_origin_can_read_that_the_server_is_busy(client, monkeypatch):
    monkeypatch.setattr(deadlines, "begin", lambda: False)
    response = client.get("/services", headers={"origin": ORIGIN})

    problem(response, 503, "service_unavailable")
    assert response["Access-Control-Allow-Origin"] == ORIGIN


def test_a_browser_on_another_origin_gets_no_cors_headers(client):
    response = client.get("/health", headers={"origin": "https://elsewhere.example.com"})

    assert response.status_code == 200
    assert "Access-Control-Allow-Origin" not in response
