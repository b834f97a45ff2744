"""Web servers that run as long as a test or a measurement, and connections to their databases."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException

import psutil
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg.conninfo import conninfo_to_dict

from bookit.database.postgresql.base import DatabaseWrapper
from bookit.runtime.startup import BASE_DIR

START_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0

#: The name of BookIt's WSGI application for gunicorn.
BOOKIT = "bookit.wsgi"


class ServerError(Exception):
    """A server did not start, or its database could not be migrated."""


def production(url: str, *, workers: int = 2) -> dict[str, str]:
    """Return the environment of a production server without rate limits.

    Access tokens are valid for a day. The variables that are set here override a developer's
    `.env`; an empty value means the default or, for a rate limit, no limit. WEB_THREADS keeps the
    value of the caller's environment, so that a caller can try different values.
    """
    return {
        **os.environ,
        "APP_ENV": "production",
        "SECRET_KEY": secrets.token_urlsafe(50),
        "DATABASE_URL": url,
        "ALLOWED_HOSTS": "localhost",
        "EMAIL_URL": "dummymail://",
        # These limits are never reached, so no email is left out, and the emails can be counted.
        "MAILS_PER_ACCOUNT": "10000000",
        "MAILS_PER_BOOKING": "10000000",
        "MAILS_PER_ADDRESS": "10000000",
        "MAILS_PER_VERIFIED_ADDRESS": "10000000",
        "WEB_CONCURRENCY": str(workers),
        "WEB_THREADS": os.environ.get("WEB_THREADS", ""),
        "RATE_LIMIT_AUTH": "",
        "RATE_LIMIT_PASSWORD": "",
        "RATE_LIMIT_ANON": "",
        "RATE_LIMIT_USER": "",
        "RATE_LIMIT_KEY": "",
        "REDIS_URL": "",
        "REDIS_URL_FILE": "",
        "ACCESS_TOKEN_EXPIRE_MINUTES": "1440",
        "LOG_LEVEL": "INFO",
        "LOG_FORMAT": "json",
        "DATABASE_POOL_SIZE": "",
        "DATABASE_PREPARED_STATEMENTS": "",
        "DATABASE_DIRECT_URL": "",
        "DATABASE_REPLICA_URL": "",
        "DATABASE_DIRECT_URL_FILE": "",
        "DATABASE_REPLICA_URL_FILE": "",
        "STATEMENT_TIMEOUT_MS": "",
        "MAIL_PAUSE_SECONDS": "",
        "BOOKING_REQUIRES_VERIFIED_EMAIL": "",
        "NUM_PROXIES": "",
        "COMPOSE_PROXIES": "",
        "PUBLIC_SCHEME": "",
        "CORS_ALLOWED_ORIGINS": "",
        "CSRF_TRUSTED_ORIGINS": "",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "",
        "WEBHOOK_ALLOW_PRIVATE": "",
        "WORKER_CONCURRENCY": "",
        "WORKER_HEARTBEAT_FILE": "",
    }


class Server:
    """A running gunicorn that serves an application on a local port."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes."""
        return list(psutil.Process(self.process.pid).children())

    def wait(self, path: str) -> None:
        """Wait until the server responds to a request for `path`.

        Raises:
            ServerError: the server ended, or did not respond in time.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise ServerError(f"gunicorn did not start (status {self.process.returncode}).")
            client = HTTPConnection("127.0.0.1", self.port, timeout=5)
            with suppress(OSError, HTTPException):
                client.request("GET", path, headers={"Host": "localhost"})
                client.getresponse()
                return
            client.close()
            time.sleep(0.1)
        raise ServerError(f"gunicorn did not answer within {START_TIMEOUT:.0f} seconds.")

    def stop(self) -> None:
        """Stop the server and all its workers."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(application: str, environment: dict[str, str]) -> Iterator[Server]:
    """Run an application under gunicorn, as in production, until the end of a `with` block.

    The server writes the same log as in production, but to /dev/null. It runs in its own process
    group, so Ctrl-C in the terminal does not reach it.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        descriptor, port = listener.fileno(), listener.getsockname()[1]
        arguments = ["-m", "gunicorn", "-c", "python:bookit.runtime.gunicorn"]
        process = subprocess.Popen(
            [sys.executable, *arguments, "--bind", f"fd://{descriptor}", application],
            cwd=BASE_DIR,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(descriptor,),
            process_group=0,
        )
    server = Server(process, port)
    try:
        yield server
    finally:
        server.stop()


def migrate(url: str) -> None:
    """Migrate the database at `url`.

    Raises:
        ServerError: a migration failed; the message says why.
    """
    result = subprocess.run(
        [sys.executable, "manage.py", "migrate", "--no-input", "--verbosity=0"],
        cwd=BASE_DIR,
        env=production(url),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        said = result.stderr.strip().splitlines() or ["it says nothing"]
        raise ServerError(f"The database could not be migrated: {said[-1]}")


@contextmanager
def connected_to(url: str) -> Iterator[None]:
    """Let Django use the database at `url`, in this thread, until the end of a `with` block.

    The connection has the usual options, but no pool, and statements have no time limit.
    """
    usual = connections[DEFAULT_DB_ALIAS]
    parts = conninfo_to_dict(url)
    names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password"}
    place = {name: parts.get(part, "") for name, part in names.items()}
    place["NAME"] = parts["dbname"]
    options = {**usual.settings_dict["OPTIONS"], "options": "", "pool": False}
    other = DatabaseWrapper({**usual.settings_dict, **place, "OPTIONS": options}, DEFAULT_DB_ALIAS)
    connections[DEFAULT_DB_ALIAS] = other
    try:
        other.ensure_connection()
        other.connection.patience = None
        yield
    finally:
        other.close()
        connections[DEFAULT_DB_ALIAS] = usual
