"""Reads settings from the environment and from `.env`, and refuses invalid values.

Every error names the variable or the place in `.env`, and shows no value that may contain a secret.
A variable in the environment takes precedence over `.env`, even if its value in the environment is
empty.
"""

import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import django
import limits
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.validators import validate_email

from bookit.money import CURRENCIES

BASE_DIR = Path(__file__).resolve().parents[2]

#: The names of all variables that have been read.
known: set[str] = set()

# Variables that only the Compose files read, or only programs that start the embedded PostgreSQL.
_READ_ELSEWHERE = {"DOMAIN", "POSTGRES_PASSWORD", "EMBEDDED_POSTGRES_DIR"}
# Names in `.env` that belong to other programs or to the tests.
_FOREIGN_NAME = re.compile(
    r"COMPOSE_|DOCKER_|DJANGO_|OTEL_|PYTHON|PG|PROMETHEUS_|BOOKIT_TEST_|(LANG|LC_\w+|TZ|PATH)$"
)
# Most names in the environment belong to other programs. A name with one of these prefixes belongs
# to BookIt.
_OWN_PREFIXES = ("RATE_LIMIT_", "WAITLIST_", "EMBEDDED_POSTGRES_")

# --- the .env file ----------------------------------------------------------------------------

# Docker Compose reads the same file. Accept only lines that BookIt and Docker Compose read in the
# same way.
_ASSIGNMENT = re.compile(r"(?:export[ \t]+)?(?P<name>[A-Za-z_]\w*)[ \t]*=(?P<value>.*)", re.A)
_VALUE = re.compile(
    r"""
    [ \t]*
    (?: '(?P<single>(?:[^'\\]|\\(?!'))*)'
      | "(?P<double>[^"\\$]*)"
      | (?P<bare>[^\s'"\#$](?:[^\s$]|[ \t](?![ \t]*\#))*)
    )?
    (?:[ \t]+\#.*)?
    """,
    re.VERBOSE,
)

# The place at which each variable of the file is set, for example `.env, line 2`.
_places: dict[str, str] = {}


def read_file(path: Path) -> dict[str, str]:
    """Return the variables of an env file; there are none if the file does not exist.

    Raises:
        ImproperlyConfigured: the file cannot be read, a line is not valid, or a variable is set
            twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ImproperlyConfigured(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ImproperlyConfigured(f"{path} is not UTF-8. Save it as UTF-8.") from None
    variables: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, value = _assignment(line.strip(), f"{path.name}, line {number}")
        if name in variables:
            raise ImproperlyConfigured(
                f"{path.name}, line {number}: {name} is set twice, first in"
                f" {_places[name].rpartition(', ')[2]}. Delete one of the lines."
            )
        variables[name] = value
        _places[name] = f"{path.name}, line {number}"
    return variables


def _assignment(line: str, place: str) -> tuple[str, str]:
    found = _ASSIGNMENT.fullmatch(line)
    if found is None:
        # Do not quote the line: it may be a part of a secret that contains a line break.
        raise ImproperlyConfigured(f"{place}: this is not NAME=value. Comments begin with #.")
    name = found["name"]
    value = _VALUE.fullmatch(found["value"])
    if value is None:
        raise ImproperlyConfigured(
            f"{place}: the value of {name} is not understood."
            f" Put it in single quotes: {name}='...' (it cannot contain a single quote itself)."
        )
    return name, value["single"] or value["double"] or value["bare"] or ""


def load() -> None:
    """Add the variables of `.env` to the environment, except those that are already set."""
    for name, value in read_file(BASE_DIR / ".env").items():
        os.environ.setdefault(name, value)


def unknown() -> Iterator[str]:
    """Yield a line about each variable that looks like a setting of BookIt but is not one.

    Call this function after all settings have been read.
    """
    names = known | _READ_ELSEWHERE | {f"{name}_FILE" for name in _READABLE_FROM_FILE}
    for name in sorted({*os.environ, *_places} - names):
        place = _places.get(name)
        # A short name can resemble a setting and belong to another program: for example, PORTS.
        similar = difflib.get_close_matches(name, names, n=1, cutoff=0.88) if len(name) > 5 else []
        if similar or name.startswith(_OWN_PREFIXES) or (place and not _FOREIGN_NAME.match(name)):
            hint = f" Did you mean {similar[0]}?" if similar else ""
            yield f"{place or 'Environment'}: BookIt has no setting {name}; it is ignored.{hint}"


# --- values -----------------------------------------------------------------------------------

# Docker and Kubernetes provide secrets as files. If one of these variables is unset or empty, its
# value is read from a file. The path of the file is in another variable, for example
# SECRET_KEY_FILE.
_READABLE_FROM_FILE = {
    "SECRET_KEY",
    "DATABASE_URL",
    "DATABASE_DIRECT_URL",
    "DATABASE_REPLICA_URL",
    "EMAIL_URL",
    "METRICS_TOKEN",
    "REDIS_URL",
}


def text(name: str, default: str = "") -> str:
    """Return the variable without surrounding blanks, or `default` if it is unset or empty.

    If an unset or empty variable is in `_READABLE_FROM_FILE` and has a file, return the text of the
    file instead of `default`.
    """
    known.add(name)
    value = os.environ.get(name, "").strip()
    if not value and name in _READABLE_FROM_FILE:
        value = _read_named_file(f"{name}_FILE")
    return value or default


def _read_named_file(name: str) -> str:
    path = os.environ.get(name, "").strip()
    try:
        return Path(path).read_text().strip() if path else ""
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "the file is not text"
        raise ImproperlyConfigured(f"{name}: {path} cannot be read: {reason}.") from None


def is_set(name: str) -> bool:
    """Return whether the variable is in the environment, even if it is empty."""
    known.add(name)
    return name in os.environ


def integer(name: str, default: int, *, at_least: int = 0, at_most: int = 2**31 - 1) -> int:
    """Return the variable as a whole number."""
    raw = text(name)
    if not raw:
        return default
    digits = raw.isascii() and raw.isdigit() and len(raw) <= 10
    if not digits or not at_least <= int(raw) <= at_most:
        raise ImproperlyConfigured(
            f"{name} must be a whole number from {at_least} to {at_most}, not {_shown(raw)}."
        )
    return int(raw)


def hours(name: str, *default: int, at_most: int) -> list[int]:
    """Return a comma-separated variable as up to five different numbers of hours, lowest first."""
    found = names(name) or [str(each) for each in default]
    valid = [int(each) for each in found if each.isascii() and each.isdigit() and len(each) < 10]
    if len(valid) < len(found) or len(found) > 5 or not all(1 <= each <= at_most for each in valid):
        raise ImproperlyConfigured(
            f"{name} must be up to five numbers of hours from 1 to {at_most}, such as 48,2, "
            f"not {_shown(text(name))}."
        )
    return sorted(set(valid))


def choice(name: str, *choices: str, default: str | None = None) -> str:
    """Return the choice that the variable names, whatever its case.

    If the variable is unset, return `default`, or the first choice if there is no `default`.
    """
    value = text(name)
    if not value:
        return choices[0] if default is None else default
    for each in choices:
        if value.lower() == each.lower():
            return each
    raise ImproperlyConfigured(f"{name} must be one of {', '.join(choices)}, not {_shown(value)}.")


def currency(name: str, default: str) -> str:
    """Return the variable as the code of a currency in use, in upper case."""
    code = text(name, default).upper()
    if code not in CURRENCIES:
        raise ImproperlyConfigured(
            f"{name} must be the ISO 4217 code of a currency in use, such as EUR,"
            f" not {_shown(code)}."
        )
    return code


def boolean(name: str) -> bool:
    """Return the variable as a boolean; the default is false."""
    value = text(name, "false").lower()
    if value not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        raise ImproperlyConfigured(f"{name} must be true or false, not {_shown(value)}.")
    return value in ("true", "1", "yes", "on")


def names(name: str) -> list[str]:
    """Return a comma-separated variable as a list."""
    return [item.strip() for item in text(name).split(",") if item.strip()]


def urls(name: str) -> list[str]:
    """Return a comma-separated variable as a list of URLs. A URL may contain commas itself."""
    return [url.strip() for url in re.split(r",(?=\s*\w+://)", text(name)) if url.strip()]


def hosts(name: str) -> list[str]:
    """Return a comma-separated variable as a list of host names."""
    for host in names(name):
        if not re.fullmatch(r"\*|[\w.-]+|\[[0-9a-fA-F:]+\]", host):
            raise ImproperlyConfigured(
                f"{name} must be host names without scheme or port, not {_shown(host)}."
                " .example.com stands for example.com and all its subdomains."
            )
    return names(name)


def http_url(name: str, *, example: str = "http://localhost:4318") -> str:
    """Return the variable as an HTTP or HTTPS URL, or an empty text if it is unset."""
    value = text(name)
    if value and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", value):
        raise ImproperlyConfigured(f"{name} must be a URL such as {example}.")
    return value


def origins(name: str, *, wildcards: bool = False) -> list[str]:
    """Return a comma-separated variable as a list of origins, as browsers send them.

    Args:
        wildcards: whether `https://*.example.com` is accepted.
    """
    subdomains = r"(\*\.)?" if wildcards else ""
    for origin in names(name):
        if not re.fullmatch(
            rf"https?://({subdomains}[\w.-]+|\[[0-9a-fA-F:]+\])(:\d+)?", origin, re.IGNORECASE
        ):
            raise ImproperlyConfigured(
                f"{name} must be origins such as https://app.example.com, not {_shown(origin)}."
            )
    return [_as_sent(origin.lower()) for origin in names(name)]


def _as_sent(origin: str) -> str:
    """Return an origin without the default port of its scheme, which browsers leave out."""
    return origin.removesuffix(":443" if origin.startswith("https:") else ":80")


def link(name: str) -> str:
    """Return the variable as a URL that contains `{token}`, or an empty text if it is unset."""
    value = text(name)
    if value and not (re.match(r"https?://[^/\s]+\S*\Z", value) and value.count("{token}") == 1):
        raise ImproperlyConfigured(
            f"{name} must be a URL such as https://app.example.com/verify?token={{token}}, "
            f"not {_shown(value)}."
        )
    return value


# The longest period of a rate, in seconds: a year of `limits`, which has 360 days. Without an
# upper limit, the period might not fit into the 32 bits in which the counts of requests store it.
_LONGEST_RATE = 360 * 24 * 3600


def rate(name: str, default: str) -> str:
    """Return the variable as one rate such as `10/minute`; an empty text means no limit."""
    value = text(name) if is_set(name) else default
    try:
        # `limits.parse` would accept several rates, and ignore all but the first.
        found = limits.parse_many(value) if value else []
        # A rate of 0 would refuse every request. In other settings, 0 means no limit.
        if value and not (
            len(found) == 1 and found[0].amount and found[0].get_expiry() <= _LONGEST_RATE
        ):
            raise ValueError
    except ValueError:
        raise ImproperlyConfigured(
            f"{name} must be one rate such as {default}, or empty for no limit,"
            f" not {_shown(value)}."
        ) from None
    return value


def secret(name: str, *, at_least: int) -> str:
    """Return the variable as a secret, or an empty text if it is unset.

    Args:
        at_least: the minimum number of characters.
    """
    value = text(name)
    if value and (len(value) < at_least or not re.fullmatch(r"[\x21-\x7e]+", value)):
        raise ImproperlyConfigured(
            f"{name} must have at least {at_least} ASCII characters, without spaces. "
            'python -c "import secrets; print(secrets.token_urlsafe(32))" makes one.'
        )
    return value


def required(name: str, how: str, *, development: str, production: bool) -> str:
    """Return the variable. If it is unset, return `development`, or fail in production.

    Args:
        how: the end of the error message, which says what to set.
    """
    value = text(name)
    if not value and production:
        raise ImproperlyConfigured(f"{name} must be set in production: {how}")
    return value or development


def _shown(value: str) -> str:
    """Return a value for an error message: shortened, and hidden if it may contain a password."""
    return "a value with an @" if "@" in value else repr(value[:40])


# --- URLs and email addresses -----------------------------------------------------------------

# URLs as in RFC 3986, without a fragment, except that there can be several hosts, and that user and
# password may also contain an unencoded # or @. No @ may follow the hosts, so that a part of a
# password is never mistaken for a host.
_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?:(?P<user>[^:/?\s]*)(?::(?P<password>[^/?\s]*))?@)?"
    r"(?P<hosts>[^@/?#\s]*)"
    r"(?P<path>/[^?#@\s]*)?"
    r"(?:\?(?P<query>[^#@\s]*))?"
)
_HOST = re.compile(r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?")
_ENCODE = (
    "Percent-encode special characters in user and password (%40 for @, %2F for /, %3A for :,"
    " %23 for #, %3F for ?, %25 for %)."
)


@dataclass(frozen=True)
class _URLParts:
    """The parts of a server's URL; only user and password are decoded."""

    scheme: str
    user: str
    password: str
    hosts: list[tuple[str, int | None]]
    path: str
    query: str


