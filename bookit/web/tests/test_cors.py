"""Browser clients from other origins."""

import pytest

ORIGIN = "https://app.example.com"


@pytest.fixture(autouse=True)
def _allow_one_origin(settings):
    settings.CORS_ALLOWED_ORIGINS = [ORIGIN]
    settings.CORS_ALLOW_HEADERS = ["authorization", "content-type"]
    settings.CORS_EXPOSE_HEADERS = ["X-Request-ID"]
    settings.MIDDLEWARE = [
        settings.MIDDLEWARE[0],
        "corsheaders.middleware.CorsMiddleware",
        *settings.MIDDLEWARE[1:],
    ]


def test_a_browser_on_a_listed_origin_may_send_a_token(client):
    answer = client.options(
        "/bookings",
        headers={
            "origin": ORIGIN,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization",
        },
    )

    assert answer.status_code == 200
    assert answer["Access-Control-Allow-Origin"] == ORIGIN
    assert "authorization" in answer["Access-Control-Allow-Headers"]


def test_errors_can_be_read_by_a_listed_origin(client):
    answer = client.get("/bookings", headers={"origin": ORIGIN})

    assert answer.status_code == 401
    assert answer["Access-Control-Allow-Origin"] == ORIGIN
    assert answer["Access-Control-Expose-Headers"] == "X-Request-ID"


def test_other_origins_get_no_cors_headers(client):
    answer = client.get("/health", headers={"origin": "https://elsewhere.example.com"})

    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer
