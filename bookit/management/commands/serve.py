"""`manage.py serve`: runs everything that BookIt needs in one terminal."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from types import FrameType
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, call_command, get_commands, load_command_class
from django.db import connection

from bookit.errors import pending
from bookit.runtime import startup

# Seconds within which the web server must respond to its first request.
START_TIMEOUT = 30.0
# Seconds after which processes that have not stopped are killed.
STOP_TIMEOUT = 25.0
# A worker that ends is started again after 1, 2, 4 ... seconds, at most `LONGEST_PAUSE`. After a
# worker has run for more than `RAN_FOR_A_WHILE` seconds, the pauses begin again at 1 second.
LONGEST_PAUSE = 30.0
RAN_FOR_A_WHILE = 60.0

#: Role, email and password of a demo account.
Account = tuple[str, str, str]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop(BaseException):
    """A signal asked the command to stop; Ctrl-C sends one."""


class Child:
    """A child process in its own process group. On Linux, it ends when this process dies.

    Ctrl-C reaches every process in the terminal's group. A child is outside that group, so this
    command alone decides when to stop it.
    """

    def __init__(self, arguments: list[str], *, pass_fds: tuple[int, ...] = ()) -> None:
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=startup.BASE_DIR,
            stdin=subprocess.DEVNULL,
            pass_fds=pass_fds,
            process_group=0,
            preexec_fn=_ending_with_parent(),
        )

    def ended(self) -> str | None:
        """Return how the process ended, or None while it runs."""
        status = self.process.poll()
        if status is None:
            return None
        return f"status {status}" if status >= 0 else signal.Signals(-status).name

    def wait_or_kill(self, deadline: float) -> None:
        """Wait until `deadline` for the process to end, then kill the rest of its group."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, deadline - time.monotonic()))
        self.kill()
        self.process.wait()

    def kill(self) -> None:
        """Kill the process and every process that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def _ending_with_parent() -> Callable[[], None] | None:
    """Return a function that a child calls, so that it gets a SIGTERM when this process dies.

    Only Linux supports this. On other systems, return None.
    """
    if sys.platform != "linux":
        return None
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl

    def set_death_signal() -> None:
        prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # The parent died before `prctl`, so no signal would come.
            os._exit(1)

    return set_death_signal


class Command(BaseCommand):
    """Migrates, starts the web server and the worker, and stops both on a signal (`SIGNALS`)."""

    help = (
        "Run BookIt: apply migrations, and start the web server, the worker and, if DATABASE_URL "
        "is not set, PostgreSQL. Press Ctrl-C to stop what it has started."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options for the host, the port and demo data."""
        parser.add_argument(
            "--port",
            type=_port,
            default=settings.PORT,
            help="the port to listen on; 0 picks a free one (default: PORT, or 8000)",
        )
        parser.add_argument(
            "--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)"
        )
        parser.add_argument(
            "--demo", action="store_true", help="fill an empty database with demo data"
        )

    def handle(self, *args: Any, host: str, port: int, demo: bool, **options: Any) -> None:
        """Run until a signal arrives or the web server ends."""
        # With nohup, a process ignores SIGHUP from its start to its end.
        is_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signals = [each for each in SIGNALS if each != signal.SIGHUP or not is_nohup]
        for number in signals:
            signal.signal(number, _raise_stop)
        children: list[Child] = []
        try:
            with _listen(host, port) as listener:
                accounts = self.prepare(demo=demo)
                descriptor = listener.fileno()
                web = Child(
                    [
                        *("-m", "gunicorn", "-c", "python:bookit.runtime.gunicorn"),
                        *("--bind", f"fd://{descriptor}", "--log-level", "warning"),
                    ],
                    pass_fds=(descriptor,),
                )
                children.append(web)
                bound_port = listener.getsockname()[1]
            worker = self.start_worker()
            children.append(worker)
            reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
            self.wait_for(web, reachable, bound_port)
            self.announce(f"[{reachable}]" if ":" in reachable else reachable, bound_port, accounts)
            self.watch(web, children)
        except Stop:
            self.say("\nStopping.")
        finally:
            self.stop(children, signals)

    def prepare(self, *, demo: bool) -> list[Account]:
        """Apply the migrations, and leave no connection to the database open.

        With `demo`, fill the database if it is empty, and return its demo accounts.
        """
        reason = startup.why_unreachable()
        if reason is not None:
            startup.fail(reason)
        try:
            count = pending.pending_migrations()
            if count:
                self.say(f"Applying migrations: {count}.")
            call_command("migrate", interactive=False, verbosity=0, skip_checks=True)
            return self.fill() if demo else []
        finally:
            connection.close()
            connection.close_pool()  # type: ignore[attr-defined]

    def fill(self) -> list[Account]:
        """Store demo data, and return the demo accounts that exist.

        Nothing is stored if there are services, or accounts with the email addresses of the demo.
        """
        seed: Any = load_command_class(get_commands()["seed_demo"], "seed_demo")
        call_command(seed)
        accounts: list[Account] = seed.accounts
        emails = [email for _, email, _ in accounts]
        existing = set(
            get_user_model().objects.filter(email__in=emails).values_list("email", flat=True)
        )
        return [account for account in accounts if account[1] in existing]

    def start_worker(self) -> Child:
        """Start the process that runs the jobs."""
        return Child(["manage.py", "procrastinate", "worker"])

    def wait_for(self, web: Child, host: str, port: int) -> None:
        """Wait until the web server responds."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            ended = web.ended()
            if ended is not None:
                startup.fail(f"the web server did not start ({ended})")
            client = HTTPConnection(host, port, timeout=5)
            try:
                client.request("GET", "/health", headers={"Host": "localhost"})
                client.getresponse()
            except (OSError, HTTPException):
                time.sleep(0.1)
            else:
                return
            finally:
                client.close()
        startup.fail(f"the web server did not answer within {START_TIMEOUT:.0f} seconds")

    def announce(self, host: str, port: int, accounts: list[Account]) -> None:
        """Print the URLs to open, the folder of the data, and the demo accounts."""
        base = f"http://{host}:{port}"
        lines = [
            "",
            self.style.SUCCESS("BookIt is running. Press Ctrl-C to stop it."),
            "",
            f"  API     {base}",
            f"  Docs    {base}/docs",
            f"  Admin   {base}/admin/",
        ]
        if not settings.PRODUCTION:
            lines.append(f"  Example {base}/example")
        if startup.embedded_directory is not None:
            lines.append(f"  Data    {startup.embedded_directory}")
        if accounts:
            widths = [max(map(len, column)) for column in zip(*accounts, strict=True)]
            lines += ["", "Demo accounts (role, email, password):", ""]
            for account in accounts:
                cells = (cell.ljust(width) for cell, width in zip(account, widths, strict=True))
                lines.append(f"  {'   '.join(cells).rstrip()}")
        self.say("\n".join([*lines, ""]))

    def watch(self, web: Child, children: list[Child]) -> None:
        """Keep a worker running as long as the web server runs."""
        pause = 1.0
        while True:
            time.sleep(0.2)
            ended = web.ended()
            if ended is not None:
                startup.fail(f"the web server ended ({ended})")
            worker = children[-1]
            ended = worker.ended()
            if ended is None:
                continue
            if time.monotonic() - worker.started > RAN_FOR_A_WHILE:
                pause = 1.0
            self.say(f"The worker ended ({ended}). It restarts in {pause:.0f} s.")
            worker.kill()
            until = time.monotonic() + pause
            while time.monotonic() < until and web.ended() is None:
                time.sleep(0.2)
            if web.ended() is None:
                children[-1] = self.start_worker()
                pause = min(2 * pause, LONGEST_PAUSE)

    def stop(self, children: list[Child], signals: list[signal.Signals]) -> None:
        """Stop the children. If one of `signals` arrives meanwhile, kill them at once."""

        def hurry(number: int, frame: FrameType | None) -> None:
            for child in children:
                child.kill()

        for number in signals:
            signal.signal(number, hurry)
        for child in children:
            child.process.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT
        for child in children:
            child.wait_or_kill(deadline)

    def say(self, message: str) -> None:
        """Write a message at once, even into a pipe."""
        self.stdout.write(message)
        self.stdout.flush()


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise ArgumentTypeError(f"the port must be a whole number from 0 to 65535, not {text!r}")
    return int(text)


def _raise_stop(number: int, frame: FrameType | None) -> None:
    raise Stop


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket that the web server inherits, so nobody else can take the port."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)  # gunicorn's default for a socket that it opens itself
    except (OSError, UnicodeError) as error:  # The name of a host can be impossible to encode.
        reason = error.strerror if isinstance(error, OSError) else error
        startup.fail(
            f"cannot listen on {host}, port {port}: {reason}; choose another port with --port, or "
            "another address with --host"
        )
    return listener
