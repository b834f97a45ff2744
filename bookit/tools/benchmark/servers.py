"""The web servers that are measured, started as in production, and what they use."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException

import psutil

from bookit.runtime.startup import BASE_DIR

START_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0
SETTLE_TIMEOUT = 10.0
WORKERS = 2

#: The WSGI applications, as gunicorn names them.
BOOKIT = "bookit.wsgi"
REFERENCE = "bookit.tools.benchmark.reference"


class ServerError(Exception):
    """A server does not start."""


def production(url: str, *, workers: int = WORKERS) -> dict[str, str]:
    """Return a production server's environment, with rate limits off and tokens that last.

    Everything that a developer's `.env` could change is named; empty means the default. The
    number of threads alone is taken from the environment, so that it can be tried out.
    """
    return {
        **os.environ,
        "APP_ENV": "production",
        "SECRET_KEY": secrets.token_urlsafe(50),
        "DATABASE_URL": url,
        "ALLOWED_HOSTS": "localhost",
        "EMAIL_URL": "dummymail://",
        # Mails are counted, and none is withheld: what is measured is how fast they are sent.
        "MAILS_PER_ADDRESS": "10000000",
        "MAILS_PER_VERIFIED_ADDRESS": "10000000",
        "WEB_CONCURRENCY": str(workers),
        "WEB_THREADS": os.environ.get("WEB_THREADS", ""),
        "RATE_LIMIT_AUTH": "",
        "RATE_LIMIT_PASSWORD": "",
        "RATE_LIMIT_ANON": "",
        "RATE_LIMIT_USER": "",
        "ACCESS_TOKEN_EXPIRE_MINUTES": "1440",
        "LOG_LEVEL": "INFO",
        "LOG_FORMAT": "json",
        "DATABASE_POOL_SIZE": "",
        "STATEMENT_TIMEOUT_MS": "",
        "NUM_PROXIES": "",
        "CORS_ALLOWED_ORIGINS": "",
        "CSRF_TRUSTED_ORIGINS": "",
    }


@dataclass(frozen=True)
class Memory:
    """A worker's memory in MiB."""

    resident: float
    # What it shares with others counted in part; Linux alone tells.
    proportional: float | None


class Server:
    """gunicorn with an application, on a port of this machine."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes."""
        return list(psutil.Process(self.process.pid).children())

    def cpu_seconds(self) -> float:
        """Return the CPU time that the workers have used so far."""
        times = [worker.cpu_times() for worker in self.workers()]
        return sum(each.user + each.system for each in times)

    def settle(self) -> None:
        """Wait until the workers have done what was asked of them when the load stopped.

        Sixteen logins take half a second, which would be the next measurement's.
        """
        deadline = time.monotonic() + SETTLE_TIMEOUT
        before = -1.0
        while (now := self.cpu_seconds()) > before + 0.01 and time.monotonic() < deadline:
            before = now
            time.sleep(0.2)

    def memory(self) -> list[Memory]:
        """Return what each worker holds."""
        return [_memory(worker) for worker in self.workers()]

    def wait(self, path: str) -> None:
        """Wait until the server answers at `path`.

        Raises:
            ServerError: it ended, or does not answer in time.
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
        raise ServerError(f"gunicorn does not answer after {START_TIMEOUT:.0f} seconds.")

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
    """Run gunicorn as in production, with `application`, for the length of a `with` block.

    It logs as in production too, to nowhere. In a process group of its own, it does not see
    Ctrl-C: it is stopped by us.
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
    """Bring the database at `url` up to date.

    Raises:
        ServerError: that failed; says why.
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


def _memory(process: psutil.Process) -> Memory:
    try:
        proportional = process.memory_full_info().pss / 2**20
    except (AttributeError, psutil.AccessDenied):
        proportional = None
    return Memory(process.memory_info().rss / 2**20, proportional)
