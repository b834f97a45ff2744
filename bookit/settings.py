"""All settings. At start-up, they are read from the environment and `.env`, and are checked.

`.env.example` explains every variable.
"""

import os
import sys
import warnings
from datetime import timedelta
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

from bookit.runtime import environment
from bookit.runtime.environment import (
    boolean,
    choice,
    currency,
    hosts,
    hours,
    http_url,
    integer,
    origins,
    rate,
    required,
    secret,
    text,
)

BASE_DIR = environment.BASE_DIR
environment.load()

APP_ENV = choice("APP_ENV", "development", "production")
PRODUCTION = APP_ENV == "production"

# Always off, because debug pages are HTML and show source code. Tracebacks are in the log.
DEBUG = False

SECRET_KEY = required(
    "SECRET_KEY",
    'python -c "import secrets; print(secrets.token_urlsafe(50))" makes one.',
    development="development-only-key-that-is-refused-in-production-0123456789",
    production=PRODUCTION,
)
if PRODUCTION and (
    len(SECRET_KEY) < 50 or len(set(SECRET_KEY)) < 10 or SECRET_KEY.startswith("development-only")
):
    raise ImproperlyConfigured(
        "SECRET_KEY is too weak: it needs at least 50 random characters. "
        'python -c "import secrets; print(secrets.token_urlsafe(50))" makes one.'
    )

required(
    "ALLOWED_HOSTS",
    "the host names under which the API is reached, comma-separated.",
    development="",
    production=PRODUCTION,
)
ALLOWED_HOSTS = hosts("ALLOWED_HOSTS") or ["localhost", "127.0.0.1", "[::1]", "testserver"]

# --- Apps and middleware ----------------------------------------------------------------------

INSTALLED_APPS = [
    "bookit",  # Before procrastinate, whose command it replaces.
    "procrastinate.contrib.django",
    "rest_framework_simplejwt.token_blacklist",  # Before accounts, which replaces its admin pages.
    "accounts",
    "catalog",
    "bookings",
    "reviews",
    "bookit.jobs",
    "bookit.idempotency",
    "bookit.mails",
    "bookit.restores",
    "bookit.tools",
    "bookit.adminsite.apps.AdminSiteConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",  # For its translations of "3 days ago".
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]

MIDDLEWARE = [
    "bookit.web.language.LanguageMiddleware",
    "bookit.web.middleware.RequestMiddleware",
    "bookit.web.middleware.RefusalMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "bookit.web.compression.GzipMiddleware",
    "bookit.web.middleware.ThrottleMiddleware",
    "bookit.web.middleware.HostMiddleware",
    "bookit.web.middleware.AdminSessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "bookit.web.middleware.AdminAuthenticationMiddleware",
    "bookit.web.language.AdminLanguageMiddleware",
    "bookit.web.middleware.AdminMessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

CORS_ALLOWED_ORIGINS = origins("CORS_ALLOWED_ORIGINS")
if CORS_ALLOWED_ORIGINS:
    INSTALLED_APPS.append("corsheaders")
    # Before `RefusalMiddleware`, so that scripts of other origins can read its responses.
    MIDDLEWARE.insert(2, "corsheaders.middleware.CorsMiddleware")
    CORS_EXPOSE_HEADERS = [
        "ETag",
        "Idempotent-Replayed",
        "Location",
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "X-Request-ID",
    ]
    CORS_ALLOW_HEADERS = [
        "accept",
        "authorization",
        "content-type",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "time-zone",
        "x-request-id",
    ]

ROOT_URLCONF = "bookit.urls"
WSGI_APPLICATION = "bookit.wsgi.application"
APPEND_SLASH = False

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
            "libraries": {
                "clocks": "bookit.adminsite.clocks",
                "lists": "bookit.adminsite.lists",
            },
        },
    }
]

