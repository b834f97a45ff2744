"""The start of every entry point (`manage.py`, gunicorn, WSGI): the database and the settings.

Importing the settings module alone starts no database, so type checkers and editors can import it.
Programs that need a database call `load_settings`.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from django.core.exceptions import ImproperlyConfigured

from bookit.runtime import environment

if TYPE_CHECKING:
    from django.db import DatabaseError

BASE_DIR = environment.BASE_DIR

# The process that warns of unknown variables sets this variable, so that neither the process itself
# nor its children warn again. gunicorn's main process calls `load_settings` twice.
WARNED = "BOOKIT_WARNED"

# Django REST Framework imports these packages if they are installed, for features that BookIt does
# not use. Together, they take 7 MiB of memory.
UNUSED = ["requests", "pygments"]

#: The directory of the embedded PostgreSQL server that this process has started or joined, if any.
embedded_directory: Path | None = None


def fail(message: object) -> NoReturn:
    """Exit with status 1, and write the message to stderr."""
    sys.exit(f"bookit: {str(message).strip()}")


def load_templates() -> None:
    """Load the templates of BookIt, which Django then keeps. Django must be ready.

    An upgrade can replace their files while the old version still runs. The old code may not know
    what the new templates use, so it must not load them.
    """
    from django.apps import apps
    from django.template.loader import get_template

    for app in apps.get_app_configs():
        path = Path(app.path).resolve()
        if path.parent == BASE_DIR:
            folder = path / "templates"
            for template in folder.rglob("*.*"):
                get_template(str(template.relative_to(folder)))


def load_settings(*, database: bool = True) -> None:
    """Load Django's settings, or exit with a message that says what is wrong.

    With `database`, start the embedded server in development, if DATABASE_URL is unset.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookit.settings")
    from django.conf import settings

    try:
        if database:
            provide_database()
        with _hidden(UNUSED):
            settings.INSTALLED_APPS  # noqa: B018 - the first access loads the settings
            import rest_framework.compat  # noqa: F401 - it imports the unused packages
    except ImproperlyConfigured as error:
        fail(error)
    _warn_of_unknown_variables()


@contextmanager
def _hidden(packages: Iterable[str]) -> Iterator[None]:
    """Let imports of packages fail in a `with` block, unless they have been imported already."""
    hidden: Any = dict.fromkeys(name for name in packages if name not in sys.modules)
    sys.modules.update(hidden)
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _warn_of_unknown_variables() -> None:
    """Write a line about each unknown variable, once for a process and all its children."""
    if WARNED not in os.environ:
        os.environ[WARNED] = "1"
        for line in environment.unknown():
            sys.stderr.write(f"bookit: {line}\n")


def provide_database() -> None:
    """In development, set an unset DATABASE_URL to the URL of the embedded server.

    This function starts the server, or joins a server that already runs, and uses it until this
    process ends. The data of the server is in `.postgres/`, or in the directory that
    EMBEDDED_POSTGRES_DIR names.

    Raises:
        ImproperlyConfigured: the embedded server does not start, or `.env` cannot be used.
    """
    global embedded_directory
    environment.load()  # as the settings do
    development = environment.text("APP_ENV", "development").lower() == "development"
    if not development or environment.text("DATABASE_URL"):
        return
    # Imported here, because production does not use this module.
    from bookit.runtime.embedded_postgres import (
        EmbeddedPostgresError,
        acquire,
        directory_of_project,
    )

    directory = directory_of_project()
    # By default, SIGTERM ends a process without running its exit handlers, so the server would keep
    # running.
    handles_sigterm = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    )
    if handles_sigterm:
        signal.signal(signal.SIGTERM, _exit)
    try:
        os.environ["DATABASE_URL"] = acquire(directory)
    except EmbeddedPostgresError as error:
        raise ImproperlyConfigured(str(error)) from error
    embedded_directory = directory
    if handles_sigterm:
        # From here on, the handler must not raise an exception, which would crash the event loop of
        # a worker of the queue.
        signal.signal(signal.SIGTERM, _release_and_die)


@contextmanager
def exiting_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit in a `with` block, as Ctrl-C raises an exception.

    By default, these signals end a process without running the block's cleanup. A signal that is
    ignored stays ignored, as `nohup` needs it.
    """
    numbers = [signal.SIGTERM, signal.SIGHUP]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # Only the main thread may set handlers.
    usual = {number: signal.getsignal(number) for number in numbers}
    changed = {number: each for number, each in usual.items() if each != signal.SIG_IGN}
    for number in changed:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number, handler in changed.items():
            signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _release_and_die(number: int, frame: FrameType | None) -> None:
    from bookit.runtime.embedded_postgres import release

    if embedded_directory is not None:
        release(embedded_directory)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def why_not_ready() -> str | None:
    """Return a line that says why requests cannot use the database, or None if they can."""
    import django

    reason = why_unreachable()
    if reason:
        return reason
    django.setup(set_prefix=False)
    from django.db import DEFAULT_DB_ALIAS, OperationalError, connections

    from bookit.errors.pending import explanation, pending_migrations

    # The web server is about to fork, and a pool has threads. A thread that ends at the moment of
    # the fork can hold a lock of OpenSSL, and the forked process would wait for this lock forever.
    # Therefore this connection uses no pool.
    usual = connections[DEFAULT_DB_ALIAS]
    connections[DEFAULT_DB_ALIAS] = single = usual.copy()
    single.settings_dict["OPTIONS"].pop("pool", None)
    try:
        count = pending_migrations()
        return explanation(count) if count else None
    except OperationalError as error:  # PostgreSQL stopped after `why_unreachable` reached it.
        return _unreachable(error)
    finally:
        single.close()
        connections[DEFAULT_DB_ALIAS] = usual


def why_unreachable(failure: "DatabaseError | None" = None) -> str | None:
    """Return a line that says why PostgreSQL cannot be reached, or None if it can.

    This function bypasses the connection pool, whose errors say only that a wait timed out.

    Args:
        failure: the error of a statement. If the database is distributed, this error tells whether
            one of the other servers cannot be reached.
    """
    import psycopg
    from django.db import connection

    from bookit.database.citus.nodes import is_server_down

    try:
        psycopg.connect(**connection.get_connection_params()).close()
    except psycopg.OperationalError as error:
        return _unreachable(error)
    return _unreachable(failure) if failure and is_server_down(failure) else None


def _unreachable(error: Exception) -> str:
    reason = str(error).strip().splitlines() or ["no reason is given"]
    return f"PostgreSQL cannot be reached: {reason[0]}"
