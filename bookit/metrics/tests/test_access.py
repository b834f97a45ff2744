"""Only programs on the server itself, and programs that have METRICS_TOKEN, see the metrics."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from bookit.runtime import environment

pytestmark = pytest.mark.django_db

TOKEN = "V3ry-l0ng-and-secret-token"
LOOPBACK, REMOTE = "127.0.0.1", "198.51.100.7"


@pytest.fixture
def get(api, settings):
    """Return a function that requests /metrics and returns the response."""

    def get(peer=LOOPBACK, *, host="localhost", proxies=0, configured="", **headers):
        settings.NUM_PROXIES = proxies
        settings.METRICS_TOKEN = configured
        return api.get("/metrics", REMOTE_ADDR=peer, HTTP_HOST=host, **headers)

    return get


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "[::1]", ""])
def test_a_program_on_the_server_needs_no_token(get, peer, host):
    assert get(peer, host=host).status_code == 200


def test_other_clients_cannot_see_the_metrics_by_default(get):
    for token in ("", "None", TOKEN):
        response = get(REMOTE, HTTP_AUTHORIZATION=f"Bearer {token}")
        assert (response.status_code, response.json()["code"]) == (403, "permission_denied")
        assert b"bookit_" not in response.content
    assert get("").status_code == 403  # a client of a Unix socket


@pytest.mark.parametrize(
    ("proxies", "headers"),
    [
        # A proxy on this machine, although NUM_PROXIES says that there is no proxy.
        (0, {"HTTP_X_FORWARDED_FOR": REMOTE}),
        (0, {"HTTP_X_FORWARDED_FOR": LOOPBACK}),
        (0, {"HTTP_X_REAL_IP": REMOTE}),
        (0, {"HTTP_FORWARDED": f"for={REMOTE}"}),
        (0, {"HTTP_VIA": "1.1 proxy"}),
        # The proxy appends the IP address of the client to the header that the client has sent.
        (1, {"HTTP_X_FORWARDED_FOR": REMOTE}),
        (1, {"HTTP_X_FORWARDED_FOR": f"{LOOPBACK}, {REMOTE}"}),
        # There is one proxy, although NUM_PROXIES is 2, so the client wrote the first entry.
        (2, {"HTTP_X_FORWARDED_FOR": f"{LOOPBACK}, {REMOTE}"}),
        # A proxy that does not report the IP address of the client.
        (1, {"HTTP_X_FORWARDED_PROTO": "https"}),
        (1, {"HTTP_X_FORWARDED_FOR": ""}),
    ],
)
def test_a_client_behind_a_proxy_is_refused(get, proxies, headers):
    assert get(LOOPBACK, proxies=proxies, **headers).status_code == 403


def test_a_program_on_the_server_may_use_a_local_proxy_or_no_proxy(get):
    assert get(LOOPBACK, proxies=1, HTTP_X_FORWARDED_FOR=LOOPBACK).status_code == 200
    assert get(LOOPBACK, proxies=1).status_code == 200
    # A proxy on another machine reports the loopback address of that machine.
    assert get(REMOTE, proxies=1, HTTP_X_FORWARDED_FOR=LOOPBACK).status_code == 403


# Django does not accept host names with "_".
@pytest.mark.parametrize("host", ["evil.example.com", "not_valid.example.com:8000"])
def test_dns_rebinding_does_not_expose_the_metrics(get, host):
    """The name of another site resolves to 127.0.0.1 in a browser on the server."""
    assert get(LOOPBACK, host=host).status_code == 403


@pytest.mark.parametrize("host", ["10.0.0.5:8000", "bookit.internal"])
def test_a_token_opens_the_metrics_to_other_machines(get, host):
    sent = {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}
    assert get(REMOTE, host=host, configured=TOKEN, **sent).status_code == 200
    # A program on the server still needs no token.
    assert get(LOOPBACK, host="localhost", configured=TOKEN).status_code == 200


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
def test_a_missing_or_wrong_token_is_refused(get, header, code):
    response = get(REMOTE, configured=TOKEN, HTTP_AUTHORIZATION=header)
    assert (response.status_code, response.json()["code"]) == (401, code)
    assert response["WWW-Authenticate"] == "Bearer"


def test_only_reading_is_allowed(api):
    assert api.post("/metrics", HTTP_HOST="localhost").status_code == 405
    assert api.head("/metrics", HTTP_HOST="localhost").status_code == 200


@pytest.mark.parametrize("token", ["short", "with a blank in the middle of it", "ü" * 30])
def test_a_short_or_malformed_setting_is_refused(monkeypatch, token):
    monkeypatch.setenv("METRICS_TOKEN", token)
    with pytest.raises(ImproperlyConfigured, match=r"METRICS_TOKEN must have at least 20") as error:
        environment.secret("METRICS_TOKEN", at_least=20)
    assert token not in str(error.value)


def test_a_token_can_be_read_from_a_file(monkeypatch, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.delenv("METRICS_TOKEN", raising=False)
    monkeypatch.setenv("METRICS_TOKEN_FILE", str(tmp_path / "token"))
    assert environment.secret("METRICS_TOKEN", at_least=20) == TOKEN


def test_a_rate_limit_of_a_remote_client_does_not_stop_local_scrapes(get, settings):
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "anon": "3/day"}
    for _ in range(4):
        status = get(REMOTE, configured=TOKEN).status_code
    assert status == 429
    assert get(LOOPBACK).status_code == 200


def test_other_requests_from_the_same_address_do_not_stop_scrapes(api, get, settings):
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "anon": "1/day"}
    assert [api.get("/errors").status_code for _ in range(2)] == [200, 429]
    assert get().status_code == 200


def test_successful_scrapes_are_not_logged(get, log_lines):
    get()
    assert log_lines() == []
    get(REMOTE)
    assert [line["status"] for line in log_lines()] == [403]