# The languages of BookIt's own texts. Texts that users write are stored and shown as they are.
LANGUAGE_CODE = "en"
LANGUAGES = [
    ("en", "English"),
    ("de", "Deutsch"),
    ("es", "Español"),
    ("pt", "Português"),
    ("ru", "Русский"),
]
LOCALE_PATHS = [BASE_DIR / "bookit" / "locale"]
# The package with the date formats of emails and pages, which use the 24-hour clock.
FORMAT_MODULE_PATH = ["bookit.formats"]
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
# Files that `collectstatic` has copied to this folder are served compressed, under hashed names, so
# browsers may cache them forever. All other static files are served from their source, so no page
# depends on `collectstatic`.
STATIC_ROOT = BASE_DIR / ".static" if PRODUCTION else None
WHITENOISE_USE_FINDERS = True
# WhiteNoise would warn if `collectstatic` has not been run.
warnings.filterwarnings("ignore", "No directory at", UserWarning)
STORAGES = {
    # BookIt stores no files, so this storage is never used.
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {
        "BACKEND": (
            "bookit.web.staticfiles.CollectedFilesStorage"
            if PRODUCTION
            else "django.contrib.staticfiles.storage.StaticFilesStorage"
        )
    },
}

# --- PostgreSQL -------------------------------------------------------------------------------

PORT = integer("PORT", 8000, at_most=65535)
WEB_CONCURRENCY = integer("WEB_CONCURRENCY", os.cpu_count() or 1, at_least=1)
WEB_THREADS = integer("WEB_THREADS", 4, at_least=1)
DATABASE_POOL_SIZE = integer("DATABASE_POOL_SIZE", WEB_THREADS)
# A pool size of 0 is meant for a pooler in front of PostgreSQL. The operator then decides about
# prepared statements: PgBouncer keeps them only if its `max_prepared_statements` is not 0.
DATABASE_PREPARED_STATEMENTS = boolean("DATABASE_PREPARED_STATEMENTS") or DATABASE_POOL_SIZE > 0
STATEMENT_TIMEOUT_MS = integer("STATEMENT_TIMEOUT_MS", 5000)
# If a web or worker host disappears, PostgreSQL closes its connections within a minute, and so
# releases its locks. By default, PostgreSQL would do so after two hours.
KEEPALIVES = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
ANON_TIMEOUT_MS = integer("ANON_TIMEOUT_MS", 2000)


