"""Settings: whatever an operator gets wrong is said at start, in one line that names it."""

import ast
import os
import re
import runpy
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from bookit.startup import BASE_DIR

STRONG = "T2xoYfT0T9mXq1k7cVb3nR8sLwE5uZ6pHdJ4gKyA-iMOxQNB_vFz"
PRODUCTION = {
    "APP_ENV": "production",
    "SECRET_KEY": STRONG,
    "DATABASE_URL": "postgresql://bookit:secret@db.example.com:5433/bookings",
    "ALLOWED_HOSTS": "bookings.example.com",
}
EVERY = [
    *PRODUCTION,
    "DATABASE_POOL_SIZE",
    "STATEMENT_TIMEOUT_MS",
    "RATE_LIMIT_AUTH",
    "RATE_LIMIT_ANON",
    "RATE_LIMIT_USER",
    "NUM_PROXIES",
    "HOLD_MINUTES",
    "ACCESS_TOKEN_EXPIRE_MINUTES",
    "REFRESH_TOKEN_EXPIRE_DAYS",
    "CORS_ALLOWED_ORIGINS",
    "CSRF_TRUSTED_ORIGINS",
    "LOG_LEVEL",
    "LOG_FORMAT",
    "WEB_CONCURRENCY",
    "WEB_THREADS",
]


@pytest.fixture
def load(monkeypatch):
    """Return a function that reads the settings afresh, from these variables alone."""
    for name in EVERY:
        # Not deleted: a developer's own `.env` would fill the gap.
        monkeypatch.setenv(name, "")
    for name in ("AUTH", "ANON", "USER"):
        monkeypatch.setenv(f"RATE_LIMIT_{name}", "10/minute")

    def _load(**variables):
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            return runpy.run_path(str(BASE_DIR / "bookit" / "settings.py"))

    return _load


@pytest.fixture
def refuse(load):
    """Return a function that reads the settings and returns the line that they are refused with."""

    def _refuse(**variables):
        with pytest.raises(ImproperlyConfigured) as caught:
            load(**variables)
        line = str(caught.value)
        assert "\n" not in line
        assert len(line) < 300
        return line

    return _refuse


# --- development and production ---------------------------------------------------------------


def test_a_development_machine_needs_none(load):
    settings = load()
    assert settings["APP_ENV"] == "development"
    assert settings["ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]", "testserver"]
    assert settings["DEBUG"] is False
    assert "SESSION_COOKIE_SECURE" not in settings


def test_production_takes_what_it_is_given(load):
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
    assert settings["SECURE_HSTS_SECONDS"] > 0
    assert "SECURE_PROXY_SSL_HEADER" not in settings


@pytest.mark.parametrize("name", ["SECRET_KEY", "DATABASE_URL", "ALLOWED_HOSTS"])
@pytest.mark.parametrize("value", ["", "   "])
def test_production_without_what_it_needs_says_what_and_how(refuse, name, value):
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
def test_production_with_a_weak_key_says_how_to_make_a_better_one(refuse, load, weak):
    line = refuse(**{**PRODUCTION, "SECRET_KEY": weak})
    assert line.startswith("SECRET_KEY is too weak")
    assert "secrets.token_urlsafe" in line
    assert weak not in line
    assert load(SECRET_KEY=weak)["SECRET_KEY"] == weak  # development takes it


def test_the_key_of_development_is_refused_in_production(load, refuse):
    default = load()["SECRET_KEY"]
    assert "too weak" in refuse(**{**PRODUCTION, "SECRET_KEY": default})


@pytest.mark.parametrize("name", ["prod", "Production", "test", "1"])
def test_another_environment_is_refused(refuse, name):
    assert refuse(APP_ENV=name) == (
        f"APP_ENV must be one of development, production, not {name!r}."
    )


# --- one by one -------------------------------------------------------------------------------

