"""Settings from the environment and from `.env`, and the line that refuses a wrong value."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from datetime import timedelta

import pytest
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.test.utils import override_settings
from psycopg.conninfo import conninfo_to_dict

from bookit.runtime import environment
from bookit.runtime.startup import BASE_DIR

STRONG = "T2xoYfT0T9mXq1k7cVb3nR8sLwE5uZ6pHdJ4gKyA-iMOxQNB_vFz"
PRODUCTION = {
    "APP_ENV": "production",
    "SECRET_KEY": STRONG,
    "DATABASE_URL": "postgresql://bookit:secret@db.example.com:5433/bookings",
    "ALLOWED_HOSTS": "bookings.example.com",
    "EMAIL_URL": "dummymail://",
}


@pytest.fixture
def load(monkeypatch):
    """Return a function that reads the settings with the given variables; all others are empty."""
    for name in environment.known:
        # If the variable were deleted instead, a developer's own `.env` would set it.
        monkeypatch.setenv(name, "")

    def _load(**variables):
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            return runpy.run_path(str(BASE_DIR / "bookit" / "settings.py"))

    return _load


@pytest.fixture
def refuse(load):
    """Return a function that reads invalid settings, and returns the line that refuses them."""

    def _refuse(**variables):
        with pytest.raises(ImproperlyConfigured) as caught:
            load(**variables)
        line = str(caught.value)
        assert "\n" not in line
        assert len(line) < 300
        return line

    return _refuse


# --- development and production ---------------------------------------------------------------


def test_development_needs_no_variables(load):
    settings = load()
    assert settings["APP_ENV"] == "development"
    assert settings["ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]", "testserver"]
    assert settings["BUSINESS_NAME"] == "BookIt"
    assert settings["DEBUG"] is False
    assert "SESSION_COOKIE_SECURE" not in settings


def test_production_uses_its_variables(load):
    settings = load(**PRODUCTION)
    assert settings["SECRET_KEY"] == STRONG
    assert settings["ALLOWED_HOSTS"] == ["bookings.example.com"]
    assert settings["DEBUG"] is False
    database = settings["DATABASES"]["default"]
    assert {name: database[name] for name in ("USER", "PASSWORD", "HOST", "PORT", "NAME")} == {
        "USER": "bookit",
        "PASSWORD": "secret",
        "HOST": "db.example.com",
        "PORT": 5433,
        "NAME": "bookings",
    }
    assert settings["SESSION_COOKIE_SECURE"] is True
    assert settings["CSRF_COOKIE_SECURE"] is True
    assert settings["SECURE_HSTS_SECONDS"] == 365 * 24 * 3600
    assert "SECURE_PROXY_SSL_HEADER" not in settings


def test_hsts_includes_subdomains_and_allows_preloading_only_if_enabled(load, refuse):
    settings = load(**PRODUCTION)
    assert settings["SECURE_HSTS_INCLUDE_SUBDOMAINS"] is False
    assert settings["SECURE_HSTS_PRELOAD"] is False
    enabled = load(**PRODUCTION, HSTS_SUBDOMAINS="true", HSTS_PRELOAD="true")
    assert enabled["SECURE_HSTS_INCLUDE_SUBDOMAINS"] is True
    assert enabled["SECURE_HSTS_PRELOAD"] is True
    assert load(**PRODUCTION, HSTS_SECONDS="0")["SECURE_HSTS_SECONDS"] == 0
    for more in ({}, {"HSTS_SUBDOMAINS": "true", "HSTS_SECONDS": "60"}):
        assert refuse(**PRODUCTION, HSTS_PRELOAD="true", **more).startswith("HSTS_PRELOAD needs ")


def test_admins_can_sign_in_over_plain_http_if_enabled(load):
    settings = load(**PRODUCTION, ADMIN_OVER_HTTP="true")
    assert settings["SESSION_COOKIE_SECURE"] is False
    assert settings["CSRF_COOKIE_SECURE"] is False


@pytest.mark.parametrize("name", ["SECRET_KEY", "DATABASE_URL", "ALLOWED_HOSTS", "EMAIL_URL"])
@pytest.mark.parametrize("value", ["", "   "])
def test_a_missing_variable_in_production_is_explained(refuse, name, value):
    line = refuse(**{**PRODUCTION, name: value})
    assert line.startswith(f"{name} must be set in production: ")
    assert len(line) > len(f"{name} must be set in production: ") + 20


@pytest.mark.parametrize(
    "weak",
    [
        "x",
        "x" * 100,
        "0123456789" * 4,
        "abcabcabc" * 10,
        STRONG[:49],
        "development-only-key-that-is-refused-in-production-0123456789",
    ],
)
def test_a_weak_key_in_production_is_refused_with_advice(refuse, load, weak):
    line = refuse(**{**PRODUCTION, "SECRET_KEY": weak})
    assert line.startswith("SECRET_KEY is too weak")
    assert "secrets.token_urlsafe" in line
    assert weak not in line
    assert load(SECRET_KEY=weak)["SECRET_KEY"] == weak  # Development accepts it.


def test_the_development_key_is_refused_in_production(load, refuse):
    default = load()["SECRET_KEY"]
    assert "too weak" in refuse(**{**PRODUCTION, "SECRET_KEY": default})


@pytest.mark.parametrize("name", ["prod", "test", "1"])
def test_an_unknown_environment_is_refused(refuse, name):
    assert refuse(APP_ENV=name) == (
        f"APP_ENV must be one of development, production, not {name!r}."
    )


# --- single variables -------------------------------------------------------------------------

# The minimum of each setting that is a number, except COMPOSE_PROXIES, which has its own test.
MINIMA = {
    "PORT": 0,
    "WEB_CONCURRENCY": 1,
    "WEB_THREADS": 1,
    "WORKER_CONCURRENCY": 1,
    "DATABASE_POOL_SIZE": 0,
    "DATABASE_REPLICA_MAX_LAG_MS": 1,
    "STATEMENT_TIMEOUT_MS": 0,
    "ANON_TIMEOUT_MS": 0,
    "NUM_PROXIES": 0,
    "HSTS_SECONDS": 0,
    "HOLD_MINUTES": 1,
    "WAITLIST_OFFER_MINUTES": 1,
    "MAIL_PAUSE_SECONDS": 0,
    "MAILS_PER_ACCOUNT": 1,
    "MAILS_PER_BOOKING": 1,
    "MAILS_PER_ADDRESS": 1,
    "MAILS_PER_VERIFIED_ADDRESS": 1,
    "ACCESS_TOKEN_EXPIRE_MINUTES": 1,
    "REFRESH_TOKEN_EXPIRE_DAYS": 1,
}


@pytest.mark.parametrize("name", MINIMA)
@pytest.mark.parametrize(
    "value", ["five", "-1", "1.5", "1e3", "0x10", "\uff15", "1 2", "5s", "9" * 11, "9" * 5000]
)
def test_a_value_that_is_not_a_whole_number_in_range_is_refused(refuse, name, value):
    assert refuse(**{name: value}).startswith(f"{name} must be a whole number from ")


@pytest.mark.parametrize("name", MINIMA)
def test_numbers_have_defaults_and_may_have_blanks_around_them(load, name):
    assert load(**{name: ""})
    assert load(**{name: " 3 "})


@pytest.mark.parametrize(("name", "minimum"), MINIMA.items())
def test_numbers_have_a_minimum(load, refuse, name, minimum):
    assert load(**{name: str(minimum)})
    if minimum:
        assert refuse(**{name: str(minimum - 1)}).startswith(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCESS_TOKEN_EXPIRE_MINUTES", "999999999"),
        ("REFRESH_TOKEN_EXPIRE_DAYS", "999999999"),
        ("STATEMENT_TIMEOUT_MS", "2147483648"),
    ],
)
def test_numbers_that_are_too_large_are_refused(refuse, name, value):
    assert refuse(**{name: value}).startswith(name)


@pytest.mark.parametrize(
    ("value", "times"), [("", [24]), ("48, 2", [2, 48]), ("2,48,2", [2, 48]), ("720", [720])]
)
def test_there_can_be_several_reminders(load, value, times):
    found = load(REMINDER_HOURS=value)["REMINDER_TIMES"]
    assert found == [timedelta(hours=each) for each in times]


@pytest.mark.parametrize(
    "value", ["0", "721", "48;2", "1.5", "\uff15", "1,2,3,4,5,6", "9" * 11, "9" * 5000, "-1"]
)
def test_invalid_reminder_hours_are_refused(refuse, value):
    assert refuse(REMINDER_HOURS=value).startswith(
        "REMINDER_HOURS must be up to five numbers of hours from 1 to 720, such as 48,2, not "
    )


def test_the_urls_of_the_front_end_and_the_logo_must_be_complete(load, refuse):
    settings = load(PUBLIC_URL="https://app.example.com/")
    assert settings["PUBLIC_URL"] == "https://app.example.com"
    for name in ("PUBLIC_URL", "BUSINESS_LOGO_URL"):
        assert refuse(**{name: "app.example.com"}).startswith(
            f"{name} must be a URL such as https://app.example.com"
        )


PASSWORD = "hunter2"
BAD_DATABASE_URLS = [
    "nonsense",
    "postgresql://",
    "postgresql://localhost",
    "postgresql://localhost/",
    "postgresql://user:hunter2@localhost:port/bookit",
    "postgresql://user:hunter2@localhost:99999/bookit",
    "postgresql://user:hunter2@[::1/bookit",
    "sqlite:///bookit.db",
    "mysql://user:hunter2@localhost/bookit",
    "postgres-ql://user:hunter2@localhost/bookit",
    "mongodb://localhost/bookit",
    "http://localhost/bookit",
    "localhost:5432/bookit",
    "://",
    # A slash or a question mark in the password makes the text before it look like a host.
    "postgresql://user:12/hunter2@localhost/bookit",
    "postgresql://user:12?hunter2@localhost/bookit",
    # A percent sign must begin an encoded character.
    "postgresql://user:hunter2%@localhost/bookit",
    "postgresql://user:hunter2%zz@localhost/bookit",
]


@pytest.mark.parametrize("name", ["DATABASE_URL", "DATABASE_DIRECT_URL", "DATABASE_REPLICA_URL"])
@pytest.mark.parametrize("url", BAD_DATABASE_URLS)
def test_a_bad_database_url_is_refused_without_showing_its_password(refuse, name, url, recwarn):
    line = refuse(**{name: url})
    assert not list(recwarn)  # A warning of django-environ would show the password.
    assert line.startswith(
        f"{name} must look like postgresql://user:password@host:5432/database. Percent-encode "
    )
    assert PASSWORD not in line


@pytest.mark.parametrize("name", ["DATABASE_URL", "DATABASE_DIRECT_URL", "DATABASE_REPLICA_URL"])
def test_an_unknown_parameter_of_a_database_url_is_refused(load, refuse, name):
    line = refuse(**{name: "postgresql://u:hunter2@h/d?sslmod=require"})
    assert line.startswith(f"{name} has a parameter after its ? that PostgreSQL does not know")
    assert PASSWORD not in line
    assert load(**{name: "postgresql://u:hunter2@h/d?sslmode=require"})


def test_the_default_currency_can_be_set(load):
    assert load()["DEFAULT_CURRENCY"] == "USD"
    assert load(DEFAULT_CURRENCY=" EUR ")["DEFAULT_CURRENCY"] == "EUR"
    assert load(DEFAULT_CURRENCY="eur")["DEFAULT_CURRENCY"] == "EUR"


@pytest.mark.parametrize("code", ["EURO", "XXX", "XXZ", "XAU", "DEM", "978"])
def test_a_code_that_is_not_a_currency_in_use_is_refused(refuse, code):
    line = refuse(DEFAULT_CURRENCY=code)
    assert line.startswith("DEFAULT_CURRENCY must be the ISO 4217 code of a currency in use")
    assert repr(code) in line


@pytest.mark.parametrize(
    ("url", "part", "value"),
    [
        ("postgres://u@h/d", "NAME", "d"),
        ("postgresql://u:p%40ss%2Fw@h/d", "PASSWORD", "p@ss/w"),
        ("postgresql://u:pa#ss@h/d", "PASSWORD", "pa#ss"),
        ("postgresql://u:pa@ss@h/d", "PASSWORD", "pa@ss"),
        ("postgresql://u:pa@ss@h/d", "HOST", "h"),
        ("postgresql://u:p@h/d?application_name=bookit", "HOST", "h"),
        ("postgresql://u:p@[2001:db8::1]:5433/d", "HOST", "2001:db8::1"),
        ("postgresql:///d", "HOST", ""),
        (" postgresql://u@h/d ", "NAME", "d"),
    ],
)
def test_valid_database_urls_are_understood(load, url, part, value):
    """Django and libpq, which workers use, read the same values from a URL."""
    settings = load(DATABASE_URL=url, DATABASE_DIRECT_URL=url)
    assert settings["DATABASES"]["default"][part] == value
    direct = conninfo_to_dict(settings["DATABASE_DIRECT_URL"])
    libpq = {"NAME": "dbname", "PASSWORD": "password", "HOST": "host"}
    assert direct.get(libpq[part], "") == value


def test_the_command_line_options_of_a_database_url_are_kept(load):
    settings = load(DATABASE_URL="postgresql://h/d?options=-csearch_path%3Down")
    options = settings["DATABASES"]["default"]["OPTIONS"]["options"]
    assert options.startswith("-csearch_path=own -c statement_timeout=")
    usual = load(DATABASE_URL="postgresql://h/d")["DATABASES"]["default"]["OPTIONS"]["options"]
    assert usual.startswith("-c statement_timeout=")


def test_each_thread_keeps_a_connection_unless_threads_share_a_pool(load):
    own = load(WEB_THREADS="7", DATABASE_POOL_SIZE="")["DATABASES"]["default"]
    shared = load(WEB_THREADS="7", DATABASE_POOL_SIZE="3")["DATABASES"]["default"]
    pgbouncer = load(WEB_THREADS="7", DATABASE_POOL_SIZE="0")["DATABASES"]["default"]
    assert shared["OPTIONS"]["pool"]["max_size"] == 3
    assert (shared["CONN_MAX_AGE"], shared["CONN_HEALTH_CHECKS"]) == (0, False)
    for database in (own, pgbouncer):
        assert "pool" not in database["OPTIONS"]
        assert (database["CONN_MAX_AGE"], database["CONN_HEALTH_CHECKS"]) == (None, True)
    for database in (own, shared, pgbouncer):
        assert "statement_timeout=5000" in database["OPTIONS"]["options"]


def test_behind_pgbouncer_statements_are_prepared_only_if_enabled_and_cursors_are_disabled(load):
    own = load()["DATABASES"]["default"]
    shared = load(WEB_THREADS="7", DATABASE_POOL_SIZE="3")["DATABASES"]["default"]
    pgbouncer = load(DATABASE_POOL_SIZE="0")["DATABASES"]["default"]
    enabled = load(DATABASE_POOL_SIZE="0", DATABASE_PREPARED_STATEMENTS="true")["DATABASES"]
    for database in (own, shared, enabled["default"]):
        assert database["OPTIONS"]["server_side_binding"] is True
        assert database["OPTIONS"]["prepare_threshold"] == 3
    assert not {"server_side_binding", "prepare_threshold"} & pgbouncer["OPTIONS"].keys()
    for database in (own, shared):
        assert database["DISABLE_SERVER_SIDE_CURSORS"] is False
    for database in (pgbouncer, enabled["default"]):
        assert database["DISABLE_SERVER_SIDE_CURSORS"] is True


def test_each_url_of_a_replica_is_a_database_that_is_only_read(load):
    one = "postgresql://ada:hunter2@one:5433/bookings"
    hosts = "postgres://ada@two,three:5434/bookings?sslmode=require"
    settings = load(DATABASE_REPLICA_URL=f"{one}, {hosts}", STATEMENT_TIMEOUT_MS="700")
    databases = settings["DATABASES"]
    assert [*databases] == ["default", "replica1", "replica2"]
    assert (databases["replica1"]["HOST"], databases["replica1"]["PORT"]) == ("one", 5433)
    assert databases["replica2"]["HOST"] == "two,three"
    for alias in ("replica1", "replica2"):
        options = databases[alias]["OPTIONS"]["options"]
        assert "statement_timeout=700" in options
        assert "default_transaction_read_only=on" in options
    assert "read_only" not in databases["default"]["OPTIONS"]["options"]
    assert settings["DATABASE_ROUTERS"]
    alone = load()
    assert ([*alone["DATABASES"]], alone["DATABASE_ROUTERS"]) == (["default"], [])
    assert "replica2" in load(DATABASE_REPLICA_URL=f"{one},{one}")["DATABASES"]


@pytest.mark.parametrize(
    "name",
    [
        "RATE_LIMIT_AUTH",
        "RATE_LIMIT_PASSWORD",
        "RATE_LIMIT_ANON",
        "RATE_LIMIT_USER",
        "RATE_LIMIT_KEY",
    ],
)
def test_a_bad_rate_is_refused(load, refuse, name):
    several = [f"10/minute{between}100/day" for between in (";", ",", "|", " ; ")]
    for value in (
        *(
            "ten",
            "10",
            "10/fortnight",
            "/minute",
            "0/minute",
            "-1/minute",
            "ten/minute",
            "1/99999999999day",
        ),
        *several,
    ):
        assert refuse(**{name: value}).startswith(f"{name} must be one rate such as ")
    for value in ("", "  ", "5/second", "100/hour", "10 per minute"):
        policy = name.removeprefix("RATE_LIMIT_").lower()
        assert load(**{name: value})["RATE_LIMITS"][policy] == value.strip()


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("", ""),
        ("redis://cache", "redis://cache:6379"),
        ("redis://cache:6380/2", "redis://cache:6380/2"),
        ("rediss://[2001:db8::1]:6379/0", "rediss://[2001:db8::1]:6379/0"),
        ("redis://:hunter2@cache:6379/0", "redis://:hunter2@cache:6379/0"),
        # Special characters may be percent-encoded, but # and @ need not be.
        ("redis://ada:hunt#er%2F2@cache/0", "redis://ada:hunt%23er%2F2@cache:6379/0"),
        ("rediss://cache/0?ssl_cert_reqs=none", "rediss://cache:6379/0?ssl_cert_reqs=none"),
    ],
)
def test_valid_redis_urls_are_understood(load, value, url):
    assert load(REDIS_URL=value)["REDIS_URL"] == url


def test_the_url_of_redis_can_be_in_a_file(load, tmp_path):
    (tmp_path / "redis").write_text("redis://:hunter2@cache/0\n")
    found = load(REDIS_URL_FILE=str(tmp_path / "redis"))
    assert found["REDIS_URL"] == "redis://:hunter2@cache:6379/0"


@pytest.mark.parametrize(
    "value",
    [
        "cache:6379",
        "http://:hunter2@cache",
        "redis://",
        "redis://:hunter2@cache:port/0",
        "redis://:hunter2@cache/queue",
        "redis://:hunter2@one,two/0",
    ],
)
def test_a_bad_url_of_redis_is_refused_without_showing_its_password(refuse, value):
    line = refuse(REDIS_URL=value)
    assert line.startswith("REDIS_URL must look like redis://:password@host:6379/0, ")
    assert PASSWORD not in line


@pytest.mark.parametrize("parameter", ["colour=red", "protocol=9", "socket_timeout=long"])
def test_an_unknown_parameter_of_the_url_of_redis_is_refused(refuse, parameter):
    line = refuse(REDIS_URL=f"redis://cache/0?{parameter}")
    assert line.startswith("REDIS_URL has a parameter after its ? that the client of Redis does ")


@pytest.mark.parametrize("name", ["CORS_ALLOWED_ORIGINS", "CSRF_TRUSTED_ORIGINS"])
def test_a_bad_origin_is_refused(load, refuse, name):
    for value in (
        "app.example.com",
        "https://app.example.com/",
        "https://app.example.com/path",
        "ftp://app.example.com",
        "https://a.example.com https://b.example.com",
        "https://a.example.com,b.example.com",
        "https://fd00::1",
        "https://app.*.com",
        "*",
    ):
        assert refuse(**{name: value}).startswith(f"{name} must be origins such as ")
    good = ["https://a.example.com", "http://localhost:3000", "https://[fd00::1]:8443"]
    assert load(**{name: ", ".join([*good, "", ""])})[name] == good


@pytest.mark.parametrize("name", ["CORS_ALLOWED_ORIGINS", "CSRF_TRUSTED_ORIGINS"])
@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://App.Example.com", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("http://localhost:80", "http://localhost"),
        ("HTTPS://[fd00::443]:443", "https://[fd00::443]"),
        ("https://app.example.com:80", "https://app.example.com:80"),
        ("http://app.example.com:443", "http://app.example.com:443"),
        ("https://app.example.com:8443", "https://app.example.com:8443"),
    ],
)
def test_an_origin_is_compared_as_browsers_send_it(load, name, written, sent):
    """Browsers send it in lower case, without the default port."""
    assert load(**{name: written})[name] == [sent]


def test_only_trusted_origins_can_have_a_wildcard(load, refuse):
    """django-cors-headers compares whole origins, so a wildcard would match nothing."""
    origin = "https://*.example.com"
    assert load(CSRF_TRUSTED_ORIGINS=origin)["CSRF_TRUSTED_ORIGINS"] == [origin]
    assert refuse(CORS_ALLOWED_ORIGINS=origin).startswith("CORS_ALLOWED_ORIGINS must be origins ")


def test_a_bad_host_is_refused(load, refuse):
    for value in (
        *("https://example.com", "example.com/", "example.com:8000", "a b", "::1"),
        "*.example.com",  # Django would take the asterisk for a part of the name.
    ):
        line = refuse(**{**PRODUCTION, "ALLOWED_HOSTS": value})
        assert line.startswith("ALLOWED_HOSTS must be host names"), value
    good = load(ALLOWED_HOSTS="example.com, .example.org,10.0.0.1,[::1],*")["ALLOWED_HOSTS"]
    assert good == ["example.com", ".example.org", "10.0.0.1", "[::1]", "*"]


def test_an_unknown_log_level_or_format_is_refused(refuse, load):
    assert load(LOG_LEVEL="info")["LOG_LEVEL"] == "INFO"
    assert refuse(LOG_LEVEL="loud").startswith("LOG_LEVEL must be one of INFO, DEBUG,")
    assert refuse(LOG_FORMAT="xml").startswith("LOG_FORMAT must be one of json, text,")
    assert load(LOG_FORMAT="text")["LOGGING"]["handlers"]["console"]["formatter"] == "text"


def test_the_lifetimes_of_tokens_can_be_set(load):
    tokens = load(ACCESS_TOKEN_EXPIRE_MINUTES="5", REFRESH_TOKEN_EXPIRE_DAYS="30")["SIMPLE_JWT"]
    assert tokens["ACCESS_TOKEN_LIFETIME"] == timedelta(minutes=5)
    assert tokens["REFRESH_TOKEN_LIFETIME"] == timedelta(days=30)


def test_the_length_of_holds_can_be_set(load):
    assert load()["HOLD_TIME"] == timedelta(minutes=10)
    assert load(HOLD_MINUTES="3")["HOLD_TIME"] == timedelta(minutes=3)


def test_a_trusted_proxy_can_report_https(load):
    settings = load(**PRODUCTION, NUM_PROXIES="1")
    assert settings["SECURE_PROXY_SSL_HEADER"] == ("HTTP_X_FORWARDED_PROTO", "https")


def test_the_proxy_of_compose_is_added_to_num_proxies(load, refuse):
    assert load(NUM_PROXIES="", COMPOSE_PROXIES="1")["NUM_PROXIES"] == 1
    assert load(NUM_PROXIES="1", COMPOSE_PROXIES="1")["NUM_PROXIES"] == 2
    assert refuse(COMPOSE_PROXIES="2").startswith("COMPOSE_PROXIES must be a whole number")


def test_the_scheme_can_be_set_if_no_proxy_reports_it(load, refuse):
    settings = load(NUM_PROXIES="1", PUBLIC_SCHEME="HTTPS")
    assert settings["PUBLIC_SCHEME"] == "https"
    assert "SECURE_PROXY_SSL_HEADER" not in settings
    assert load()["PUBLIC_SCHEME"] == ""
    line = refuse(PUBLIC_SCHEME="ftp")
    assert line == "PUBLIC_SCHEME must be one of http, https, not 'ftp'."


def test_cors_is_installed_if_it_has_origins(load):
    cors = "corsheaders.middleware.CorsMiddleware"
    assert cors not in load()["MIDDLEWARE"]
    settings = load(CORS_ALLOWED_ORIGINS="https://app.example.com")
    # Only LanguageMiddleware and RequestMiddleware come before CorsMiddleware, so the responses of
    # all other middleware get CORS headers.
    assert settings["MIDDLEWARE"].index(cors) == 2
    assert "corsheaders" in settings["INSTALLED_APPS"]


# --- accounts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["PASSWORD_RESET_URL", "VERIFY_EMAIL_URL"])
def test_a_link_in_emails_must_contain_the_token_exactly_once(load, refuse, name):
    assert load()[name] == ""
    for link in ("https://a.example/x?t={token}", "http://localhost:3000/#/verify/{token}"):
        assert load(**{name: link})[name] == link
    for wrong in (
        *("https://a.example/", "a.example/{token}", "javascript:{token}", "https:///{token}"),
        *("https://a.example/{token}/{token}", "https://a.example/ {token}", "{token}"),
    ):
        assert refuse(**{name: wrong}).startswith(f"{name} must be a URL such as https://")


# --- email ------------------------------------------------------------------------------------


def test_development_writes_emails_to_files(load):
    assert load(EMAIL_URL="")["MAILER"] == {
        "BACKEND": "bookit.mails.files.FileBackend",
        "OPTIONS": {"file_path": str(BASE_DIR / "mails")},
    }


def test_a_missing_mail_server_in_production_is_refused_with_the_choices(refuse):
    line = refuse(**{**PRODUCTION, "EMAIL_URL": ""})
    assert line.startswith("EMAIL_URL must be set in production: ")
    for choice in ("smtp+tls://user:password@host:587", "filemail:///folder", "dummymail://"):
        assert choice in line


def test_emails_cannot_be_written_to_the_terminal(refuse):
    line = refuse(EMAIL_URL="consolemail://")
    assert line.startswith(
        "EMAIL_URL cannot be consolemail://, because no log may contain an email: "
    )


def test_a_mail_server_in_production_needs_a_sender(load, refuse):
    server = {**PRODUCTION, "EMAIL_URL": "smtp://mail.example.com"}
    assert refuse(**server).startswith("DEFAULT_FROM_EMAIL must be set in production: ")
    assert load(**server, DEFAULT_FROM_EMAIL="us@example.com")


def test_django_sends_emails_with_the_configured_server(load):
    read = load(EMAIL_URL="smtp+tls://me:hunter2@mail.example.com")
    with override_settings(**environment.mail_settings(read["MAILER"])):
        # Django 6.1 has `mailers`.
        sender = mail.mailers.default if hasattr(mail, "mailers") else mail.get_connection()
    assert (sender.host, sender.port, sender.timeout) == ("mail.example.com", 587, 10)
    assert (sender.username, sender.password, sender.use_tls) == ("me", "hunter2", True)
    # The settings module contains the same settings.
    assert read.items() >= environment.mail_settings(read["MAILER"]).items()


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("smtp://mail.example.com", ("mail.example.com", 25, "", "")),
        ("smtp://10.0.0.1:2525/", ("10.0.0.1", 2525, "", "")),
        ("smtp://[2001:db8::1]:25", ("2001:db8::1", 25, "", "")),
        ("smtp+tls://me:hunter2@h", ("h", 587, "me", "hunter2")),
        ("smtp+ssl://me:hunter2@h", ("h", 465, "me", "hunter2")),
        ("smtp+tls://me:a#b@h:587", ("h", 587, "me", "a#b")),
        ("smtp+tls://me:a@b@h:587", ("h", 587, "me", "a@b")),
        ("smtp+tls://me:a:b@h:587", ("h", 587, "me", "a:b")),
        ("smtp+tls://me@example.com:hunter2@h", ("h", 587, "me@example.com", "hunter2")),
        ("smtp+tls://me%40example.com:a%2Fb%3F%25@h", ("h", 587, "me@example.com", "a/b?%")),
    ],
)
def test_a_valid_mail_server_url_is_understood(load, url, parts):
    options = load(EMAIL_URL=url)["MAILER"]["OPTIONS"]
    assert tuple(options[name] for name in ("host", "port", "username", "password")) == parts
    assert options.get("use_tls", False) is url.startswith("smtp+tls")
    assert options.get("use_ssl", False) is url.startswith("smtp+ssl")


@pytest.mark.parametrize(
    "url",
    [
        "smtp://",
        "smtp://:25",
        "smtp+tls://me:hunter2@",
        "smtp+tls://me:hunter2@:587",
        "smtp+tls://me@mail.example.com",
        "smtp+tls://:hunter2@mail.example.com",
        "smtp+tls://me:hunter2@mail.example.com:port",
        "smtp+tls://me:hunter2@mail.example.com:0",
        "smtp+tls://me:hunter2@mail.example.com:99999",
        "smtp+tls://me:12/hunter2@mail.example.com",
        "smtp+tls://me:12?hunter2@mail.example.com",
        "smtp+tls://me:hunter2%@mail.example.com",
        "smtp+tls://me:hunter2#mail.example.com",
        "smtp://a.example.com,b.example.com",
        "smtp://mail.example.com/folder",
        "smtp://mail.example.com?ssl=true",
        "smtps://me:hunter2@mail.example.com",
        "filemail://mails",
        "mail.example.com",
        "memorymail://",
        "nonsense",
    ],
)
def test_a_bad_mail_server_url_is_refused_without_showing_its_password(refuse, url):
    line = refuse(EMAIL_URL=url)
    assert line.startswith("EMAIL_URL is not understood: smtp+tls://user:password@host:587 ")
    assert "Percent-encode special characters" in line
    assert PASSWORD not in line


@pytest.mark.parametrize(
    "address",
    [
        "bookings",
        "bookings@",
        "@example.com",
        "a b@example.com",
        "BookIt bookings@example.com",
        "BookIt <bookings>",
        "a@example.com, b@example.com",
        "a@example.com\nBcc: b@example.com",
        "Book\nIt <a@example.com>",
        '"Book\nIt" <a@example.com>',
    ],
)
def test_a_bad_sender_is_refused(refuse, address):
    assert refuse(DEFAULT_FROM_EMAIL=address).startswith(
        "DEFAULT_FROM_EMAIL must be an email address"
    )


@pytest.mark.parametrize(
    "address", ["bookings@example.com", "BookIt <bookings@example.com>", '"Book, It" <a@localhost>']
)
def test_valid_senders_are_accepted(load, address):
    assert load(DEFAULT_FROM_EMAIL=f" {address} ")["DEFAULT_FROM_EMAIL"] == address


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SECRET_KEY", "DATABASE_URL", "DATABASE_DIRECT_URL", "EMAIL_URL"])
def test_a_secret_can_be_in_a_file(load, refuse, tmp_path, name):
    url = "smtp://mail.example.com" if name == "EMAIL_URL" else "postgresql://u:p@h/d"
    (tmp_path / "secret").write_text(f"{url}\n")
    changed = load(**{f"{name}_FILE": str(tmp_path / "secret")})
    is_read = {
        "SECRET_KEY": changed["SECRET_KEY"] == url,
        "DATABASE_URL": changed["DATABASES"]["default"]["HOST"] == "h",
        "DATABASE_DIRECT_URL": changed["DATABASE_DIRECT_URL"] == url,
        "EMAIL_URL": changed["MAILER"]["OPTIONS"].get("host") == "mail.example.com",
    }
    assert [each for each in is_read if is_read[each]] == [name]
    line = refuse(**{f"{name}_FILE": str(tmp_path / "missing")})
    assert line == f"{name}_FILE: {tmp_path / 'missing'} cannot be read: No such file or directory."


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NAME=value", "value"),
        ("export NAME=value", "value"),
        ("  NAME = value  ", "value"),
        ("NAME=", ""),
        ("NAME= # nothing", ""),
        ("NAME=two words # and a comment", "two words"),
        ("NAME=a#b", "a#b"),
        ("NAME='a #b $c \"d\"' # and a comment", 'a #b $c "d"'),
        ('NAME="a #b"', "a #b"),
        ("NAME=it's", "it's"),
        ("NAME=a=b", "a=b"),
        ("NAME=caf\u00e9", "caf\u00e9"),
    ],
)
def test_valid_lines_of_the_env_file_are_understood(tmp_path, line, value):
    (tmp_path / ".env").write_text(f"\ufeff# A comment.\r\n\r\n{line}\r\n")
    assert environment.read_file(tmp_path / ".env") == {"NAME": value}


@pytest.mark.parametrize(
    "line",
    [
        "SECRET_KEY='hunter2",
        'SECRET_KEY="hunter2',
        "SECRET_KEY='hunter2'x",
        "SECRET_KEY=hunter2$x",
        'SECRET_KEY="hunter2$x"',
        'SECRET_KEY="hunter2\\n"',
        "SECRET_KEY='hunter2\\'",
        "SECRET_KEY=#hunter2$",
    ],
)
def test_a_bad_value_in_the_env_file_is_refused_without_being_shown(tmp_path, line):
    (tmp_path / ".env").write_text(f"PORT=8000\n{line}\n")
    with pytest.raises(ImproperlyConfigured) as caught:
        environment.read_file(tmp_path / ".env")
    assert str(caught.value).startswith(
        ".env, line 2: the value of SECRET_KEY is not understood. Put it in single quotes"
    )
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("line", ["hunter2", "hunter 2=x", "=hunter2", "NAME: hunter2", "-----"])
def test_a_line_that_is_not_an_assignment_is_refused_without_being_shown(tmp_path, line):
    (tmp_path / ".env").write_text(f"{line}\n")
    with pytest.raises(ImproperlyConfigured) as caught:
        environment.read_file(tmp_path / ".env")
    assert str(caught.value) == ".env, line 1: this is not NAME=value. Comments begin with #."


def test_a_variable_that_is_set_twice_in_the_env_file_is_refused(tmp_path):
    (tmp_path / ".env").write_text("PORT=1\n\nPORT=2\n")
    with pytest.raises(ImproperlyConfigured, match=r"line 3: PORT is set twice, first in line 1\."):
        environment.read_file(tmp_path / ".env")


def test_an_unreadable_env_file_is_reported_in_one_line(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin").write_bytes(b"NAME=caf\xe9\n")
    for name, line in {"folder": "Is a directory", "latin": "is not UTF-8"}.items():
        with pytest.raises(ImproperlyConfigured, match=line) as caught:
            environment.read_file(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert environment.read_file(tmp_path / "missing") == {}


# --- unknown variables ------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path):
    """A copy of the code without a `.env`."""
    shutil.copy(BASE_DIR / "manage.py", tmp_path)
    for package in ("bookit", "accounts", "catalog", "bookings", "reviews"):
        ignored = shutil.ignore_patterns("tests", "__pycache__")
        shutil.copytree(BASE_DIR / package, tmp_path / package, ignore=ignored)
    return tmp_path


def manage(project, *arguments, **variables):
    """Run a command in the environment of an ordinary shell, plus `variables`."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=project,
        env={"PATH": os.environ["PATH"], "HOME": str(project), "LANG": "C.UTF-8", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_mistyped_variables_are_reported(project):
    (project / ".env").write_text(
        "RATE_LIMT_USER=5/minute\nCOLOUR=red\nCOMPOSE_FILE=compose.yaml\nLOG_LEVEL=info\n"
    )
    program = manage(project, "check", DATABSE_URL="postgresql://u:hunter2@h/d", COLOR="red")
    assert program.returncode == 0
    colour, database, limit = program.stderr.splitlines()
    assert colour == "bookit: .env, line 2: BookIt has no setting COLOUR; it is ignored."
    assert database == (
        "bookit: Environment: BookIt has no setting DATABSE_URL; it is ignored."
        " Did you mean DATABASE_URL?"
    )
    assert limit == (
        "bookit: .env, line 1: BookIt has no setting RATE_LIMT_USER; it is ignored."
        " Did you mean RATE_LIMIT_USER?"
    )


def test_gunicorn_reports_a_mistyped_variable_once_although_it_loads_the_settings_twice(project):
    program = subprocess.run(
        [sys.executable, "-c", "import bookit.runtime.gunicorn, bookit.wsgi"],
        cwd=project,
        env={
            "PATH": os.environ["PATH"],
            "DATABASE_URL": "postgresql://u@127.0.0.1:1/d",
            "RATE_LIMT_USER": "5/minute",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert program.stderr.count("RATE_LIMT_USER") == 1


def test_a_valid_file_and_an_ordinary_environment_cause_no_warnings(project):
    (project / ".env").write_text("RATE_LIMIT_USER=5/minute\nEMBEDDED_POSTGRES_DIR=.postgres\n")
    names = "SHELL USER TERM HOSTNAME EDITOR SSH_CONNECTION KUBERNETES_PORT DATABASE_PUBLIC_URL"
    names += " PGHOST REDIS_TLS EMAIL WEBHOOK_SECRET DYNO"
    ordinary = dict.fromkeys(names.split(), "x")
    program = manage(project, "check", **ordinary)
    assert (program.returncode, program.stderr) == (0, "")


def test_a_bad_line_of_the_env_file_stops_every_program_without_showing_its_secret(project):
    (project / ".env").write_text("SECRET_KEY='hunter2\n")
    for arguments in (["check"], ["serve"], ["procrastinate", "worker"], ["migrate"]):
        program = manage(project, *arguments)
        assert program.returncode == 1
        assert program.stdout == ""
        assert program.stderr.startswith("bookit: .env, line 1: the value of SECRET_KEY ")
        assert program.stderr.count("\n") == 1
        assert PASSWORD not in program.stderr


# --- at the start of a program ----------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["manage.py", "check"], ["-m", "gunicorn", "-c", "python:bookit.runtime.gunicorn"]]
)
def test_a_program_that_cannot_start_says_why_in_one_line(command):
    variables = {**os.environ, **PRODUCTION, "SECRET_KEY": ""}
    program = subprocess.run(
        [sys.executable, *command],
        cwd=BASE_DIR,
        env=variables,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert program.returncode == 1
    assert program.stdout == ""
    assert program.stderr.count("\n") == 1
    assert "SECRET_KEY must be set in production" in program.stderr


# --- .env.example -----------------------------------------------------------------------------


def test_the_example_has_exactly_the_variables_that_are_read(load):
    load()
    example = (BASE_DIR / ".env.example").read_text()
    explained = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    # The settings do not read EMBEDDED_POSTGRES_DIR, but the programs that start PostgreSQL do.
    assert environment.known | {"EMBEDDED_POSTGRES_DIR"} == explained


def test_every_variable_of_the_example_has_a_comment():
    lines = (BASE_DIR / ".env.example").read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"#?[A-Z_]+=", line):
            before = lines[number - 1]
            assert re.match(r"# .{20,}|#?[A-Z_]+=", before), line


def test_the_example_is_valid(load, monkeypatch, tmp_path):
    """The settings accept all values if every variable is uncommented."""
    example = (BASE_DIR / ".env.example").read_text()
    (tmp_path / ".env").write_text(re.sub(r"^#(?=[A-Z_]+=)", "", example, flags=re.MULTILINE))
    variables = environment.read_file(tmp_path / ".env")
    assert len(variables) > 25
    settings = load(**variables)
    assert settings["RATE_LIMITS"] == {
        "auth": "10/minute",
        "password": "20/hour",
        "anon": "300/minute",
        "user": "600/minute",
        "key": "600/minute",
    }
    assert settings["NUM_PROXIES"] == 0
    # The example shows the defaults of the settings below. The rates are unset to get their
    # defaults, because an empty rate means no limit.
    for limit in ("AUTH", "PASSWORD", "ANON", "USER", "KEY"):
        monkeypatch.delenv(f"RATE_LIMIT_{limit}", raising=False)
    for name in ("RATE_LIMITS", "NUM_PROXIES", "SIMPLE_JWT", "STATEMENT_TIMEOUT_MS", "WEB_THREADS"):
        assert load()[name] == settings[name]