def database(name: str, url: str, more: str = "") -> dict[str, Any]:
    """Return Django's description of the database at `url`, which the variable `name` contains.

    Args:
        more: command-line options of its sessions, in addition to the usual ones.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # django-environ's warnings would show the password.
        config = environ.Env.db_url_config(environment.postgres_url(name, url))
    own = config.get("OPTIONS", {}).get("options", "")
    options = {
        **config.get("OPTIONS", {}),
        # If the database does not respond, the client soon gets a 503.
        "connect_timeout": 2,
        "options": f"{own} -c statement_timeout={STATEMENT_TIMEOUT_MS} {KEEPALIVES}{more}".strip(),
    }
    # Each thread keeps its own connection, so no request has to open or borrow a connection. The
    # threads share a pool only if the operator allows fewer connections than threads.
    pooled = 0 < DATABASE_POOL_SIZE < WEB_THREADS
    if pooled:
        options["pool"] = {"min_size": 1, "max_size": DATABASE_POOL_SIZE, "timeout": 2}
    if DATABASE_PREPARED_STATEMENTS:
        # Without prepared statements, PostgreSQL needs up to three times as much CPU (see
        # `docs/scaling.md`). A statement is prepared for one connection. A pooler that gives each
        # transaction another connection must prepare the statement there, too.
        options["server_side_binding"] = True
        options["prepare_threshold"] = 3
    return {
        **config,
        "ENGINE": "bookit.database.postgresql",
        "OPTIONS": options,
        "CONN_MAX_AGE": 0 if pooled else None,
        "CONN_HEALTH_CHECKS": not pooled,  # With a pool, Django would send a query for each check.
        "DISABLE_SERVER_SIDE_CURSORS": not DATABASE_POOL_SIZE,
        "TEST": {"TEMPLATE": "template0"},
    }


DATABASES = {
    "default": database(
        "DATABASE_URL",
        required(
            "DATABASE_URL",
            "postgresql://user:password@host:5432/database.",
            # For the embedded server, `load_settings` sets the variable before this line reads it.
            development="postgresql://postgres@localhost:5432/bookit",
            production=PRODUCTION,
        ),
    )
}
# Replicas may answer catalog reads, as long as they are at most this far behind.
DATABASE_REPLICA_MAX_LAG_MS = integer("DATABASE_REPLICA_MAX_LAG_MS", 500, at_least=1)
for _number, _url in enumerate(environment.urls("DATABASE_REPLICA_URL"), start=1):
    DATABASES[f"replica{_number}"] = {
        **database("DATABASE_REPLICA_URL", _url, " -c default_transaction_read_only=on"),
        "TEST": {"MIRROR": "default"},
    }
DATABASE_ROUTERS = ["bookit.database.reading.Router"] if len(DATABASES) > 1 else []
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Accounts ---------------------------------------------------------------------------------

AUTH_USER_MODEL = "accounts.User"
# Only the admin site uses this backend. The API accepts only bearer tokens.
AUTHENTICATION_BACKENDS = ["accounts.backends.AdminSiteBackend"]
PASSWORD_HASHERS = ["accounts.hashers.Argon2idPasswordHasher"]
# Where the admin site redirects after a sign-in, if `?next=` leads to another site.
LOGIN_REDIRECT_URL = "admin:index"
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator",
        "OPTIONS": {"user_attributes": ["email", "name"]},
    },
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(
        minutes=integer("ACCESS_TOKEN_EXPIRE_MINUTES", 15, at_least=1, at_most=24 * 60)
    ),
    "REFRESH_TOKEN_LIFETIME": timedelta(
        days=integer("REFRESH_TOKEN_EXPIRE_DAYS", 7, at_least=1, at_most=3660)
    ),
}

# The links in emails about accounts, with `{token}` in the place of the token. They lead to pages
# of the operator's front end, which call the API. If a link is unset, emails show the token itself.
PASSWORD_RESET_URL = environment.link("PASSWORD_RESET_URL")
VERIFY_EMAIL_URL = environment.link("VERIFY_EMAIL_URL")
MAX_MAILS = 10_000_000
# The daily limit on emails about accounts. Each kind of email, such as password resets, and each
# email address is counted separately.
MAILS_PER_ACCOUNT = integer("MAILS_PER_ACCOUNT", 10, at_least=1, at_most=MAX_MAILS)
# Whether only users with a verified email address can book.
BOOKING_REQUIRES_VERIFIED_EMAIL = boolean("BOOKING_REQUIRES_VERIFIED_EMAIL")

# --- Catalog ----------------------------------------------------------------------------------

# The currency of a new service, if the request does not name one.
DEFAULT_CURRENCY = currency("DEFAULT_CURRENCY", "USD")

# --- Bookings ---------------------------------------------------------------------------------

# How long a hold keeps a seat, and how long a free seat is offered to a person on the waitlist.
HOLD_TIME = timedelta(minutes=integer("HOLD_MINUTES", 10, at_least=1, at_most=24 * 60))
WAITLIST_OFFER_TIME = timedelta(
    minutes=integer("WAITLIST_OFFER_MINUTES", 60, at_least=1, at_most=7 * 24 * 60)
)
# An email about a move waits for this time, and reports later moves too. Emails to the new and the
# former attendee of a booking wait as long.
MAIL_PAUSE = timedelta(seconds=integer("MAIL_PAUSE_SECONDS", 60, at_most=3600))
# Daily limits on emails about bookings and waitlists: about one booking, to its attendees together
# and to its provider (and one more to each if the booking is cancelled or expires), to one
# unverified email address, and to one verified email address.
MAILS_PER_BOOKING = integer("MAILS_PER_BOOKING", 8, at_least=1, at_most=MAX_MAILS)
MAILS_PER_ADDRESS = integer("MAILS_PER_ADDRESS", 20, at_least=1, at_most=MAX_MAILS)
MAILS_PER_VERIFIED_ADDRESS = integer(
    "MAILS_PER_VERIFIED_ADDRESS", 500, at_least=1, at_most=MAX_MAILS
)
# How long before the start of a booking its reminders are sent, the shortest time first.
REMINDER_TIMES = [timedelta(hours=each) for each in hours("REMINDER_HOURS", 24, at_most=30 * 24)]
WEBHOOK_ALLOW_PRIVATE = boolean("WEBHOOK_ALLOW_PRIVATE")

# --- HTTP -------------------------------------------------------------------------------------

RATE_LIMITS = {
    "auth": rate("RATE_LIMIT_AUTH", "10/minute"),
    "password": rate("RATE_LIMIT_PASSWORD", "20/hour"),
    "anon": rate("RATE_LIMIT_ANON", "300/minute"),
    "user": rate("RATE_LIMIT_USER", "600/minute"),
    "key": rate("RATE_LIMIT_KEY", "600/minute"),
}
# With Redis, all hosts count requests together. Without it, the web processes of each host do.
REDIS_URL = environment.redis_url("REDIS_URL")
# The operator's own proxies, plus the proxy that compose.yaml starts.
NUM_PROXIES = integer("NUM_PROXIES", 0, at_most=20) + integer("COMPOSE_PROXIES", 0, at_most=1)
# The scheme that clients use, whatever X-Forwarded-Proto says. If it is empty, a proxy may report
# the scheme.
PUBLIC_SCHEME = choice("PUBLIC_SCHEME", "http", "https", default="")
if NUM_PROXIES and not PUBLIC_SCHEME:
    # BookIt trusts the client's IP address that a proxy reports, and therefore also the scheme.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.authentication.BearerAuthentication"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "bookit.api.negotiation.JSONNegotiation",
    "DEFAULT_FILTER_BACKENDS": [
        "bookit.api.filters.FilterBackend",
        "bookit.api.filters.OrderingBackend",
    ],
    "DEFAULT_PAGINATION_CLASS": "bookit.api.pagination.Pagination",
    "DEFAULT_PARSER_CLASSES": ["bookit.api.parsers.JSONParser"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["bookit.api.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "bookit.api.schema.Schema",
    "DEFAULT_THROTTLE_CLASSES": ["bookit.api.throttles.ClientThrottle"],
    "EXCEPTION_HANDLER": "bookit.errors.handler.exception_handler",
    "NON_FIELD_ERRORS_KEY": "",
    "NUM_PROXIES": NUM_PROXIES,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
    "URL_FORMAT_OVERRIDE": None,
}

# The bearer token with which clients on other machines can read /metrics.
METRICS_TOKEN = secret("METRICS_TOKEN", at_least=20)

# The largest accepted body, in bytes; a larger body gets a 413.
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024

CSRF_FAILURE_VIEW = "bookit.web.middleware.csrf_failure"
CSRF_TRUSTED_ORIGINS = origins("CSRF_TRUSTED_ORIGINS", wildcards=True)
SESSION_ENGINE = "accounts.sessions.store"
# Whether people may use the admin site over plain HTTP, with cookies that do not require HTTPS.
ADMIN_OVER_HTTP = boolean("ADMIN_OVER_HTTP")
HSTS_SECONDS = integer("HSTS_SECONDS", 365 * 24 * 3600)
# Off by default, because these two settings also affect hosts other than BookIt's, and are hard to
# undo.
HSTS_SUBDOMAINS = boolean("HSTS_SUBDOMAINS")
HSTS_PRELOAD = boolean("HSTS_PRELOAD")
if HSTS_PRELOAD and (not HSTS_SUBDOMAINS or HSTS_SECONDS < 365 * 24 * 3600):
    raise ImproperlyConfigured(
        "HSTS_PRELOAD needs HSTS_SUBDOMAINS=true and HSTS_SECONDS of at least one year (31536000)."
    )
if PRODUCTION:
    SESSION_COOKIE_SECURE = not ADMIN_OVER_HTTP
    CSRF_COOKIE_SECURE = not ADMIN_OVER_HTTP
    SECURE_HSTS_SECONDS = HSTS_SECONDS
    SECURE_HSTS_INCLUDE_SUBDOMAINS = HSTS_SUBDOMAINS
    SECURE_HSTS_PRELOAD = HSTS_PRELOAD
SILENCED_SYSTEM_CHECKS = [
    "security.W008",  # The proxy redirects to HTTPS. Health checks reach BookIt over plain HTTP.
    "security.W005",  # Operators decide about HSTS for subdomains.
    "security.W021",  # Operators decide about HSTS preloading.
]

# --- Email and jobs ---------------------------------------------------------------------------

MAILER = environment.mailer(
    "EMAIL_URL",
    required(
        "EMAIL_URL",
        environment.EMAIL_CHOICES,
        development="filemail://",
        production=PRODUCTION,
    ),
    folder=BASE_DIR / "mails",
)
# Define Django's own settings for emails, whose names depend on the version of Django.
vars().update(environment.mail_settings(MAILER))
if "host" in MAILER["OPTIONS"]:
    required(
        "DEFAULT_FROM_EMAIL",
        "the sender address of emails, such as BookIt <bookings@example.com>.",
        development="",
        production=PRODUCTION,
    )
DEFAULT_FROM_EMAIL = environment.mailbox("DEFAULT_FROM_EMAIL", "bookit@localhost")

# The HTML of every email has the logo at its top or, without a logo, the name.
BUSINESS_NAME = text("BUSINESS_NAME", "BookIt")
BUSINESS_LOGO_URL = http_url("BUSINESS_LOGO_URL", example="https://app.example.com/logo.png")
# The operator's front end. Emails about bookings link to its pages.
PUBLIC_URL = http_url("PUBLIC_URL", example="https://app.example.com").rstrip("/")

# If DATABASE_URL leads to a pooler: the direct URL of PostgreSQL, which workers use for the queue,
# and which the commands backup and restore use.
DATABASE_DIRECT_URL = text("DATABASE_DIRECT_URL")
if DATABASE_DIRECT_URL:
    DATABASE_DIRECT_URL = environment.postgres_url("DATABASE_DIRECT_URL", DATABASE_DIRECT_URL)
PROCRASTINATE_ON_APP_READY = "bookit.jobs.queues.prepare"
# For health checks: a file that a worker touches as long as PostgreSQL responds to the worker.
WORKER_HEARTBEAT_FILE = text("WORKER_HEARTBEAT_FILE")
WORKER_CONCURRENCY = integer("WORKER_CONCURRENCY", 4, at_least=1, at_most=100)
PROCRASTINATE_WORKER_DEFAULTS = {
    "concurrency": WORKER_CONCURRENCY,
    # Workers poll. NOTIFY would slow down every booking; see the first migration of `bookit.jobs`.
    "listen_notify": False,
    "fetch_job_polling_interval": 1.0,
    # Seconds; longer than jobs usually take. A job that is cut off runs again.
    "shutdown_graceful_timeout": 20.0,
    # Failed jobs stay, so that operators can inspect them.
    "delete_jobs": "successful",
}

# --- Documentation and logs -------------------------------------------------------------------

SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "BookIt",
    "VERSION": "0.1.0",
    "DESCRIPTION": (
        "Browse services, book a time and review the booking. The database itself prevents double "
        "bookings.\n\n"
        "Sign in with `POST /auth/login` and send `Authorization: Bearer <access_token>`. "
        "Errors are problem documents (RFC 9457); [`/errors`](/errors) lists them. "
        "Times are RFC 3339 with an offset; periods are half-open. A GET whose `If-None-Match` has "
        "the current `ETag` gets a 304."
    ),
    "OAS_VERSION": "3.1.0",
    "LICENSE": {"name": "MIT", "identifier": "MIT"},
    "SERVERS": [{"url": "/", "description": "This server"}],
    "SERVE_AUTHENTICATION": [],
    "SCHEMA_PATH_PREFIX": "",
    "COMPONENT_SPLIT_REQUEST": True,
    "DEFAULT_GENERATOR_CLASS": "bookit.api.components.Generator",
    "SORT_OPERATIONS": "bookit.api.components.sorting_key",
    "PATH_CONVERTER_OVERRIDES": {"id": {"type": "string", "format": "uuid"}},
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"persistAuthorization": True, "displayRequestDuration": True},
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "bookit.api.schema.add_common_parts",
        "bookings.webhooks.document.add_webhooks",
        "bookit.api.components.share",
    ],
    "ENUM_NAME_OVERRIDES": {
        "BookingStatus": "bookings.models.Booking.Status",
        "SlotStatus": "bookings.models.Slot.Status",
        "WaitlistStatus": "bookings.waitlist.models.WaitlistEntry.Status",
        "DeliveryStatus": "bookings.webhooks.models.Delivery.Status",
        "EventType": "bookings.webhooks.serializers.EVENT_CHOICES",
        "UserRole": "accounts.models.User.Role",
        "ServiceMode": "catalog.models.Service.Mode",
    },
    "TAGS": [
        {"name": "Accounts", "description": "Sign in and manage your own account."},
        {"name": "Users", "description": "Manage all accounts and staff roles."},
        {
            "name": "Catalog",
            "description": "Calendars, services, slots, providers and free times.",
        },
        {"name": "Bookings", "description": "Bookings, waitlists and calendar feeds."},
        {"name": "Reviews", "description": "Ratings of completed bookings."},
        {
            "name": "Reports",
            "description": (
                "Numbers about bookings and reviews, for admins: JSON, or CSV with "
                "`Accept: text/csv`."
            ),
        },
        {
            "name": "Webhooks",
            "description": (
                "Send events to other systems, or let them poll for events. Messages are signed "
                "as Standard Webhooks specifies."
            ),
        },
        {"name": "Operations", "description": "Health checks for load balancers."},
    ],
}

# If this variable is set, tracing is on. OpenTelemetry reads all its OTEL_ variables itself.
OTEL_EXPORTER_OTLP_ENDPOINT = http_url("OTEL_EXPORTER_OTLP_ENDPOINT")

LOG_LEVEL = choice("LOG_LEVEL", "INFO", "DEBUG", "WARNING", "ERROR")
# People read the log at a terminal; programs read it elsewhere.
LOG_FORMAT = choice("LOG_FORMAT", "json", "text", default="text" if sys.stderr.isatty() else "json")
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "request_id": {"()": "bookit.runtime.logs.RequestIdFilter"},
        # Text logs, which people read, omit successful jobs. If a job writes an email to a file,
        # another line says so.
        "job": {"()": "bookit.runtime.logs.JobFilter", "successes": LOG_FORMAT == "json"},
        "traceback": {"()": "bookit.runtime.logs.TracebackFilter"},
    },
    "formatters": {
        "json": {"()": "bookit.runtime.logs.JSONFormatter"},
        "text": {"()": "bookit.runtime.logs.TextFormatter"},
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": LOG_FORMAT,
            "filters": ["request_id", "job"],
        }
    },
    "root": {"level": LOG_LEVEL, "handlers": ["console"]},
    "loggers": {
        "django": {"level": LOG_LEVEL, "handlers": [], "propagate": True},
        # BookIt's own line about a request contains the status, so Django's logger adds only
        # tracebacks.
        "django.request": {"level": "ERROR", "filters": ["traceback"]},
        # Any client can cause these errors, so they must not fill the log with tracebacks.
        **{
            f"django.security.{name}": {"level": "CRITICAL"}
            for name in ("RequestDataTooBig", "TooManyFieldsSent", "TooManyFilesSent")
        },
        "django.server": {"handlers": [], "propagate": True},
        # These loggers would write a line at every start, even of commands that run no jobs.
        "procrastinate.blueprints": {"level": "WARNING"},
        "procrastinate.periodic": {"level": "WARNING"},
        # httpx would log the URL of every call. A webhook's URL can contain a secret of its owner.
        "httpx": {"level": "WARNING"},
    },
}