NUMBERS = [
    "DATABASE_POOL_SIZE",
    "STATEMENT_TIMEOUT_MS",
    "NUM_PROXIES",
    "HOLD_MINUTES",
    "ACCESS_TOKEN_EXPIRE_MINUTES",
    "REFRESH_TOKEN_EXPIRE_DAYS",
    "WEB_CONCURRENCY",
    "WEB_THREADS",
]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value", ["five", "-1", "1.5", "1e3", "0x10", "\uff15", "1 2", "5s", "9" * 11, "9" * 5000]
)
def test_what_is_no_number_is_refused(refuse, name, value):
    assert refuse(**{name: value}).startswith(f"{name} must be a whole number from ")


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_have_defaults_and_may_have_blanks_around_them(load, name):
    assert load(**{name: ""})
    assert load(**{name: " 3 "})


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("DATABASE_POOL_SIZE", 0),
        ("STATEMENT_TIMEOUT_MS", 0),
        ("NUM_PROXIES", 0),
        ("HOLD_MINUTES", 1),
        ("ACCESS_TOKEN_EXPIRE_MINUTES", 1),
        ("REFRESH_TOKEN_EXPIRE_DAYS", 1),
        ("WEB_CONCURRENCY", 1),
        ("WEB_THREADS", 1),
    ],
)
def test_numbers_have_a_least_value(load, refuse, name, least):
    assert load(**{name: str(least)})
    if least:
        assert refuse(**{name: str(least - 1)}).startswith(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCESS_TOKEN_EXPIRE_MINUTES", "999999999"),
        ("REFRESH_TOKEN_EXPIRE_DAYS", "999999999"),
        ("STATEMENT_TIMEOUT_MS", "2147483648"),
    ],
)
def test_numbers_that_would_break_things_later_are_refused_now(refuse, name, value):
    assert refuse(**{name: value}).startswith(name)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "postgresql://",
        "postgresql://localhost",
        "postgresql://localhost/",
        "postgresql://user:password@localhost:port/bookit",
        "postgresql://user:password@localhost:99999/bookit",
        "postgresql://user:password@[::1/bookit",
        "sqlite:///bookit.db",
        "mysql://user:password@localhost/bookit",
        "postgres-ql://user:password@localhost/bookit",
        "mongodb://localhost/bookit",
        "http://localhost/bookit",
        "localhost:5432/bookit",
        "://",
    ],
)
def test_a_bad_database_url_is_refused_without_showing_its_password(refuse, url, recwarn):
    line = refuse(DATABASE_URL=url)
    assert not list(recwarn)
    assert line == "DATABASE_URL must look like postgresql://user:password@host:5432/database."


@pytest.mark.parametrize(
    ("url", "part", "value"),
    [
        ("postgres://u@h/d", "NAME", "d"),
        ("postgresql://u:p%40ss%2Fw@h/d", "PASSWORD", "p@ss/w"),
        ("postgresql://u:pa#ss@h/d", "PASSWORD", "pa#ss"),
        ("postgresql://u:p@[2001:db8::1]:5433/d", "HOST", "2001:db8::1"),
        ("postgresql:///d", "HOST", ""),
        (" postgresql://u@h/d ", "NAME", "d"),
    ],
)
def test_database_urls_may_be_written_like_this(load, url, part, value):
    assert load(DATABASE_URL=url)["DATABASES"]["default"][part] == value


def test_threads_keep_their_connections_unless_there_are_to_be_fewer(load):
    own = load(WEB_THREADS="7", DATABASE_POOL_SIZE="")["DATABASES"]["default"]
    shared = load(WEB_THREADS="7", DATABASE_POOL_SIZE="3")["DATABASES"]["default"]
    pgbouncer = load(WEB_THREADS="7", DATABASE_POOL_SIZE="0")["DATABASES"]["default"]
    assert shared["OPTIONS"]["pool"]["max_size"] == 3
    assert (shared["CONN_MAX_AGE"], shared["CONN_HEALTH_CHECKS"]) == (0, False)
    for database in (own, pgbouncer):
        assert "pool" not in database["OPTIONS"]
        assert (database["CONN_MAX_AGE"], database["CONN_HEALTH_CHECKS"]) == (None, True)
    for database in (own, shared):
        assert database["OPTIONS"]["server_side_binding"] is True
    assert "server_side_binding" not in pgbouncer["OPTIONS"]
    assert pgbouncer["DISABLE_SERVER_SIDE_CURSORS"] is True
    for database in (own, shared, pgbouncer):
        assert "statement_timeout=5000" in database["OPTIONS"]["options"]


@pytest.mark.parametrize("name", ["RATE_LIMIT_AUTH", "RATE_LIMIT_ANON", "RATE_LIMIT_USER"])
def test_a_bad_rate_is_refused(load, refuse, name):
    for value in ("ten", "10", "10/fortnight", "/minute", "-1/minute", "ten/minute"):
        assert refuse(**{name: value}).startswith(f"{name} must be a rate such as ")
    for value in ("", "  ", "5/second", "100/hour", "10 per minute"):
        policy = name.removeprefix("RATE_LIMIT_").lower()
        assert load(**{name: value})["RATE_LIMITS"][policy] == value.strip()


@pytest.mark.parametrize("name", ["CORS_ALLOWED_ORIGINS", "CSRF_TRUSTED_ORIGINS"])
def test_a_bad_origin_is_refused(load, refuse, name):
    for value in (
        "app.example.com",
        "https://app.example.com/",
        "https://app.example.com/path",
        "ftp://app.example.com",
        "https://a.example.com https://b.example.com",
        "https://a.example.com,b.example.com",
        "*",
    ):
        assert refuse(**{name: value}).startswith(f"{name} takes origins such as ")
    good = "https://a.example.com, http://localhost:3000,,"
    assert load(**{name: good})[name] == ["https://a.example.com", "http://localhost:3000"]