def _split(url: str) -> _URLParts | None:
    """Return the parts of a URL, or None if it is not valid."""
    found = _URL.fullmatch(url)
    if found is None or re.search(r"%(?![0-9A-Fa-f]{2})", url):
        return None
    pairs = []
    for part in found["hosts"].split(",") if found["hosts"] else ():
        host = _HOST.fullmatch(part)
        if host is None or not 0 < int(host["port"] or 1) <= 65535:
            return None
        pairs.append((host["host"].strip("[]"), int(host["port"]) if host["port"] else None))
    return _URLParts(
        found["scheme"],
        unquote(found["user"] or ""),
        unquote(found["password"] or ""),
        pairs,
        found["path"] or "",
        found["query"] or "",
    )


def postgres_url(name: str, url: str) -> str:
    """Return the URL of a PostgreSQL database in a form that django-environ and libpq understand.

    django-environ parses DATABASE_URL and DATABASE_REPLICA_URL; libpq parses DATABASE_DIRECT_URL.
    They disagree about which characters in a password are special.
    """
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    parts = _split(url)
    if (
        parts is None
        or parts.scheme not in ("postgres", "postgresql")
        or not re.fullmatch(r"/[^/]+", parts.path)
    ):
        raise ImproperlyConfigured(
            f"{name} must look like postgresql://user:password@host:5432/database. {_ENCODE}"
        )
    hosts = ",".join(
        (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
        for host, port in parts.hosts
    )
    user = quote(parts.user, safe="") + (
        f":{quote(parts.password, safe='')}" * bool(parts.password)
    )
    query = f"?{parts.query}" if parts.query else ""
    canonical = f"postgresql://{user}{'@' if user else ''}{hosts}{parts.path}{query}"
    try:
        conninfo_to_dict(canonical)
    except ProgrammingError:
        raise ImproperlyConfigured(
            f"{name} has a parameter after its ? that PostgreSQL does not know."
            " For example, it knows sslmode=require."
        ) from None
    return canonical


def redis_url(name: str) -> str:
    """Return the variable as the URL of a Redis database, or an empty text if it is unset."""
    url = text(name)
    if not url:
        return ""
    from redis import ConnectionPool, RedisError

    parts = _split(url)
    if (
        parts is None
        or parts.scheme not in ("redis", "rediss")
        or len(parts.hosts) != 1
        or not re.fullmatch(r"(/\d{0,4})?", parts.path)
    ):
        raise ImproperlyConfigured(
            f"{name} must look like redis://:password@host:6379/0, or like"
            f" rediss://user:password@host:6379/0 for TLS. {_ENCODE}"
        )
    [(host, port)] = parts.hosts
    user = f"{quote(parts.user, safe='')}:{quote(parts.password, safe='')}@"
    place = (f"[{host}]" if ":" in host else host) + f":{port or 6379}"
    query = f"?{parts.query}" if parts.query else ""
    canonical = f"{parts.scheme}://{user if user != ':@' else ''}{place}{parts.path}{query}"
    try:
        # This opens no connection, but fails if a connection would later refuse a parameter.
        ConnectionPool.from_url(canonical).make_connection()
    except (RedisError, TypeError, ValueError):
        raise ImproperlyConfigured(
            f"{name} has a parameter after its ? that the client of Redis does not know."
            " For example, it knows ssl_cert_reqs=none."
        ) from None
    return canonical


# The default port of each scheme, and the option of Django's backend that turns on encryption.
_SMTP = {"smtp": (25, ""), "smtp+tls": (587, "use_tls"), "smtp+ssl": (465, "use_ssl")}
# Django before 6.1 has one mailer, and a setting for each of its options.
_SETTING_OF = {
    "file_path": "EMAIL_FILE_PATH",
    "host": "EMAIL_HOST",
    "port": "EMAIL_PORT",
    "username": "EMAIL_HOST_USER",
    "password": "EMAIL_HOST_PASSWORD",
    "timeout": "EMAIL_TIMEOUT",
    "use_ssl": "EMAIL_USE_SSL",
    "use_tls": "EMAIL_USE_TLS",
}
# Seconds that a job waits for each response of the mail server. After that, the job fails and is
# retried later. A longer wait would delay other emails.
_MAIL_TIMEOUT = 10

EMAIL_CHOICES = (
    "smtp+tls://user:password@host:587 (or smtp+ssl://, smtp://) sends mail, filemail:///folder"
    " writes it to files, dummymail:// sends none."
)


def mailer(name: str, url: str, *, folder: Path) -> dict[str, Any]:
    """Return what `url` says about sending emails, as an entry of Django's `MAILERS` setting.

    Args:
        folder: where `filemail://` writes emails if the URL names no folder.
    """
    parts = _split(url)
    if url.startswith("consolemail:"):
        raise ImproperlyConfigured(
            f"{name} cannot be consolemail://, because no log may contain an email: {EMAIL_CHOICES}"
        )
    if url.rstrip("/") == "dummymail:":
        return {"BACKEND": "django.core.mail.backends.dummy.EmailBackend", "OPTIONS": {}}
    if parts and parts.scheme == "filemail" and not (parts.user or parts.hosts or parts.query):
        path = str(Path(unquote(parts.path)) if parts.path[1:] else folder)
        return {"BACKEND": "bookit.mails.files.FileBackend", "OPTIONS": {"file_path": path}}
    if (
        parts is None
        or parts.scheme not in _SMTP
        or len(parts.hosts) != 1
        or parts.path.strip("/")
        or parts.query
        or bool(parts.user) != bool(parts.password)
    ):
        raise ImproperlyConfigured(f"{name} is not understood: {EMAIL_CHOICES} {_ENCODE}")
    [(host, port)] = parts.hosts
    default_port, encryption = _SMTP[parts.scheme]
    return {
        "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "OPTIONS": {
            "host": host,
            "port": port or default_port,
            "username": parts.user,
            "password": parts.password,
            "timeout": _MAIL_TIMEOUT,
            **({encryption: True} if encryption else {}),
        },
    }


def mail_settings(mailer: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that make Django send emails with `mailer`."""
    if django.VERSION >= (6, 1):
        return {"MAILERS": {"default": mailer}}
    options = {_SETTING_OF[name]: value for name, value in mailer["OPTIONS"].items()}
    return {"EMAIL_BACKEND": mailer["BACKEND"], **options}


def mailbox(name: str, default: str) -> str:
    """Return the variable as the sender of emails: `address` or `Name <address>`."""
    value = text(name, default)
    found = re.fullmatch(
        r'(?:(?:[^<>@",;:\\\x00-\x1f]+|"[^"\\\x00-\x1f]*")\s*<(?P<named>[^<>\s]+)>|(?P<bare>\S+))',
        value,
    )
    try:
        validate_email(found and (found["named"] or found["bare"]))
    except ValidationError:
        raise ImproperlyConfigured(
            f"{name} must be an email address such as bookings@example.com or"
            " BookIt <bookings@example.com>."
        ) from None
    return value
