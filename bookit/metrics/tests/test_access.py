"""Only programs on the server itself see the metrics, and those that have METRICS_TOKEN."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from bookit.runtime import environment

pytestmark = pytest.mark.django_db

TOKEN = "V3ry-l0ng-and-secret-token"
HERE, THERE = "127.0.0.1", "198.51.100.7"


@pytest.fixture
def get(api, settings):
    """Return a function that requests /metrics and returns the response."""

    def get(peer=HERE, *, host="localhost", proxies=0, token="", **headers):
        settings.NUM_PROXIES = proxies
        settings.METRICS_TOKEN = token
        return api.get("/metrics", REMOTE_ADDR=peer, HTTP_HOST=host, **headers)

    return get


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "[::1]", ""])
def test_a_program_on_the_server_needs_no_token(get, peer, host):
    assert get(peer, host=host).status_code == 200


def test_nobody_else_sees_the_metrics_by_default(get):
    for token in ("", "None", TOKEN):
        response = get(THERE, HTTP_AUTHORIZATION=f"Bearer {token}")
        assert (response.status_code, response.json()["code"]) == (403, "permission_denied")
        assert b"bookit_" not in response.content
    assert get("").status_code == 403  # a socket file


@pytest.mark.parametrize(
    ("proxies", "headers"),
    [
        # A proxy on this machine, of which BookIt has not been told.
        (0, {"HTTP_X_FORWARDED_FOR": THERE}),
        (0, {"HTTP_X_FORWARDED_FOR": HERE}),
        (0, {"HTTP_X_REAL_IP": THERE}),
        (0, {"HTTP_FORWARDED": f"for={THERE}"}),
        (0, {"HTTP_VIA": "1.1 proxy"}),
        # The proxy appends the client to what the client has sent.
        (1, {"HTTP_X_FORWARDED_FOR": THERE}),
        (1, {"HTTP_X_FORWARDED_FOR": f"{HERE}, {THERE}"}),
        # A proxy fewer than NUM_PROXIES says: the client wrote the first entry.
        (2, {"HTTP_X_FORWARDED_FOR": f"{HERE}, {THERE}"}),
        # A proxy that does not report the client.
        (1, {"HTTP_X_FORWARDED_PROTO": "https"}),
        (1, {"HTTP_X_FORWARDED_FOR": ""}),
    ],
)
def test_the_real_client_counts_behind_a_proxy(get, proxies, headers):
    assert get(HERE, proxies=proxies, **headers).status_code == 403


def test_a_client_on_the_server_may_use_the_proxy(get):
    assert get(HERE, proxies=1, HTTP_X_FORWARDED_FOR=HERE).status_code == 200
    assert get(HERE, proxies=1).status_code == 200
    # The loopback of another machine proves nothing.
    assert get(THERE, proxies=1, HTTP_X_FORWARDED_FOR=HERE).status_code == 403


def test_a_page_of_another_site_cannot_read_the_metrics_through_its_own_name(get):
    """DNS rebinding: the name of the site resolves to 127.0.0.1 in the visitor's browser."""
    assert get(HERE, host="evil.example.com").status_code == 403


@pytest.mark.parametrize("host", ["10.0.0.5:8000", "bookit.internal"])
def test_a_token_opens_the_metrics_to_other_machines(get, host):
    sent = {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}
    assert get(THERE, host=host, token=TOKEN, **sent).status_code == 200
    assert get(HERE, host="localhost", token=TOKEN).status_code == 200


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("", "not_authenticated"),
        (f"Basic {TOKEN}", "token_invalid"),
        (TOKEN, "not_authenticated"),
        (f"Bearer {TOKEN[:-1]}", "token_invalid"),
        (f"Bearer {TOKEN}x", "token_invalid"),
        ("Bearer \xff", "token_invalid"),
    ],
)
def test_a_wrong_token_is_refused(get, header, code):
    response = get(THERE, token=TOKEN, HTTP_AUTHORIZATION=header)
    assert (response.status_code, response.json()["code"]) == (401, code)
    assert response["WWW-Authenticate"] == "Bearer"


def test_only_reading_is_allowed(api):
    assert api.post("/metrics", HTTP_HOST="localhost").status_code == 405
    assert api.head("/metrics", HTTP_HOST="localhost").status_code == 200


@pytest.mark.parametrize("token", ["short", "with a blank in the middle of it", "ü" * 30])
def test_a_weak_token_is_refused_at_start_up(monkeypatch, token):
    monkeypatch.setenv("METRICS_TOKEN", token)
    with pytest.raises(ImproperlyConfigured, match=r"METRICS_TOKEN must have at least 20") as error:
        environment.secret("METRICS_TOKEN", at_least=20)
    assert token not in str(error.value)


def test_a_token_can_be_read_from_a_file(monkeypatch, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.delenv("METRICS_TOKEN", raising=False)
    monkeypatch.setenv("METRICS_TOKEN_FILE", str(tmp_path / "token"))
    assert environment.secret("METRICS_TOKEN", at_least=20) == TOKEN


def test_scrapes_are_counted_apart_from_other_requests(get, settings):
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "anon": "3/day"}
    for _ in range(4):
        status = get(THERE, token=TOKEN).status_code
    assert status == 429
    assert get(HERE).status_code == 200


def test_successful_scrapes_are_not_logged(get, log_lines):
    get()
    assert log_lines() == []
    get(THERE)
    assert [line["status"] for line in log_lines()] == [403]