def test_a_bad_host_is_refused(load, refuse):
    for value in ("https://example.com", "example.com/", "example.com:8000", "a b", "::1"):
        line = refuse(**{**PRODUCTION, "ALLOWED_HOSTS": value})
        assert line.startswith("ALLOWED_HOSTS takes host names"), value
    good = load(ALLOWED_HOSTS="example.com, .example.org,10.0.0.1,[::1],*")["ALLOWED_HOSTS"]
    assert good == ["example.com", ".example.org", "10.0.0.1", "[::1]", "*"]


def test_another_level_or_format_of_logs_is_refused(refuse, load):
    assert refuse(LOG_LEVEL="loud").startswith("LOG_LEVEL must be one of INFO, DEBUG,")
    assert refuse(LOG_FORMAT="xml").startswith("LOG_FORMAT must be one of json, text,")
    assert load(LOG_FORMAT="text")["LOGGING"]["handlers"]["console"]["formatter"] == "text"


def test_tokens_live_as_long_as_said(load):
    tokens = load(ACCESS_TOKEN_EXPIRE_MINUTES="5", REFRESH_TOKEN_EXPIRE_DAYS="30")["SIMPLE_JWT"]
    assert tokens["ACCESS_TOKEN_LIFETIME"] == timedelta(minutes=5)
    assert tokens["REFRESH_TOKEN_LIFETIME"] == timedelta(days=30)


def test_seats_are_held_as_long_as_said(load):
    assert load()["HOLD_TIME"] == timedelta(minutes=10)
    assert load(HOLD_MINUTES="3")["HOLD_TIME"] == timedelta(minutes=3)


def test_a_proxy_that_is_believed_is_believed_about_tls(load):
    settings = load(**PRODUCTION, NUM_PROXIES="1")
    assert settings["SECURE_PROXY_SSL_HEADER"] == ("HTTP_X_FORWARDED_PROTO", "https")


def test_cors_is_there_when_it_has_origins(load):
    cors = "corsheaders.middleware.CorsMiddleware"
    assert cors not in load()["MIDDLEWARE"]
    settings = load(CORS_ALLOWED_ORIGINS="https://app.example.com")
    assert settings["MIDDLEWARE"].index(cors) == 1  # in front of whatever answers, behind the log
    assert "corsheaders" in settings["INSTALLED_APPS"]


# --- at the start of a program ----------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["manage.py", "check"], ["-m", "gunicorn", "-c", "python:bookit.gunicorn"]]
)
def test_a_program_that_cannot_start_says_why_in_one_line(command):
    environment = {**os.environ, **PRODUCTION, "SECRET_KEY": ""}
    program = subprocess.run(
        [sys.executable, *command],
        cwd=BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert program.returncode == 1
    assert program.stdout == ""
    assert program.stderr.count("\n") == 1
    assert "SECRET_KEY must be set in production" in program.stderr


# --- explained --------------------------------------------------------------------------------

READERS = {
    "str",
    "boolean",
    "email",
    "integer",
    "choice",
    "names",
    "required",
    "hosts",
    "origins",
    "rate",
    "get",
}


def read_by(path: Path):
    """Return the names of the environment's variables that the code in `path` reads."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func
            if isinstance(function, ast.Attribute):
                owner = ast.unparse(function.value)
                reads = (owner, function.attr) in {("env", "str"), ("os.environ", "get")}
            else:
                reads = isinstance(function, ast.Name) and function.id in READERS
            if reads and str(node.args[0].value).isupper():
                yield node.args[0].value


def test_every_variable_is_explained_and_every_explained_one_is_read():
    code = [*BASE_DIR.glob("bookit/*.py"), *BASE_DIR.glob("bookit/management/commands/*.py")]
    read = {name for path in code for name in read_by(path)}
    assert len(read) > 15, "the search finds nothing"
    example = (BASE_DIR / ".env.example").read_text()
    explained = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    assert read == explained
    assert set(EVERY) <= explained


def test_every_variable_has_words_of_explanation():
    lines = (BASE_DIR / ".env.example").read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"#?[A-Z_]+=", line):
            before = lines[number - 1]
            assert re.match(r"# .{20,}|#?[A-Z_]+=", before), line


def test_the_example_is_itself_good(load, monkeypatch):
    """Uncommented, every line of it is a value that the settings take."""
    variables = dict(
        re.findall(r"^#?([A-Z_]+)=(.*)$", (BASE_DIR / ".env.example").read_text(), re.MULTILINE)
    )
    settings = load(**variables)
    assert settings["RATE_LIMITS"] == {
        "auth": "10/minute",
        "anon": "300/minute",
        "user": "600/minute",
    }
    assert settings["NUM_PROXIES"] == 0
    # What stands there is the default, where there is one.
    for name in ("RATE_LIMITS", "NUM_PROXIES", "SIMPLE_JWT", "STATEMENT_TIMEOUT_MS", "WEB_THREADS"):
        for limit in ("AUTH", "ANON", "USER"):
            monkeypatch.delenv(f"RATE_LIMIT_{limit}", raising=False)
        assert load()[name] == settings[name]
